"""A linear head tuned on the codes of one cluster's members: no prompt, no pass through the backbone.

    minimise over W:   mean of CE(softmax(W c), y) over the members' codes c and classes y

Same steps, order and schedule as `prompt_head`, whose prompt it does without; what a prompt buys is the difference
of the two. Knows nothing about images, stores or other clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray

from lmeraser.config.schema import Config
from lmeraser.core.lda import probabilities
from lmeraser.core.sufficient_statistics import Codes, decode, stack
from lmeraser.core.tensors import Array
from lmeraser.models.tuners.base import Members, ParallelMap, QueryBatch, Tuner, serial, untold
from lmeraser.models.tuners.class_means import class_means
from lmeraser.models.tuners.optimizing import Stepper, batches


class HeadTuner(Tuner[Codes]):
    """A head on codes.

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
    ) -> Codes:
        """The members' codes, int16 [n, d + 1]."""
        return stack(fetch(ids))

    def tune(
        self,
        members: Members[Codes],
        *,
        classes: int,
        parallel: ParallelMap = serial,
        start: Mapping[str, Array] | None = None,
        on_step: Callable[[int], None] = untold,
    ) -> dict[str, Array]:
        """Tune a head.

        Returns:
            ``weight``, float32 [classes, d + 1]; the last column is the bias.
        """
        tuning, ids = self._config.tuning, members.ids
        inputs, targets = torch.from_numpy(decode(members.given)), torch.tensor(members.labels)
        initial = self._initial(inputs, members.labels, classes) if start is None else _copied(start["weight"])
        weight = initial.requires_grad_(True)
        group = {"params": [weight], "lr": tuning.head_learning_rate, "weight_decay": tuning.head_weight_decay}
        stepper = Stepper([group], tuning, len(ids))
        position = {record_id: index for index, record_id in enumerate(ids)}
        for _, batch in batches(ids, self._config):
            rows = [position[record_id] for record_id in batch]
            loss = F.cross_entropy(F.linear(inputs[rows], weight), targets[rows])
            stepper.step(torch.autograd.grad(loss, [weight]))
            on_step(len(rows))
        return {"weight": weight.detach().numpy()}

    def answers(self, constituents: Sequence[Mapping[str, Array]]) -> Heads:
        """The heads of several clusters."""
        return Heads(constituents)

    def _initial(self, inputs: torch.Tensor, labels: Sequence[int], classes: int) -> torch.Tensor:
        if self._config.head.init == "zero":
            return torch.zeros((classes, inputs.shape[1]))
        weight, bias = class_means(inputs[:, :-1], labels, classes)
        return torch.cat([weight, bias[:, None]], dim=1)


def _copied(array: Array) -> torch.Tensor:
    return torch.from_numpy(array.copy())


class Heads:
    """The heads of several clusters, to predict with.

    Args:
        constituents: what `HeadTuner.tune` gave, for each.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]]) -> None:
        self._weights = np.stack([tensors["weight"] for tensors in constituents])

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, classes], by the head at one position for each image."""
        assert queries.embedded is not None
        return probabilities(self._weights[chosen], queries.embedded)
