"""Vectors of layers below the last one of a backbone, taken from its ordinary pass.

    maps of a convolutional network, [n, channels, height, width]    mean, standard deviation of each map
    tokens of a transformer, [n, tokens, d]                          class token, mean of the others

Each is computed from one row alone, in float32. Outputs of layers are kept for each thread, so that several
threads can use one network.
"""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn


def map_mean(maps: Tensor) -> Tensor:
    """The mean of each map, float32 [n, channels], of maps [n, channels, height, width]."""
    return maps.float().mean(dim=(2, 3))


def map_std(maps: Tensor) -> Tensor:
    """The standard deviation of each map (over its places, not corrected), float32 [n, channels]."""
    values = maps.float()
    deviations = values - values.mean(dim=(2, 3), keepdim=True)
    return deviations.square_().mean(dim=(2, 3)).sqrt_()


class LayerOutputs:
    """Keeps the outputs of a network's layers during passes that ask for them.

    Args:
        layers: those of the network; each gives hidden states, alone or as the first of several outputs.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        self._current = threading.local()
        for number, layer in enumerate(layers, 1):
            layer.register_forward_hook(self._hook(number))

    def run(self, pass_forward: Any, numbers: Collection[int]) -> tuple[Any, dict[int, Tensor]]:
        """The result of a pass, and the hidden states after these layers, by their number from 1.

        Args:
            pass_forward: the pass, without arguments.
            numbers: of the layers.
        """
        found: dict[int, Tensor] = {}
        self._current.wanted = numbers
        self._current.found = found
        try:
            return pass_forward(), found
        finally:
            self._current.wanted = ()
            self._current.found = None

    def _hook(self, number: int) -> Any:
        def keep(_: nn.Module, __: Any, output: Any) -> None:
            if number in getattr(self._current, "wanted", ()):
                self._current.found[number] = output[0] if isinstance(output, tuple) else output

        return keep


def token_layers(kinds: Collection[str], count: int, width: int) -> dict[str, int]:
    """Names and lengths of vectors of a transformer's layers: ``blockN.KIND`` for N from 1 to ``count``."""
    return {f"block{number}.{kind}": width for number in range(1, count + 1) for kind in kinds}


def last_layers(names: Collection[str], blocks: int) -> tuple[str, ...]:
    """Those of the names that belong to the last ``blocks`` numbers, in their order."""
    numbers = sorted({block_number(name) for name in names})
    return tuple(name for name in names if block_number(name) in numbers[-blocks:])


def block_number(name: str) -> int:
    """N of a name ``blockN.KIND``."""
    return int(name.partition(".")[0].removeprefix("block"))


def token_mean(hidden: Tensor) -> Tensor:
    """The mean of all tokens but the first, float32 [n, d], of hidden states [n, tokens, d]."""
    return torch.mean(hidden[:, 1:].float(), dim=1)
