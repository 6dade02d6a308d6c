"""A linear head tuned on the quantized embeddings of one cluster's members: no prompt, no pass through a backbone.

    minimise over W:   mean of CE(softmax(W q), y) over the members' quantized embeddings q and classes y

Order of the records and learning-rate schedule are those of `prompt_head`, so the difference between the two is
what a prompt gains. Knows nothing about images or stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.lda import probabilities
from lmeraser.core.sufficient_statistics import QuantizedEmbeddings, dequantize, stack_quantized
from lmeraser.core.tensors import Array
from lmeraser.models.modalities.base import ParallelMap
from lmeraser.models.tuners.base import Members, QueryBatch, Tuner, ignore_step, serial_map
from lmeraser.models.tuners.class_means import class_means
from lmeraser.models.tuners.optimization import Stepper, batches


class HeadTuner(Tuner[QuantizedEmbeddings]):
    """Tunes a head on quantized embeddings.

    Args:
        config: all settings.
    """

    def __init__(self, config: Config) -> None:
        self._config = config

    def load(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> QuantizedEmbeddings:
        """The members' quantized embeddings, int16 [n, d + 1]."""
        return stack_quantized(fetch(ids))

    def tune(
        self,
        members: Members[QuantizedEmbeddings],
        *,
        classes: int,
        parallel: ParallelMap = serial_map,
        start: Mapping[str, Array] | None = None,
        on_step: Callable[[int], None] = ignore_step,
    ) -> dict[str, Array]:
        """Tune a head.

        Returns:
            ``weight``, float32 [classes, d + 1]; the last column is the bias.
        """
        tuning = self._config.tuning
        inputs = torch.from_numpy(dequantize(members.inputs))
        targets = torch.tensor(members.labels)
        initial = self._initial(inputs, members.labels, classes) if start is None else _copied(start["weight"])
        weight = initial.requires_grad_(True)
        group = {"params": [weight], "lr": tuning.head_learning_rate, "weight_decay": tuning.head_weight_decay}
        stepper = Stepper([group], tuning, len(members.ids))
        position = {record_id: index for index, record_id in enumerate(members.ids)}
        for _, batch in batches(members.ids, self._config):
            rows = [position[record_id] for record_id in batch]
            loss = F.cross_entropy(F.linear(inputs[rows], weight), targets[rows])
            stepper.step(torch.autograd.grad(loss, [weight]))
            on_step(len(rows))
        return {"weight": weight.detach().numpy()}

    def predictor(self, constituents: Sequence[Mapping[str, Array]]) -> HeadPredictor:
        """A predictor with the heads of several clusters."""
        return HeadPredictor(constituents)

    def _initial(self, inputs: Tensor, labels: Sequence[int], classes: int) -> Tensor:
        if self._config.head.init == "zero":
            return torch.zeros((classes, inputs.shape[1]))
        weight, bias = class_means(inputs[:, :-1], labels, classes)
        return torch.cat([weight, bias[:, None]], dim=1)


def _copied(array: Array) -> Tensor:
    return torch.from_numpy(array.copy())


class HeadPredictor:
    """Classifies embeddings with the heads of several clusters.

    Args:
        constituents: for each cluster the result of `HeadTuner.tune`.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]]) -> None:
        self._weights = np.stack([tensors["weight"] for tensors in constituents])

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class probabilities, float32 [n, classes], by the head chosen for each image."""
        assert queries.embeddings is not None
        return probabilities(self._weights[chosen], queries.embeddings)
