"""Folders of sentence-transformers: how a publisher turns the tokens of a text into one vector.

    modules.json                        the steps: Transformer, Pooling, Normalize
    1_Pooling/config.json               which tokens the vector is made of
    config_sentence_transformers.json   the prompt that is put before every text by default
    sentence_bert_config.json           whether texts are in lower case (or sentence_roberta_config.json...)

The library itself is not needed. A folder whose steps do more (a dense layer, a router) is refused.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from lmeraser.errors import BackboneError
from lmeraser.models.backbones.location import Location

_NETWORKS = ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")  # in names of files
_MODES = {"cls": "cls", "mean": "mean", "lasttoken": "last"}
_OLD_MODES = {  # one key for each mode, before version 5
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "lasttoken",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
}


@dataclass(frozen=True)
class SentenceRecipe:
    """What a publisher does besides the network's own passes.

    Attributes:
        subfolder: of the network's files.
        pooling: "cls", "mean" or "last"; None where nothing is said.
        normalize: whether vectors have length 1.
        prefix: put before every text.
        lower: whether texts are in lower case.
        pools_prefix: whether the prefix's tokens are pooled as well.
    """

    subfolder: str = ""
    pooling: str | None = None
    normalize: bool = False
    prefix: str = ""
    lower: bool = False
    pools_prefix: bool = True


def read_recipe(location: Location, name: str, pooling: str) -> SentenceRecipe:
    """The recipe of a checkpoint; one that says nothing where it is not one of sentence-transformers.

    Args:
        location: of the checkpoint.
        name: ``backbone.name``, for errors.
        pooling: ``backbone.pooling``; a mode that is not known matters for "auto" only.

    Raises:
        BackboneError: its files are damaged, or it has steps that are not known.
    """
    modules = _read(location, "modules.json", name)
    if modules is None:
        return SentenceRecipe()
    try:
        steps = [(str(step["type"]).rpartition(".")[2], str(step["path"])) for step in modules]
    except (KeyError, TypeError) as error:
        raise _refused(name, "modules.json does not list steps with a type and a path") from error
    kinds = [kind for kind, _ in steps]
    if kinds not in (["Transformer"], ["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise _refused(name, f"its steps are {', '.join(kinds)} (possible: Transformer, Pooling, Normalize)")
    subfolder = steps[0][1]
    found = (_read(location, _inside(subfolder, f"sentence_{kind}_config.json"), name) for kind in _NETWORKS)
    own: dict[str, Any] = next(filter(None, found), {})
    prompts = _read(location, "config_sentence_transformers.json", name) or {}
    pooled = _read(location, _inside(steps[1][1], "config.json"), name) if len(steps) > 1 else None
    return SentenceRecipe(
        subfolder=subfolder,
        pooling=_pooling(pooled or {}, name) if pooling == "auto" and len(steps) > 1 else None,
        normalize="Normalize" in kinds,
        prefix=_default_prompt(prompts, name),
        lower=bool(own.get("do_lower_case", False)),
        pools_prefix=bool((pooled or {}).get("include_prompt", True)),
    )


def _default_prompt(config: dict[str, Any], name: str) -> str:
    chosen = config.get("default_prompt_name")
    if chosen is None:
        return ""
    prompts = config.get("prompts") or {}
    if not isinstance(prompts.get(chosen), str):
        raise _refused(name, "its default prompt is not among its prompts")
    return str(prompts[chosen])


def _pooling(config: dict[str, Any], name: str) -> str:
    modes = config.get("pooling_mode")
    if modes is None:
        modes = [mode for key, mode in _OLD_MODES.items() if config.get(key)] or ["mean"]
    modes = [modes] if isinstance(modes, str) else list(modes)
    if len(modes) != 1 or modes[0] not in _MODES:
        raise _refused(name, f"it pools by {', '.join(map(str, modes))} (possible: one of {', '.join(_MODES)})")
    return _MODES[modes[0]]


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _read(location: Location, file: str, name: str) -> Any:
    """The JSON value in a file; None where there is none."""
    path = location.file(file)
    if path is None:
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _refused(name, f"{file} cannot be read as JSON") from error
    expected = list if file == "modules.json" else dict
    if not isinstance(value, expected):
        raise _refused(name, f"{file} holds another JSON value than expected")
    return value


def _refused(name: str, why: str) -> BackboneError:
    return BackboneError(
        "The steps of the sentence-transformers model are not supported",
        got=f"{name}: {why}",
        next_step="choose another model, or put config.json, model.safetensors and the tokenizer's files alone "
        "into a folder and set backbone.pooling",
    )
