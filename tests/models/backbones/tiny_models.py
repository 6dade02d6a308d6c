"""Tiny random models of the image families of ``transformers``, and what was found about each of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

SIDE = 64  # px, of the images that tiny models take
_MAX_WEIGHTS = 6_000_000  # a family whose smallest network is larger is not tried

# Values of settings that many families have, and of those that only some have; each is set where it exists.
_SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_heads": 2,
    "intermediate_size": 64,
    "image_size": SIDE,
    "patch_size": 8,
    "decoder_hidden_size": 16,
    "decoder_num_hidden_layers": 1,
    "decoder_num_attention_heads": 2,
    "decoder_intermediate_size": 32,
    "embed_dim": 16,
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "num_queries": 4,
    "vocab_size": 50,
    "n_embd": 32,
    "n_layer": 1,
    "n_head": 2,
    "projection_dim": 16,
    "projector_hidden_size": 32,
    "num_frames": 2,
    "num_labels": 5,
    "initializer_range": 0.2,  # else the differences between images drown in those between channels
    "num_global_layers": 1,
    "vision_output_dim": 32,
    "intermediate_layers_indices": [0],
}
_STAGES = {"hidden_sizes": [16, 24], "depths": [1, 1]}
_WINDOWS = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}
_FAMILIES: dict[str, dict[str, Any]] = {
    "bit": {"embedding_size": 16, "num_groups": 1, **_STAGES},
    "convnext": {"num_stages": 2, **_STAGES},
    "convnextv2": {"num_stages": 2, **_STAGES},
    "dinov3_convnext": _STAGES,
    "dinat": {"depths": [1, 1], "num_heads": [2, 2], "dilations": [[1], [1]], "embed_dim": 16},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    "focalnet": {**_STAGES, "embed_dim": 16, "focal_levels": [2, 2], "focal_windows": [3, 3], "hidden_sizes": [16, 16]},
    "hiera": {"embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "embed_dim_multiplier": 2.0, "num_query_pool": 1,
              "patch_size": [4, 4], "patch_stride": [4, 4], "patch_padding": [1, 1], "image_size": [SIDE, SIDE],
              "masked_unit_size": [8, 8]},
    "levit": {"patch_size": 16, "hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 1], "key_dim": [8, 8, 8]},
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.35},
    "mobilevit": {"hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [4, 8, 8, 16, 16, 16, 32], "patch_size": 2},
    "mobilevitv2": {"width_multiplier": 0.25, "base_attn_unit_dims": [32, 32, 32], "n_attn_blocks": [1, 1, 1],
                    "patch_size": 2},
    "poolformer": {"hidden_sizes": [16, 24, 32, 32], "depths": [1, 1, 1, 1]},
    "pvt": {"hidden_sizes": [16, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1],
            "sequence_reduction_ratios": [8, 4, 2, 1], "patch_sizes": [4, 2, 2, 2], "strides": [4, 2, 2, 2]},
    "pvt_v2": {"hidden_sizes": [16, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1]},
    "regnet": {"embedding_size": 16, "hidden_sizes": [16, 16, 24, 32], "depths": [1, 1, 1, 1], "groups_width": 8},
    "resnet": {"embedding_size": 16, "layer_type": "basic", **_STAGES},
    "segformer": {"hidden_sizes": [16, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1]},
    "glpn": {"hidden_sizes": [16, 16, 16, 16], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 1, 1],
             "decoder_hidden_size": 16},
    "swiftformer": {"embed_dims": [16, 24, 32, 32], "depths": [1, 1, 1, 1], "image_size": SIDE},
    "swin": _WINDOWS,
    "swinv2": _WINDOWS,
    "donut-swin": _WINDOWS,
    "swin2sr": {**_WINDOWS, "image_size": SIDE, "patch_size": 1},
    "cvt": {"embed_dim": [16, 24, 32], "num_heads": [1, 2, 2], "depth": [1, 1, 1]},
    "dpt": {"backbone_out_indices": [0, 0, 1, 1], "neck_hidden_sizes": [8, 8, 8, 8], "is_hybrid": False},
    "timesformer": {"num_frames": 2},
}  # fmt: skip


@dataclass(frozen=True)
class Family:
    """One class of image model.

    Attributes:
        model_type: its name in ``config.json``.
        architecture: the name of its class.
    """

    model_type: str
    architecture: str


def families() -> Iterator[Family]:
    """The image models that the installed version of transformers has, in the order of their names."""
    from transformers.models.auto import configuration_auto, modeling_auto

    images = modeling_auto.MODEL_FOR_IMAGE_MAPPING_NAMES
    classifiers = modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
    pairs = modeling_auto.MODEL_FOR_ZERO_SHOT_IMAGE_CLASSIFICATION_MAPPING_NAMES
    towers = {name for name in configuration_auto.CONFIG_MAPPING_NAMES if name.endswith("_vision_model")}
    named = {*images, *classifiers, *pairs, *towers}
    bases = modeling_auto.MODEL_MAPPING_NAMES
    for model_type in sorted(named):
        known = [bases.get(model_type), images.get(model_type)]
        names = {name for entry in known if entry for name in ([entry] if isinstance(entry, str) else entry)}
        yield from (Family(model_type, name) for name in sorted(names))


def _small_values(config: Any) -> dict[str, Any]:
    """Small values of the settings that are plain numbers in a configuration."""
    numbers = {name for name in _SMALL if isinstance(getattr(config, name, None), (int, float))}
    return {name: _SMALL[name] for name in numbers - config.attribute_map.keys()}


def small_config(family: Family) -> Any:
    """The settings of a tiny network of a family."""
    from transformers import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[family.model_type]
    config = config_class()
    values = _small_values(config)
    for part in ("vision_config", "text_config"):
        inner = getattr(config, part, None)
        if inner is not None:
            values[part] = {**inner.to_dict(), **_small_values(inner)}
    own = _FAMILIES.get(family.model_type, {})
    return config_class(**{**values, **own})


def build(family: Family) -> Any:
    """A tiny model with random weights; None where no tiny one can be built.

    Args:
        family: which one.
    """
    import transformers

    try:
        model_class = getattr(transformers, family.architecture)
        config = small_config(family)
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in model_class(config).parameters())
        if weights > _MAX_WEIGHTS:
            return None
        torch.manual_seed(0)
        return model_class(config).eval()
    except Exception:
        if os.environ.get("WHY"):
            raise
        return None
