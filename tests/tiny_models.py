"""Tiny random models of the image families of ``transformers``, and what is found about each of them.

``python tests/tiny_models.py`` writes the table in docs/backbones.md.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lmeraser.config.inputs import BackboneConfig
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.determinism_check import check_determinism
from lmeraser.models.backbones.huggingface import HuggingFaceBackbone
from lmeraser.models.environment import deterministic, fingerprint

DOCS = Path(__file__).parents[1] / "docs" / "backbones.md"
BEGIN, END = "<!-- families: begin -->", "<!-- families: end -->"
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
_FOUR_STAGES = {"hidden_sizes": [16] * 4, "depths": [1] * 4, "num_attention_heads": [1] * 4}
_WINDOWS = {"embed_dim": 16, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4, "patch_size": 4}
_FAMILIES: dict[str, dict[str, Any]] = {
    "bit": {"embedding_size": 16, "num_groups": 1, **_STAGES},
    "convnext": {"num_stages": 2, **_STAGES},
    "convnextv2": {"num_stages": 2, **_STAGES},
    "cvt": {"embed_dim": [16, 24, 32], "num_heads": [1, 2, 2], "depth": [1, 1, 1]},
    "dinov3_convnext": _STAGES,
    "donut-swin": _WINDOWS,
    "dpt": {"backbone_out_indices": [0, 0, 1, 1], "neck_hidden_sizes": [8, 8, 8, 8], "is_hybrid": False},
    "efficientnet": {"width_coefficient": 0.25, "depth_coefficient": 0.25, "hidden_dim": 320},
    "focalnet": {
        "depths": [1, 1], "embed_dim": 16, "hidden_sizes": [16, 16],
        "focal_levels": [2, 2], "focal_windows": [3, 3],
    },
    "glpn": {**_FOUR_STAGES, "decoder_hidden_size": 16},
    "hiera": {
        "embed_dim": 16, "depths": [1, 1], "num_heads": [1, 2], "embed_dim_multiplier": 2.0, "num_query_pool": 1,
        "patch_size": [4, 4], "patch_stride": [4, 4], "patch_padding": [1, 1], "image_size": [SIDE, SIDE],
        "masked_unit_size": [8, 8],
    },
    "levit": {
        "patch_size": 16, "hidden_sizes": [16, 24, 32], "num_attention_heads": [1, 2, 3], "depths": [1, 1, 1],
        "key_dim": [8, 8, 8],
    },
    "mobilenet_v1": {"depth_multiplier": 0.25},
    "mobilenet_v2": {"depth_multiplier": 0.35},
    "mobilevit": {
        "hidden_sizes": [16, 24, 32], "neck_hidden_sizes": [4, 8, 8, 16, 16, 16, 32], "patch_size": 2,
    },
    "mobilevitv2": {
        "width_multiplier": 0.25, "base_attn_unit_dims": [32, 32, 32], "n_attn_blocks": [1, 1, 1], "patch_size": 2,
    },
    "poolformer": {"hidden_sizes": [16, 24, 32, 32], "depths": [1, 1, 1, 1]},
    "pvt": {
        **_FOUR_STAGES,
        "sequence_reduction_ratios": [8, 4, 2, 1], "patch_sizes": [4, 2, 2, 2], "strides": [4, 2, 2, 2],
    },
    "pvt_v2": _FOUR_STAGES,
    "regnet": {"embedding_size": 16, "hidden_sizes": [64] * 4, "depths": [1] * 4, "groups_width": 8},
    "resnet": {"embedding_size": 16, "layer_type": "basic", **_STAGES},
    "segformer": _FOUR_STAGES,
    "swiftformer": {"embed_dims": [16, 24, 32, 32], "depths": [1, 1, 1, 1]},
    "swin": _WINDOWS,
    "swin2sr": {**_WINDOWS, "patch_size": 1},
    "swinv2": _WINDOWS,
}  # fmt: skip


class NotBuiltError(Exception):
    """No tiny model of a family can be built here."""


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
    """A tiny model with random weights.

    Args:
        family: which one.

    Raises:
        NotBuiltError: a package is missing, or no tiny one can be built in this general way.
    """
    import transformers

    try:
        model_class = getattr(transformers, family.architecture)
        config = small_config(family)
        with torch.device("meta"):
            weights = sum(parameter.numel() for parameter in model_class(config).parameters())
        if weights > _MAX_WEIGHTS:
            raise NotBuiltError("its smallest network is large")
        torch.manual_seed(0)
        return model_class(config).eval()
    except ImportError as error:
        needed = [name for name in ("timm", "natten") if f"requires the {name} library" in str(error)]
        raise NotBuiltError(f"needs {needed[0]}" if needed else "needs another package") from error
    except NotBuiltError:
        raise
    except Exception as error:  # settings that do not go together
        raise NotBuiltError("its settings do not go together with small ones") from error


def save_processor(family: Family, folder: Path) -> None:
    """Save the family's own image processor with its usual values, if it has one that is installed."""
    from transformers import CONFIG_MAPPING, IMAGE_PROCESSOR_MAPPING

    kinds = IMAGE_PROCESSOR_MAPPING.get(CONFIG_MAPPING[family.model_type], None)
    classes = list(kinds.values()) if isinstance(kinds, dict) else list(kinds or ())
    for processor_class in reversed(classes):  # the one of Pillow needs no more packages
        try:
            processor_class().save_pretrained(folder)
        except ImportError:
            continue
        return


def publishers_pixels(folder: Path, images: list[Image.Image]) -> Tensor:
    """Images as the saved processor gives them, at their own size: float32 [n, 3, SIDE, SIDE]."""
    from transformers import AutoImageProcessor

    if not any(folder.glob("*processor_config.json")):
        return (
            torch.stack([torch.from_numpy(np.asarray(image).copy()) for image in images]).permute(0, 3, 1, 2)
            / 127.5
            - 1
        )
    processor = AutoImageProcessor.from_pretrained(folder)
    unscaled = {name: False for name in ("do_resize", "do_center_crop", "do_pad") if hasattr(processor, name)}
    pixels: Tensor = processor(images=images, return_tensors="pt", **unscaled)["pixel_values"]
    return pixels.float()


def publishers_features(model: Any, pixels: Tensor, pooling: str) -> Tensor:
    """Features of the network itself, or of its vision tower."""
    network = model.vision_model if getattr(model.config, "vision_config", None) is not None else model
    with torch.no_grad():
        output = network(pixel_values=pixels)
    if pooling == "pooler":
        pooled: Tensor = output.pooler_output
        return pooled.flatten(1)
    tokens: Tensor = output.last_hidden_state
    if tokens.ndim == 4:
        return tokens.mean(dim=(2, 3))
    return tokens[:, 0] if pooling == "cls" else tokens.mean(dim=1)


@dataclass(frozen=True)
class Finding:
    """What was found about a family.

    Attributes:
        family: which one.
        result: "loads", "refused" or "not tried".
        detail: the pooling of its features, or the reason.
    """

    family: Family
    result: str
    detail: str


def examine(family: Family, folder: Path) -> Finding:
    """Load a tiny model of a family twice and compare it with the publisher's processor and network.

    Raises:
        AssertionError: it loads, and is not the publisher's to 1e-5, or not the same to the bit.
    """
    try:
        model = build(family)
    except NotBuiltError as error:
        return Finding(family, "not tried", str(error))
    model.save_pretrained(folder)
    save_processor(family, folder)
    config = BackboneConfig(name=str(folder), image_size=SIDE, micro_batch=2)
    try:
        backbone, again = (HuggingFaceBackbone(config, torch.device("cpu")) for _ in range(2))
        fingerprint(backbone)
        check_determinism(backbone, str(folder))
    except BackboneError as error:
        told = error.got.replace(f"{str(folder)!r}", "it").replace(f"{folder}", "it")
        reason = told.removeprefix("it: ").removeprefix("it ")
        return Finding(family, "refused", f"{error.message[0].lower()}{error.message[1:]}: {reason}")
    noise = np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 3), dtype=np.uint8)
    with deterministic(), torch.inference_mode():
        inputs = backbone.normalize(torch.from_numpy(noise).permute(0, 3, 1, 2))
        features = backbone.features(inputs)
        assert torch.equal(again.features(inputs), features), "another load gives other bits"
        assert backbone.digest == again.digest
    theirs = publishers_pixels(folder, [Image.fromarray(image) for image in noise])
    torch.testing.assert_close(inputs, theirs, rtol=1e-5, atol=1e-5)
    expected = publishers_features(model, theirs, backbone._pooling)
    difference = (features - expected).abs().max() / expected.abs().max().clamp(min=1.0)
    assert difference <= 1e-5, f"features differ from the publisher's by {difference:.1e}"
    assert (features[0] - features[1]).abs().max() > 0, "all images have the same features"
    return Finding(family, "loads", backbone._pooling)


def table(findings: Sequence[Finding]) -> str:
    """The findings as the table of docs/backbones.md."""
    rows = ["| family | class | features |", "|---|---|---|"]
    names = {"pooler": "its own pooling", "cls": "class token", "mean": "mean"}
    for result in ("loads", "refused", "not tried"):
        for one in (finding for finding in findings if finding.result == result):
            told = names.get(one.detail, one.detail) if result == "loads" else f"*{result}*: {one.detail}"
            rows.append(f"| `{one.family.model_type}` | `{one.family.architecture}` | {told} |")
    return "\n".join(rows)


def circumstances() -> str:
    """What findings depend on besides this project."""
    capability = torch.backends.cpu.get_cpu_capability()
    return f"With transformers {metadata.version('transformers')}, on a CPU with {capability}:"


def documented() -> tuple[str, str]:
    """What the table in docs/backbones.md was made with, and the table."""
    text = DOCS.read_text(encoding="utf-8")
    inside = text.partition(BEGIN)[2].partition(END)[0].strip()
    circumstances, _, rest = inside.partition("\n")
    return circumstances, rest.strip()


def write_table() -> None:
    """Write what is found now into docs/backbones.md; takes a minute."""
    findings = []
    for family in families():
        with tempfile.TemporaryDirectory() as folder:
            findings.append(examine(family, Path(folder)))
    before, _, rest = DOCS.read_text(encoding="utf-8").partition(BEGIN)
    after = rest.partition(END)[2]
    told = f"{circumstances()}\n\n{table(findings)}"
    DOCS.write_text(f"{before}{BEGIN}\n\n{told}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    write_table()
