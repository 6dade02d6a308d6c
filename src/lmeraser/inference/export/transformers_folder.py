"""A model with one head as a folder that transformers loads with ``trust_remote_code=True``, without lmeraser.

    config.json               every constant, in JSON values
    model.safetensors         backbone, heads, random layer and random frame
    modeling_lmeraser.py      the computation (`transformers_code`), with preprocessor or tokenizer beside it

No class of transformers scales each embedding by its own length and rounds it to whole numbers, so the folder
brings its code. It is the same for every export; whoever loads one may read it first.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.random_features import projection, shift_for
from lmeraser.core.sufficient_statistics import LARGEST_INTEGER, SCALE
from lmeraser.core.tensors import Array
from lmeraser.errors import InputError
from lmeraser.inference.export import transformers_code
from lmeraser.inference.export.graph import check_one_head, heads_of, plain_backbone
from lmeraser.models.backbones.base import Backbone, ImageBackbone, chosen_layers
from lmeraser.models.backbones.text_model import TextBackbone
from lmeraser.models.manifest import Model
from lmeraser.models.modalities.image import canvas_size_of, random_frame

_CODE = Path(transformers_code.__path__[0])
_MODELING = "modeling_lmeraser"
_PROCESSING = "image_processing_lmeraser"
_TASKS = {"image": "ImageClassification", "text": "SequenceClassification"}


def write_folder(
    model: Model, config: Config, tensors: Callable[[Digest], Mapping[str, Array]], folder: Path
) -> None:
    """Write all files.

    Args:
        model: the generation.
        config: its settings, with a backbone that can be loaded here.
        tensors: returns the tensors of an artifact.
        folder: receives them.

    Raises:
        InputError: the model has several heads, or is one that transformers has no task or tokenizer for.
        BackboneError: the backbone is another one.
    """
    check_one_head(model)
    modality = config.data.modality
    if modality not in _TASKS:
        raise _inexpressible(f"records are {modality}s, for which transformers has no task")
    backbone = plain_backbone(model, config)
    described = backbone.description()
    if described is None:
        raise _inexpressible(f"{config.backbone.name} puts a prefix before every text, or has no description")
    heads = heads_of(model, tensors)
    state = _state(backbone, config, heads)
    values = _configuration(model, config, backbone, described, heads)
    _write_json(folder / "config.json", values)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    shutil.copyfile(_CODE / f"{_MODELING}.py", folder / f"{_MODELING}.py")
    if isinstance(backbone, TextBackbone):
        backbone.save_tokenizer(folder)
    else:
        shutil.copyfile(_CODE / f"{_PROCESSING}.py", folder / f"{_PROCESSING}.py")
        _write_json(folder / "preprocessor_config.json", _preprocessor(config))


def _inexpressible(why: str) -> InputError:
    return InputError(
        "This model cannot be exported for transformers", got=why, next_step="export with --format folder"
    )


def _state(backbone: Backbone, config: Config, heads: list[tuple[Array, float, float]]) -> dict[str, Tensor]:
    """All tensors by the names that the code of the export gives them."""
    state = {f"network.{name}": value.detach() for name, value in backbone.network().state_dict().items()}
    state |= {f"head{number}": torch.from_numpy(np.array(head[0])) for number, head in enumerate(heads)}
    if width := config.embedding.random_features:
        entries = np.array(projection(config.seed, _length(backbone, config), width), dtype=np.int8)
        state["projection"] = torch.from_numpy(entries)
    if "frame" in config.embedding.views:
        state["frame"] = random_frame(config)
    return {name: value.clone().contiguous() for name, value in state.items()}


def _length(backbone: Backbone, config: Config) -> int:
    """Numbers of an embedding before the random layer."""
    lengths = {**backbone.layers, "final": backbone.feature_dim}
    return sum(lengths[name] for name in chosen_layers(backbone, config.embedding.layers, config.backbone.name))


def _configuration(
    model: Model,
    config: Config,
    backbone: Backbone,
    described: Mapping[str, Any],
    heads: list[tuple[Array, float, float]],
) -> dict[str, Any]:
    """The content of ``config.json``."""
    task = _TASKS[config.data.modality]
    views = list(config.embedding.views)
    length = _length(backbone, config)
    width = config.embedding.random_features
    values: dict[str, Any] = {
        "architectures": [f"LmeraserFor{task}"],
        "auto_map": {
            "AutoConfig": f"{_MODELING}.LmeraserConfig",
            f"AutoModelFor{task}": f"{_MODELING}.LmeraserFor{task}",
        },
        "model_type": "lmeraser",
        "dtype": "float32",
        "problem_type": "single_label_classification",
        "id2label": dict(enumerate(model.classes)),
        "label2id": {name: number for number, name in enumerate(model.classes)},
        "backbone": dict(described),
        "layers": list(chosen_layers(backbone, config.embedding.layers, config.backbone.name)),
        "scale": SCALE,
        "largest": LARGEST_INTEGER,
        "random_features": width,
        "projected": length,
        "shift": shift_for(length) if width else 0,
        "embedding_length": width or length,
        "heads": [{"sharpness": sharpness, "share": share} for _, sharpness, share in heads],
    }
    if isinstance(backbone, ImageBackbone):
        values["pixels"] = backbone.pixel_constants
        values["image_size"] = config.backbone.image_size
        values["frame"] = views.index("frame") if "frame" in views else None
    if isinstance(backbone, TextBackbone):
        values["max_tokens"] = backbone.max_tokens
    return values


def _preprocessor(config: Config) -> dict[str, Any]:
    """The content of ``preprocessor_config.json``."""
    views = []
    for view in config.embedding.views:
        side, resample, fit = canvas_size_of(view, config)
        views.append({"side": side, "resample": resample, "fit": fit, "mirror": view == "mirror"})
    return {
        "image_processor_type": "LmeraserImageProcessor",
        "auto_map": {"AutoImageProcessor": f"{_PROCESSING}.LmeraserImageProcessor"},
        "image_size": config.backbone.image_size,
        "views": views,
    }


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
