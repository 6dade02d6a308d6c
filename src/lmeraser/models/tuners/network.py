"""A whole network and a linear head, tuned together, as SISA and retraining do (Bourtoule et al., 2021).

    minimise over w, h:   mean of CE(h(M_w(x)), y) over the members (x, y)

M_w has the backbone's architecture. Its weights start from the public ones or from random numbers. It runs in
evaluation mode: batch norm keeps its statistics and dropout is off, so records are coupled only through the
gradients of their own cluster.

Torch swaps weights into a module while it runs (`torch.func.functional_call`), so every thread has a module of its
own, which shares the memory of its weights with the others.
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
from lmeraser.models.tuners.gradient_tuner import GradientTuner, MicroBatch, StackedHeads, Values, padded_index

_PREFIX = "network."  # of the tensors' names


class NetworkTuner(GradientTuner):
    """Tunes a network, ``network.*`` by the names of its parameters, and a head."""

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self._thread_local = threading.local()

    def initial_values(self, cluster_count: int = 1) -> dict[str, Tensor]:
        """The public weights, or random ones: the same for every cluster."""
        return self._initial_weights

    def rates(self, name: str) -> tuple[float, float]:
        """Learning rate and weight decay of a parameter; only matrices and kernels decay."""
        settings = self.config.network
        decays = self._initial_weights[name].ndim > 1
        return settings.learning_rate, settings.weight_decay if decays else 0.0

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """The network's features of the members' images."""
        return self.network_features(values, batch.inputs)

    def predictor(self, constituents: Sequence[Mapping[str, Array]]) -> NetworkPredictor:
        """A predictor with the networks and heads of several clusters."""
        return NetworkPredictor(constituents, self)

    def network_features(self, values: Values, inputs: Tensor) -> Tensor:
        """Features of one micro-batch, float32 [micro_batch, d], by a network with these weights."""
        if not hasattr(self._thread_local, "module"):
            shared = {id(value): value for value in self._network.parameters()}
            self._thread_local.module = copy.deepcopy(self._network, shared)
        weights = {
            name: values[_PREFIX + name].to(parameter.dtype)
            for name, parameter in self._network.named_parameters()
        }
        features: Tensor = functional_call(self._thread_local.module, weights, (inputs,))
        return features

    @cached_property
    def _network(self) -> nn.Module:
        network = self.backbone.network().requires_grad_(False)
        if self.config.network.start == "random":  # random weights do not go with statistics of public images
            for module in network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.reset_running_stats()
        return network

    @cached_property
    def _initial_weights(self) -> dict[str, Tensor]:
        weights: dict[str, Tensor] = dict(self._network.named_parameters())
        if self.config.network.start == "random":
            weights = random_weights(self._network, self.config.seed)
        return {_PREFIX + name: value.detach().float().to(self.backbone.device) for name, value in weights.items()}


def random_weights(network: nn.Module, seed: int) -> dict[str, Tensor]:
    """Random weights for a network, float32, drawn by the hash of their names.

    Kernels and matrices have variance 2 / inputs or 1 / inputs (He et al., 2015; LeCun et al., 1998), so that
    signals keep their size; biases are 0, other vectors (factors of norms and scales) 1, and all else (tokens,
    positions, tables) has standard deviation 0.02 (Dosovitskiy et al., 2021).
    """
    weights = {}
    for path, module in network.named_modules():
        for own, value in module.named_parameters(recurse=False):
            name = f"{path}.{own}" if path else own
            deviation = _deviation(module, value)
            drawn = normal(seed, f"network {name}", value.numel()) if deviation else np.zeros(value.numel())
            scaled = torch.from_numpy(drawn.astype(np.float32)).reshape(value.shape) * deviation
            weights[name] = scaled + 1 if value.ndim == 1 and own != "bias" else scaled
    return weights


def _deviation(module: nn.Module, value: Tensor) -> float:
    """Standard deviation of the initial values of a module's parameter; 0 where they are constant."""
    if value.ndim == 1:
        return 0.0
    inputs = value.numel() / value.shape[0]
    if isinstance(module, (nn.modules.conv._ConvNd, TunableConv)):
        return float((2 / inputs) ** 0.5)
    if isinstance(module, nn.Linear):
        return float((1 / inputs) ** 0.5)
    return 0.02


class NetworkPredictor:
    """Classifies images with the networks and heads of several clusters, one network after the other.

    Args:
        constituents: for each cluster the result of `NetworkTuner.tune`.
        tuner: computes features with given weights.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]], tuner: NetworkTuner) -> None:
        self._tuner = tuner
        self._heads = StackedHeads(constituents, tuner.backbone, tuner.config)
        device = tuner.backbone.device
        self._networks = [
            {name: torch.from_numpy(array).to(device) for name, array in tensors.items()}
            for tensors in constituents
        ]

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class probabilities, float32 [n, classes], by the network and head chosen for each image."""
        index = padded_index(chosen, len(queries.clean))
        features = torch.zeros((len(index), self._tuner.backbone.feature_dim), device=queries.clean.device)
        for position in np.unique(chosen).tolist():
            rows = (index == position)[:, None].to(features.device)
            # The whole micro-batch each time: in another shape an image would have other bits.
            own = self._tuner.network_features(self._networks[position], queries.clean)
            features = torch.where(rows, own, features)
        return self._heads.probabilities(features, index, len(chosen))
