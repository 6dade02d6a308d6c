"""Loading of a model of ``transformers`` from its checkpoint: as safetensors only, and with all of its weights.

A checkpoint may have more than the encoder: heads of other tasks and other towers are left out. Weights that
belong into the encoder and find no place there are refused: the network would be another one than was published.

No code is unpickled and none is fetched. Of a checkpoint for images and text (CLIP, SigLIP) the vision tower is
loaded, without the text's weights.
"""

from __future__ import annotations

import inspect
import itertools
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import BUNDLED, HUB
from lmeraser.models.backbones.location import Location

_POINTER = b"version https://git-lfs"  # begins a file that Git LFS has not fetched
_ADAPTER = "adapter_config.json"  # of PEFT
_PICKLED = {".bin", ".pth", ".pt", ".ckpt", ".pkl"}
_OTHER_FORMATS = {".onnx": "an ONNX graph", ".h5": "TensorFlow's", ".msgpack": "Flax's", ".gguf": "quantized"}
_HUB_ADDRESS = re.compile(r"(https?://huggingface\.co/)?(?P<model>[\w.-]+/[\w.-]+)/?$")
_SUPPORTED = "choose a model of a family that transformers has; docs/backbones.md lists those that were tried"
_UNKNOWN_FAMILY = {  # what transformers says, and what is wrong
    "does not recognize this architecture": "the installed transformers has no network of its kind (model_type in "
    "its config.json)",
    "Unrecognized model in": "its config.json does not say of which kind its network is (it has no model_type)",
    "Unrecognized configuration class": "transformers has no network for images or texts of its kind",
}
_WEIGHTS = ("weight", "bias")  # of a layer
_PIXELS = "pixel_values"  # name of the images among the arguments of transformers' image models
_TOWER_PREFIX = r"^vision_model\.(vision_model\.)?"  # of the vision tower's weights in a multimodal checkpoint


def load_model(location: Location, name: str) -> tuple[Any, set[str]]:
    """The model, and the names of the weights that its checkpoint lacks.

    Args:
        location: where it is.
        name: ``backbone.name``, for errors.

    Raises:
        BackboneError: there is no such model, the installed version of transformers cannot load it, or its
            configuration is that of another network than its weights.
    """
    from transformers import AutoModel
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # `check_complete` reports missing weights
    try:
        refuse_adapter(location)
        tower = _vision_tower(location)
        if tower is None:
            model, missing, unexpected = _from_pretrained(AutoModel, location, **location.loading)
        else:
            model, missing, unexpected = _load_tower(*tower, location)
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... with long explanations
        possible = f"possible: '{BUNDLED}', a folder saved by transformers"
        raise cannot_be_loaded(location, name, possible, "config.json and model.safetensors", error) from error
    refuse_left_over(model, unexpected, name)
    name_outputs(model)
    return model, missing


def refuse_left_over(model: Any, unexpected: Iterable[str], name: str) -> None:
    """Refuse a checkpoint with weights of the encoder that the encoder has no place for.

    They are those of blocks behind the last one of a list, and weights of layers that have none (a bias). What
    belongs to heads of other tasks, poolers and other towers has no layer of its own here, and buffers that later
    versions compute (``position_ids``, masks of attention) are no weights of a layer.

    Args:
        model: as loaded.
        unexpected: names of tensors in the checkpoint that were not loaded.
        name: ``backbone.name``, for the error.

    Raises:
        BackboneError: there are some.
    """
    modules = dict(model.named_modules())
    prefix = f"{model.base_model_prefix}."
    left = sorted(tensor for tensor in unexpected if _belongs_inside(tensor.removeprefix(prefix), modules))
    if left:
        raise BackboneError(
            "The backbone's weights are those of another network than its configuration",
            got=f"{name} has {len(left)} tensors of the encoder that its config.json has no place for, for "
            f"instance {left[0]}",
            next_step="use the config.json that was published with these weights, or save the shorter network "
            "with 'save_pretrained' of transformers into a folder of its own",
        )


def _belongs_inside(tensor: str, modules: Mapping[str, nn.Module]) -> bool:
    """Whether a tensor that was not loaded is a weight of a layer that is there, or of a block behind the last."""
    layer, _, leaf = tensor.rpartition(".")
    if leaf in _WEIGHTS and layer in modules and any(True for _ in modules[layer].parameters(recurse=False)):
        return True
    parts = tensor.split(".")
    return any(
        part.isdecimal()
        and isinstance(blocks := modules.get(".".join(parts[:place])), nn.ModuleList | nn.Sequential)
        and int(part) >= len(blocks) > 0
        for place, part in enumerate(parts)
    )


def name_outputs(model: Any) -> None:
    """Let a network return its outputs by name, although its configuration asks for a tuple (for TorchScript)."""
    if getattr(model.config, "torchscript", False):
        model.config.torchscript = False
    if getattr(model.config, "return_dict", True) is False:
        model.config.return_dict = True


class AdapterError(ValueError):
    """A folder holds an adapter, beside the model that it changes or without it."""


def refuse_adapter(location: Location) -> None:
    """Refuse a folder with an adapter: whether transformers applies it depends on what is installed.

    Raises:
        AdapterError: there is one.
    """
    if Path(location.name, _ADAPTER).is_file():
        raise AdapterError(f"it holds an adapter ({_ADAPTER}) that a model is changed by, which is not applied")


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
        step = _SUPPORTED
    elif isinstance(error, AdapterError):
        step = "merge it into its model ('merge_and_unload' of peft) and save the result into a folder of its own"
    elif pointer := next((file.name for file in weights if _is_pointer(file)), None):
        why = f"{pointer} is a pointer of Git LFS instead of the weights"
        step = "fetch them with 'git lfs pull' where the model was cloned"
    elif not os.path.isdir(folder):  # noqa: PTH112
        why, step = _no_folder(location, files, error, why)
    elif inner := _inner_folder(Path(folder)):
        why = "it has no config.json, but a folder in it has"
        step = f"set backbone.name to {inner}"
    elif unknown := next((why for said, why in _UNKNOWN_FAMILY.items() if said in str(error)), None):
        why = unknown
        step = f"{_SUPPORTED}; a newer transformers may have it"
    elif isinstance(error, ImportError):
        step = "install what it needs, or choose another model"
    elif not weights and (other := _other_weights(Path(folder))):
        why, step = other
    return BackboneError(
        "The backbone cannot be loaded",
        got=f"{name!r} ({possible}, or {HUB}OWNER/NAME on the Hugging Face hub): {why}",
        next_step=step,
    )


def _no_folder(location: Location, files: str, error: Exception | str, why: str) -> tuple[str, str]:
    """What is wrong with a name that is not that of a folder, and what to do about it."""
    name = location.name
    if os.path.isfile(name):  # noqa: PTH113 - any name
        return "it is a file", "set backbone.name to the folder that holds it"
    address = _HUB_ADDRESS.match(name)
    if location.local_files_only and isinstance(error, OSError):
        why = "there is no such folder, and the hub's cache holds no model of this name"
    step = f"without network, put {files} of {name} into a folder and set backbone.name to that folder's path"
    if address and location.local_files_only:
        step = f"to load it from the hub, set backbone.name to '{HUB}{address['model']}'; {step}"
    return why, step


def _inner_folder(folder: Path) -> Path | None:
    """The first folder in a folder without a model that has one, as in the hub's cache or beside checkpoints."""
    if (folder / "config.json").exists():
        return None
    return next((file.parent for file in sorted(folder.rglob("config.json"))), None)


def _other_weights(folder: Path) -> tuple[str, str] | None:
    """What is wrong with a folder of weights in another format, and what to do about it; None: it has none."""
    suffixes = {file.suffix.lower() for file in folder.rglob("*")}
    if pickled := sorted(suffixes & _PICKLED):
        why = f"its weights are pickled ({', '.join(pickled)}), and could be code, which is never run"
        return why, "save them as safetensors: 'save_pretrained' of transformers does by default"
    for suffix, of in _OTHER_FORMATS.items():
        if suffix in suffixes:
            why = f"its weights are {of} ({suffix})"
            return why, "get the same model as safetensors, or load it with its own library and save it so"
    return None


def _is_pointer(file: Path) -> bool:
    """Whether a file stands for one that Git has not fetched."""
    with file.open("rb") as opened:
        return opened.read(len(_POINTER)) == _POINTER


def _from_pretrained(model_class: Any, location: Location, **more: Any) -> tuple[Any, set[str], set[str]]:
    """The model, and the names of weights that its checkpoint lacks, and of those that it has besides."""
    model, report = model_class.from_pretrained(
        location.name, use_safetensors=True, dtype=torch.float32, output_loading_info=True, **more
    )
    # A mismatched key is a name whose shapes differ; its weights would be random as well.
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return model, {*report["missing_keys"], *mismatched}, set(report["unexpected_keys"])


def _load_tower(tower: Any, config: Any, location: Location) -> tuple[Any, set[str], set[str]]:
    # Not trust_remote_code: only classes that choose another class take it.
    arguments = {"local_files_only": location.local_files_only, "config": config}
    loaded = _from_pretrained(tower, location, **arguments)
    if loaded[1]:  # some towers (BLIP) name their weights without the prefix that they have in the whole model
        loaded = _from_pretrained(tower, location, key_mapping={_TOWER_PREFIX: ""}, **arguments)
    return loaded


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
    elif (channels := getattr(model.config, "num_channels", 3)) != 3:
        why = f"it takes images with {channels} channels instead of red, green and blue"
    elif getattr(model.config, "num_frames", None) is not None:
        why = f"it takes videos, {model.config.num_frames} frames each"
    if why:
        raise BackboneError(
            "The backbone is not a network for images alone",
            got=f"{name} ({model.config.model_type}): {why}",
            next_step="choose an image model; docs/backbones.md lists the families that were tried",
        )


def check_complete(model: Any, missing: set[str], name: str, location: Location) -> None:
    """Refuse missing weights: transformers would draw them at random, differently in every process.

    Args:
        model: as loaded.
        missing: names of weights that its checkpoint lacks.
        name: ``backbone.name``, for errors.
        location: of the checkpoint.

    Raises:
        BackboneError: some of them are missing.
    """
    if used := sorted(missing & set(model.state_dict())):
        there = max(location.tensor_names(), key=lambda found: _same_end(found, used[0]), default=None)
        named = f"; those that it has are named like {there}" if there is not None else ""
        raise BackboneError(
            "The backbone's checkpoint is incomplete",
            got=f"{name} lacks {len(used)} tensors, for instance {used[0]}{named}",
            next_step="use a complete checkpoint, saved by 'save_pretrained' of the whole model, or a "
            "backbone.pooling that does not need them",
        )


def _same_end(name: str, other: str) -> int:
    """How many characters at the end of two names are the same."""
    pairs = zip(reversed(name), reversed(other), strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type's name."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
