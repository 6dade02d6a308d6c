"""Texts as inputs of a backbone: windows of token ids, padded to a length that depends on the text alone.

    head    the first window: it decides the cluster, and tokens are put before it
    tail    the last window
    whole   features averaged over all windows

A text that fits in one window has the same features in all views, from one pass. Texts whose windows have the same
padded length share passes. Knows nothing about tokenizers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.seeding import uniform
from lmeraser.data.modalities.text import read_text
from lmeraser.models.backbones.text_model import TextBackbone
from lmeraser.models.modalities.base import InputEncoder, MemberInputs, ParallelMap, slices

_NOISE = 32  # tokens of a text of noise
_PASSES = 32  # whose texts are embedded together, so that few rows of their passes are padding

Window = NDArray[np.int64]  # token ids


@dataclass(frozen=True)
class TokenizedText:
    """A text as its windows, at least one."""

    windows: tuple[Window, ...]


class TextEncoder(InputEncoder[TokenizedText, TextBackbone]):
    """Inputs from texts."""

    one_shape = False

    def __init__(self, config: Config, backbone: TextBackbone) -> None:
        super().__init__(config, backbone)
        self.chunk = _PASSES * backbone.micro_batch

    def load(self, value: Any) -> TokenizedText:
        """The windows of a text: of a payload, a string, or a path (see `read_text`)."""
        if isinstance(value, TokenizedText):
            return value
        return TokenizedText(tuple(self.backbone.encode(read_text(value))))

    def prepare(self, values: Sequence[Any]) -> Sequence[TokenizedText]:
        """The windows of each text, so that it is divided into tokens once."""
        return [self.load(value) for value in values]

    def passes(self, values: Sequence[Any]) -> list[Sequence[int]]:
        """Texts whose first windows are padded to one length, the shortest first."""
        firsts = [self.load(value).windows[0] for value in values]
        return _by_bucket(self.backbone, range(len(firsts)), firsts)

    def input(self, items: Sequence[TokenizedText], view: View) -> Tensor:
        """The first or the last windows, int64 [micro_batch, tokens]."""
        rows = _rows(self.backbone, [_window(item, view) for item in items])
        return self.backbone.place(rows)

    def noise(self, number: int) -> Tensor:
        """Texts of random tokens, int64 [micro_batch, tokens]."""
        length = self.backbone.bucket(min(self.backbone.max_tokens, _NOISE))
        drawn = uniform(self.config.seed, f"noise {number}", self.backbone.micro_batch * length)
        ids = (drawn * self.backbone.vocabulary).astype(np.int64).reshape(-1, length)
        return self.backbone.place(torch.from_numpy(ids))

    def _vectors(
        self, items: Sequence[TokenizedText], views: Sequence[View], layers: Sequence[str], clean: Tensor | None
    ) -> NDArray[np.float32]:
        """Features of views and vectors of layers; each window takes part in one pass."""
        windows: list[Window] = []
        places: list[dict[int, int]] = []  # of the windows that are needed, for each text by their number
        for item in items:
            numbers = {n for view in views for n in _numbers(len(item.windows), view)}
            places.append({number: len(windows) + at for at, number in enumerate(sorted(numbers))})
            windows += [item.windows[number] for number in sorted(numbers)]
        length = self.backbone.feature_dim + sum(self.backbone.layers[name] for name in layers)
        rows = np.empty((len(windows), length), dtype=np.float32)
        done: set[int] = set()
        with torch.inference_mode():
            if clean is not None:
                firsts = [place[0] for place in places if 0 in place]
                if len(firsts) == len(items):
                    rows[firsts] = self._pass(clean, layers, len(items))
                    done = set(firsts)
            rest = [place for place in range(len(windows)) if place not in done]
            for part in _by_bucket(self.backbone, rest, windows):
                inputs = self.backbone.place(_rows(self.backbone, [windows[place] for place in part]))
                rows[part] = self._pass(inputs, layers, len(part))
        result = np.empty((len(items), len(views), length), dtype=np.float32)
        for text, (item, place) in enumerate(zip(items, places, strict=True)):
            for column, view in enumerate(views):
                own = rows[[place[number] for number in _numbers(len(item.windows), view)]]
                result[text, column] = own[0] if len(own) == 1 else _mean(own)
        return result

    def members(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> TextMembers:
        """The members' first windows; they are small, so all of them are kept."""
        step = self.chunk
        windows: list[Window] = []
        for start in range(0, len(ids), step):
            windows += [self.load(data).windows[0] for data in fetch(ids[start : start + step])]
        return TextMembers(windows, self.backbone)


class TextMembers(MemberInputs):
    """The members' first windows, the same in every epoch."""

    def __init__(self, windows: Sequence[Window], backbone: TextBackbone) -> None:
        super().__init__(backbone.micro_batch)
        self._windows = windows
        self._backbone = backbone

    def micro_batches(self, positions: Sequence[int]) -> list[Sequence[int]]:
        """Members whose windows are padded to one length, the shortest first, in their order."""
        return _by_bucket(self._backbone, positions, self._windows)

    def prepare(self, positions: Sequence[int], ids: Sequence[str], epoch: int | None) -> Tensor:
        """Token ids, int64 [micro_batch, tokens]."""
        return _rows(self._backbone, [self._windows[position] for position in positions])


def _window(item: TokenizedText, view: View) -> Window:
    numbers = _numbers(len(item.windows), view)
    return item.windows[numbers[0]]


def _numbers(windows: int, view: View) -> list[int]:
    """The windows of a view."""
    if view == "whole":
        return list(range(windows))
    return [0] if view == "head" else [windows - 1]


def _mean(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean of rows, added up in their order in float64."""
    total = np.zeros(rows.shape[1])
    for row in rows:
        total += row
    return (total / len(rows)).astype(np.float32)


def _by_bucket(backbone: TextBackbone, places: Sequence[int], windows: Sequence[Window]) -> list[Sequence[int]]:
    """Places divided into passes of windows that are padded to one length."""
    buckets: dict[int, list[int]] = {}
    for place in places:
        buckets.setdefault(backbone.bucket(len(windows[place])), []).append(place)
    return [part for length in sorted(buckets) for part in slices(buckets[length], backbone.micro_batch)]


def _rows(backbone: TextBackbone, windows: Sequence[Window]) -> Tensor:
    """Windows of one padded length as rows, int64 [micro_batch, tokens], padded with -1.

    Rows beyond the windows repeat the first one: a row without any token has no features.
    """
    length = max(backbone.bucket(len(window)) for window in windows)
    rows = np.full((backbone.micro_batch, length), -1, dtype=np.int64)
    for row, window in enumerate(windows):
        rows[row, : len(window)] = window
    rows[len(windows) :] = rows[0]
    return torch.from_numpy(rows)


ENCODER = TextEncoder


def load_network(config: Config, device: torch.device) -> TextBackbone:
    """The text network that the settings name. Raises as `load_backbone`."""
    return TextBackbone(config, device)
