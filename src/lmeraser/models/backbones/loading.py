"""Loading of a model of ``transformers`` from its checkpoint: as safetensors only, and with all of its weights.

No code is unpickled and none is fetched. Of a checkpoint for images and text (CLIP, SigLIP) the vision tower is
loaded, without the text's weights.
"""

from __future__ import annotations

import inspect
import os
import sys
from pathlib import Path
from typing import Any

import torch

from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import BUNDLED, HUB
from lmeraser.models.backbones.location import Location

_POINTER = b"version https://git-lfs"  # begins a file that Git LFS has not fetched
_PIXELS = "pixel_values"  # name of the images among the arguments of transformers' image models
_TOWER_PREFIX = r"^vision_model\.(vision_model\.)?"  # of the vision tower's weights in a multimodal checkpoint


def load_model(location: Location, name: str) -> tuple[Any, set[str]]:
    """The model, and the names of the weights that its checkpoint lacks.

    Args:
        location: where it is.
        name: ``backbone.name``, for errors.

    Raises:
        BackboneError: there is no such model, or the installed version of transformers cannot load it.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # `check_complete` reports missing weights
    try:
        tower = _vision_tower(location)
        if tower is None:
            model, missing = _from_pretrained(AutoModel, location, **location.loading)
        else:
            model, missing = _load_tower(*tower, location)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... with long explanations
        possible = f"possible: '{BUNDLED}', a folder saved by transformers"
        raise cannot_be_loaded(location, name, possible, "config.json and model.safetensors", error) from error
    return model, missing


def cannot_be_loaded(
    location: Location, name: str, possible: str, files: str, error: Exception | str
) -> BackboneError:
    """The error of a model that transformers cannot load: what is wrong with its folder, and what to do about it.

    Args:
        location: where it was looked for.
        name: ``backbone.name``.
        possible: what else the name may be, besides one on the hub.
        files: that a complete folder has.
        error: of transformers, which often explains something else.
    """
    folder = location.name
    why = error if isinstance(error, str) else first_line(error)
    step = f"make the folder complete: {files}, as 'save_pretrained' of transformers writes them"
    weights = sorted(Path(folder).rglob("*.safetensors")) if os.path.isdir(folder) else []  # noqa: PTH112 - any name
    if "trust_remote_code" in str(error):
        why = "its network is code of its own, which is never run"
        step = "choose a model of a family that transformers has; docs/backbones.md lists those that were tried"
    elif pointer := next((file.name for file in weights if _is_pointer(file)), None):
        why = f"{pointer} is a pointer of Git LFS instead of the weights"
        step = "fetch them with 'git lfs pull' where the model was cloned"
    elif not os.path.isdir(folder):  # noqa: PTH112
        if location.local_files_only and isinstance(error, OSError):
            why = "there is no such folder, and the hub's cache holds no model of this name"
        step = (
            f"without network, put {files} of {folder} into a folder and set backbone.name to that folder's path"
        )
    elif not weights and any(Path(folder).rglob("*.bin")):
        why = "its weights are pickled (.bin), and could be code, which is never run"
        step = "save them as safetensors: 'save_pretrained' of transformers does by default"
    return BackboneError(
        "The backbone cannot be loaded",
        got=f"{name!r} ({possible}, or {HUB}OWNER/NAME on the Hugging Face hub): {why}",
        next_step=step,
    )


def _is_pointer(file: Path) -> bool:
    """Whether a file stands for one that Git has not fetched."""
    with file.open("rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER


def _from_pretrained(model_class: Any, location: Location, **more: Any) -> tuple[Any, set[str]]:
    model, report = model_class.from_pretrained(
        location.name, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **more
    )
    # A mismatched key is a name whose shapes differ; its weights would be random as well.
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return model, {*report["missing_keys"], *mismatched}


def _load_tower(tower: Any, config: Any, location: Location) -> tuple[Any, set[str]]:
    # Not trust_remote_code: only classes that choose another class take it.
    arguments = {"local_files_only": location.local_files_only, "config": config}
    model, missing = _from_pretrained(tower, location, **arguments)
    if missing:  # some towers (BLIP) name their weights without the prefix that they have in the whole model
        model, missing = _from_pretrained(tower, location, key_mapping={_TOWER_PREFIX: ""}, **arguments)
    return model, missing


def _vision_tower(location: Location) -> tuple[Any, Any] | None:
    """The class of a multimodal model's vision tower, and its configuration; None for any other model.

    Raises:
        ValueError: transformers has no class for the tower alone.
    """
    from transformers import MODEL_MAPPING, AutoConfig

    config = AutoConfig.from_pretrained(location.name, **location.loading)
    vision = getattr(config, "vision_config", None)
    if vision is None or not hasattr(vision, "to_dict"):
        return None
    return MODEL_MAPPING.get(type(vision), None) or _tower_beside(config, type(vision)), vision


def _tower_beside(config: Any, vision: type) -> Any:
    """The class of a vision tower that `AutoModel` does not know, in the module of the whole model.

    Raises:
        ValueError: there is none.
    """
    from transformers import MODEL_MAPPING, PreTrainedModel

    whole = MODEL_MAPPING.get(type(config), None)
    beside = vars(sys.modules[whole.__module__]).values() if whole is not None else ()
    for value in beside:
        is_model = isinstance(value, type) and issubclass(value, PreTrainedModel)
        if is_model and value.__name__.endswith("VisionModel") and value.config_class is vision:
            return value
    raise ValueError(
        f"transformers has no class for the vision tower of {config.model_type!r} alone, and the whole model "
        "takes more than images"
    )


def check_takes_images(model: Any, name: str) -> None:
    """Refuse a network that needs something else than images, or more.

    Raises:
        BackboneError: it does; says what.
    """
    parameters = inspect.signature(model.forward).parameters
    named = {
        name: parameter
        for name, parameter in parameters.items()
        if parameter.kind not in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    }
    needed = [name for name, parameter in named.items() if parameter.default is inspect.Parameter.empty]
    more = [name for name in needed if name != _PIXELS]
    why = ""
    if named and _PIXELS not in named:
        why = f"it takes {next(iter(named))} instead of pixels"
    elif more:
        why = f"besides pixels it needs {', '.join(more)}"
    elif getattr(model.config, "num_frames", None) is not None:
        why = f"it takes videos, {model.config.num_frames} frames each"
    if why:
        raise BackboneError(
            "The backbone is not a network for images alone",
            got=f"{name} ({model.config.model_type}): {why}",
            next_step="choose an image model; docs/backbones.md lists the families that were tried",
        )


def check_complete(model: Any, missing: set[str], name: str) -> None:
    """Refuse missing weights: transformers would draw them at random, differently in every process.

    Raises:
        BackboneError: some of them are missing.
    """
    if used := sorted(missing & set(model.state_dict())):
        raise BackboneError(
            "The backbone's checkpoint is incomplete",
            got=f"{name} lacks {len(used)} tensors, for instance {used[0]}",
            next_step="use a complete checkpoint, or a backbone.pooling that does not need them",
        )


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type's name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
