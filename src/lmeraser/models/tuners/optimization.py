"""Order of the records, optimiser and learning-rate schedule of every tuning.

The order is hashed from the record ids. Learning rates follow a warm-up and a cosine over the cluster's own number
of steps, so that they depend on nothing but its members; the number of epochs is fixed. Knows nothing about what
is tuned.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.config.tuning import TuningConfig
from lmeraser.core.seeding import order


def batches(ids: Sequence[str], config: Config) -> Iterator[tuple[int, Sequence[str]]]:
    """The steps of a tuning: for each its epoch and the ids of its records."""
    size = config.tuning.batch_size
    for epoch in range(config.tuning.epochs_run):
        ordered = order(config.seed, "order", ids, epoch)
        for first in range(0, len(ordered), size):
            yield epoch, ordered[first : first + size]


class Stepper:
    """Applies gradients with torch's SGD or AdamW and the scheduled learning rates.

    Args:
        groups: torch's parameter groups, each with its base learning rate; their tensors are contiguous.
        tuning: the settings.
        records: number of records in an epoch.
    """

    def __init__(self, groups: Sequence[dict[str, Any]], tuning: TuningConfig, records: int) -> None:
        self._values: list[Tensor] = [value for group in groups for value in group["params"]]
        self._optimizer: torch.optim.Optimizer = (
            torch.optim.SGD(list(groups), momentum=tuning.momentum, fused=True)
            if tuning.optimizer == "sgd"
            else torch.optim.AdamW(list(groups), fused=True)
        )
        self._rates = [group["lr"] for group in self._optimizer.param_groups]
        self._factors = _rate_factors(tuning, math.ceil(records / tuning.batch_size))

    def step(self, gradients: Sequence[Tensor]) -> None:
        """Take one step.

        Args:
            gradients: of the values, in the order of the groups.
        """
        factor = next(self._factors)
        for group, rate in zip(self._optimizer.param_groups, self._rates, strict=True):
            group["lr"] = rate * factor
        for value, gradient in zip(self._values, gradients, strict=True):
            # torch's fused optimisers go through memory: in another layout they would pair the wrong numbers.
            value.grad = gradient.contiguous()
        self._optimizer.step()


def _rate_factors(tuning: TuningConfig, steps_per_epoch: int) -> Iterator[float]:
    """Factor of the learning rates at each step: linear warm-up, then a cosine to 0 or a constant."""
    total = tuning.epochs * steps_per_epoch
    warm = min(round(tuning.warmup_epochs * steps_per_epoch), total)
    for step in range(total):
        constant = tuning.schedule == "constant" and step >= warm
        yield 1.0 if constant else warmed_cosine(step, warm, total)


def warmed_cosine(step: int, warm: int, total: int) -> float:
    """Factor of the learning rate at a step.

    Args:
        step: number of steps taken before it.
        warm: over so many steps the factor rises linearly to 1.
        total: over so many steps, the warm-up included, it then falls to 0 as a cosine.
    """
    if step < warm:
        return (step + 1) / warm
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))
