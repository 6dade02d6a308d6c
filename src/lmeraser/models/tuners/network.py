"""A whole network and a linear head, tuned together: what SISA and retraining tune (Bourtoule et al., 2021).

    minimise over w, h:   mean of CE(h(M_w(x)), y) over the members (x, y)

M_w has the backbone's architecture. Its weights start from the public ones or from random numbers. It runs in
evaluation mode: batch norm keeps its statistics and dropout is off, so no record is coupled to another but through
the gradients of its own cluster. Follows `descent`; knows nothing about other clusters.

Torch swaps weights into a module while it runs (`torch.func.functional_call`), so every thread has a module of its
own, without weights.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from lmeraser.config.schema import Config
from lmeraser.core.seeding import normal
from lmeraser.core.tensors import Array
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.backbones.frozen import TunableConv
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.models.tuners.descent import GradientTuner, LinearHeads, MicroBatch, Values, padded_index

_PREFIX = "network."  # of the names of its values


class NetworkTuner(GradientTuner):
    """A network, ``network.*`` by the names of its parameters, and a head."""

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self._own = threading.local()

    def body(self, parts: int = 1) -> dict[str, Tensor]:
        """The public weights, or random ones: the same for every cluster."""
        return self._initial_values

    def rate(self, name: str) -> tuple[float, float]:
        """Of the network; decay is for matrices and kernels alone."""
        settings = self.config.network
        decays = self._initial_values[name].ndim > 1
        return settings.learning_rate, settings.weight_decay if decays else 0.0

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """What the network makes of the members' images."""
        return self.run(values, batch.inputs)

    def answers(self, constituents: Sequence[Mapping[str, Array]]) -> Networks:
        """The networks and heads of several clusters."""
        return Networks(constituents, self)

    def run(self, values: Values, inputs: Tensor) -> Tensor:
        """Features of one micro-batch with these weights, float32 [micro_batch, d]."""
        if not hasattr(self._own, "module"):
            shared = {id(value): value for value in self._network.parameters()}
            self._own.module = copy.deepcopy(self._network, shared)
        weights = {
            name: values[_PREFIX + name].to(known.dtype) for name, known in self._network.named_parameters()
        }
        features: Tensor = functional_call(self._own.module, weights, (inputs,))
        return features

    @cached_property
    def _network(self) -> nn.Module:
        network = self.backbone.network().requires_grad_(False)
        if self.config.network.start == "random":  # statistics of public images do not go with it
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.reset_running_stats()
        return network

    @cached_property
    def _initial_values(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = dict(self._network.named_parameters())
        if self.config.network.start == "random":
            found = random_weights(self._network, self.config.seed)
        return {_PREFIX + name: value.detach().float().to(self.backbone.device) for name, value in found.items()}


def random_weights(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random weights for a network, float32, from coins named like them.

    Kernels and matrices have variance 2 / inputs or 1 / inputs (He et al., 2015; LeCun et al., 1998), so that
    signals keep their size; biases are 0, other vectors (factors of norms and scales) 1, and what is left (tokens,
    positions, tables) has deviation 0.02 (Dosovitskiy et al., 2021).
    """
    found = {}
    for path, module in network.named_modules():
        for own, value in module.named_parameters(recurse=False):
            name = f"{path}.{own}" if path else own
            deviation = _deviation(module, own, value)
            drawn = normal(seed, f"network {name}", value.numel()) if deviation else np.zeros(value.numel())
            fresh = torch.from_numpy(drawn.astype(np.float32)).reshape(value.shape) * deviation
            found[name] = fresh + 1 if value.ndim == 1 and own != "bias" else fresh
    return found


def _deviation(module: nn.Module, name: str, value: Tensor) -> float:
    if value.ndim == 1:
        return 0.0
    inputs = value.numel() / value.shape[0]
    if isinstance(module, (nn.modules.conv._ConvNd, TunableConv)):
        return float((2 / inputs) ** 0.5)
    if isinstance(module, nn.Linear):
        return float((1 / inputs) ** 0.5)
    return 0.02


class Networks:
    """The networks and heads of several clusters, to predict with: one after the other.

    Args:
        constituents: what `NetworkTuner.tune` gave, for each.
        kind: runs them.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]], kind: NetworkTuner) -> None:
        self._kind = kind
        self._heads = LinearHeads(constituents, kind.backbone, kind.config)
        device = kind.backbone.device
        self._networks = [
            {name: torch.from_numpy(array).to(device) for name, array in tensors.items()}
            for tensors in constituents
        ]

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, classes], by the network and head at one position for each image."""
        index = padded_index(chosen, len(queries.clean))
        features = torch.zeros((len(index), self._kind.backbone.feature_dim), device=queries.clean.device)
        for position in np.unique(chosen).tolist():
            mine = (index == position)[:, None].to(features.device)
            # The whole micro-batch each time: in another shape an image would have other bits.
            features = torch.where(mine, self._kind.run(self._networks[position], queries.clean), features)
        return self._heads.probabilities(features, index, len(chosen))
