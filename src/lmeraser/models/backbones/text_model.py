"""Backbones for texts from encoders and causal language models of ``transformers``: BERT, RoBERTa, GPT-2, Llama...

    text -> windows of token ids (`tokenization`) -> rows of one padded length -> hidden states -> pooling

`text_checkpoint` loads the network. A folder of sentence-transformers (`sentence_transformers`) says how its
hidden states are pooled. Of any other network, an encoder's features are the mean over the text's tokens, and
those of a causal one are the last token's. `docs/backbones.md` lists the families.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError, LmeraserError
from lmeraser.models.backbones.base import DTYPES, FINAL, Backbone, TokenInput, probe_gradient, weights_digest
from lmeraser.models.backbones.frozen import freeze
from lmeraser.models.backbones.layers import LayerOutputs, block_number, last_layers, token_layers
from lmeraser.models.backbones.loading import check_complete, first_line
from lmeraser.models.backbones.sentence_transformers import read_recipe
from lmeraser.models.backbones.text_checkpoint import (
    ATTENTION,
    check_exists,
    check_takes_texts,
    drop_unused_pooler,
    ignores_padding,
    is_causal,
    load_model,
    locate,
    most_positions,
    stable_config,
)
from lmeraser.models.backbones.text_tokens import LayerTokens, describe_model, find_layers
from lmeraser.models.backbones.tokenization import TextTokenizer

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
        self._location = locate(own.name)
        self._dtype = DTYPES[own.precision]
        self.device = device
        self.micro_batch = own.micro_batch
        check_exists(self._location, own.name)
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

    # --- texts ---------------------------------------------------------------------------------------------

    def encode(self, text: str) -> list[NDArray[np.int64]]:
        """The windows of a text: token ids, at most ``max_tokens`` each; at least one window."""
        return self._tokenizer.windows(text, self.max_tokens, self._windows)

    def bucket(self, count: int) -> int:
        """The padded length of a window of ``count`` tokens: four lengths between a power of two and the next.

        Its own length where the network's hidden states depend on padding.
        """
        if not self._pads:
            return count
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
        model, _ = load_model(self._location, self._name, self._recipe.subfolder, self._attention)
        drop_unused_pooler(model, self.pooling)
        return _Tunable(model.to(self.device, self._dtype), self._pool)

    def description(self) -> dict[str, Any] | None:
        """Classes and configuration in transformers, and the pooling.

        None if every text has a prefix, or if the network takes no padding.
        """
        if self.prefix or not self._pads:
            return None
        return {
            **describe_model(self._model, stable_config(self._model.config), uses_layers=bool(self.layers)),
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
            (ATTENTION, True),
            (ATTENTION, False),
            ("eager", True),
            ("eager", False),
        ):
            model, missing = load_model(self._location, own.name, self._recipe.subfolder, self._attention)
            try:
                self._use(model, missing, config, replace=replace)
                return
            except LmeraserError:
                raise
            except Exception as error:  # a network may raise anything
                why = first_line(error)
        raise BackboneError(
            "The backbone cannot compute features with these settings",
            got=f"{own.name} with backbone.pooling = {own.pooling!r} and {config.text.max_tokens} tokens: {why}",
            next_step="set backbone.pooling to a pooling that the model has, and text.max_tokens to a length that "
            "it was trained on; or choose another text encoder or causal language model (docs/backbones.md lists "
            "families that were tried)",
        )

    def _use(self, model: Any, missing: set[str], config: Config, *, replace: bool) -> None:
        """Freeze a network that was loaded, and try its passes."""
        own = config.backbone
        check_takes_texts(model, own.name)
        stable = stable_config(model.config)
        self._positions = most_positions(model)
        self._check_vocabulary(model)
        self._check_room(config)
        pooling = own.pooling if own.pooling != "auto" else self._recipe.pooling
        self._causal = is_causal(model)
        if pooling is None:
            self.pooling = "last" if self._causal else "mean"
        else:
            self.pooling = pooling
        drop_unused_pooler(model, self.pooling)
        check_complete(model, missing, own.name, self._location)
        self._pads = self._causal or ignores_padding(model)
        self.digest = self._digest(model, stable)
        self._model = freeze(model.to(self.device, self._dtype), replace=replace)
        with torch.no_grad():
            self.feature_dim = int(self.features(self.probe(seed=0)).shape[1])
            longest = torch.zeros(1, self.bucket(self.max_tokens), dtype=torch.long, device=self.device)
            self.features(longest)
        self.token_input = self._token_input()
        short = max(1, min(_SHORTEST, self._positions - 2))
        with torch.enable_grad():  # some networks fail here alone, which change in place what layers return
            self._gradient(torch.zeros(1, short, dtype=torch.long, device=self.device), rows=1)

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
        if not self._pads:
            architecture["padding"] = "none"
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
