"""A linear head tuned on the codes of one cluster's members: no prompt, no pass through the backbone.

    minimise over W:   mean of CE(softmax(W c), y) over the members' codes c and classes y

Same steps, order and schedule as `prompt_head`, whose prompt it does without; what a prompt buys is the difference
of the two. Knows nothing about images, stores or other clusters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray

from lmeraser.config import Config
from lmeraser.constituents.class_means import class_means
from lmeraser.constituents.optimizing import Stepper
from lmeraser.determinism import order
from lmeraser.discriminant import probabilities
from lmeraser.sums import Codes, decode
from lmeraser.tensors import Array


def tune_head(
    ids: Sequence[str],
    labels: Sequence[int],
    codes: Codes,
    *,
    config: Config,
    classes: int,
    start: Mapping[str, Array] | None = None,
    on_step: Callable[[int], None] = lambda records: None,
) -> dict[str, Array]:
    """Tune a head on the members' codes.

    Args:
        ids: of the members, sorted; at least one.
        labels: class index of each.
        codes: of each, int16 [n, d + 1].
        config: all settings.
        classes: number of classes, a public input.
        start: what an earlier tuning gave, to go on from; None: the initial values.
        on_step: called after every step with its number of records; may raise to stop.

    Returns:
        ``weight``, float32 [classes, d + 1]; the last column is the bias.
    """
    tuning = config.tuning
    inputs, targets = torch.from_numpy(decode(codes)), torch.tensor(list(labels))
    initial = (
        _initial(inputs, labels, classes, config) if start is None else torch.from_numpy(start["weight"].copy())
    )
    weight = initial.requires_grad_(True)
    group = {"params": [weight], "lr": tuning.head_learning_rate, "weight_decay": tuning.head_weight_decay}
    stepper = Stepper([group], tuning, math.ceil(len(ids) / tuning.batch_size))
    position = {record_id: index for index, record_id in enumerate(ids)}
    for epoch in range(tuning.epochs):
        rows = [position[record_id] for record_id in order(config.seed, "order", ids, epoch)]
        for first in range(0, len(rows), tuning.batch_size):
            batch = rows[first : first + tuning.batch_size]
            loss = F.cross_entropy(F.linear(inputs[batch], weight), targets[batch])
            stepper.step(torch.autograd.grad(loss, [weight]))
            on_step(len(batch))
    return {"weight": weight.detach().numpy()}


def _initial(inputs: torch.Tensor, labels: Sequence[int], classes: int, config: Config) -> torch.Tensor:
    if config.head.init == "zero":
        return torch.zeros((classes, inputs.shape[1]))
    weight, bias = class_means(inputs[:, :-1], labels, classes)
    return torch.cat([weight, bias[:, None]], dim=1)


class Heads:
    """The heads of several clusters, to predict with.

    Args:
        constituents: what `tune_head` gave, for each.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]]) -> None:
        self._weights = np.stack([tensors["weight"] for tensors in constituents])

    def classify(self, embeddings: NDArray[np.float32], chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, classes], by the head at one position for each image."""
        return probabilities(self._weights[chosen], embeddings)
