"""How fast a model learns the forgotten records again: a model that only hides them learns them faster.

Both models, unlearned and retrained, are trained on the forget set in the same way, and the accuracy on it is
noted before the first step and after every one. What a step is (a batch, an epoch) is the caller's choice, the
same for both models. Pure functions of these curves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import finite, share, shares
from lmeraser.experiments.metrics.base import Direction, Metric

_ROUNDING = 1e-9  # accuracies are multiples of 1 / n; 0.95 * 0.8 need not be 0.76 to the last bit


@dataclass(frozen=True)
class RelearnTime:
    """When the accuracy was back.

    Attributes:
        steps: after how many; 0 if it had never gone, None if it was not back when the curve ended.
        watched: how many steps the curve has.
    """

    steps: int | None
    watched: int

    def to_json(self) -> dict[str, object]:
        """The time as JSON values."""
        return asdict(self)


class Bound(StrEnum):
    """How far a number is known."""

    EXACT = "exact"
    AT_LEAST = "at least"
    AT_MOST = "at most"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AnamnesisIndex:
    """The index, or what is known of it.

    Attributes:
        value: the index, or a bound of it; None if nothing is known.
        bound: which of these.
    """

    value: float | None
    bound: Bound

    def to_json(self) -> dict[str, object]:
        """The index as JSON values."""
        return asdict(self)


def relearn_time(curve: ArrayLike, original: float, *, alpha: float = 0.05) -> RelearnTime:
    """Steps until the accuracy on the forget set is at least (1 - alpha) * that of the original model.

    Range 0 upwards, towards the retrained model's value (Golatkar et al., CVPR 2020; with the margin
    alpha: Chundawat et al., "Zero-Shot Machine Unlearning", IEEE TIFS 18, 2023). A later fall below the mark does
    not count.

    Args:
        curve: accuracy on the forget set before the first step and after each, float [steps + 1].
        original: accuracy of the model that had not forgotten anything yet.
        alpha: the margin, from 0 to below 1.

    Raises:
        InputError: an accuracy is not between 0 and 1, the curve is empty, or alpha is 1.
    """
    checked = shares(curve, "curve")
    if share(alpha, "alpha") == 1:
        raise InputError("The margin alpha is below 1; with 1, every model has relearned at once.", got=f"{alpha}")
    reached = checked >= (1 - alpha) * share(original, "original") - _ROUNDING
    return RelearnTime(int(np.argmax(reached)) if reached.any() else None, len(checked) - 1)


def anamnesis_index(unlearned: RelearnTime, retrained: RelearnTime, *, epsilon: float = 0.01) -> AnamnesisIndex:
    """AIN = (relearn time + epsilon) / (relearn time of the retrained model + epsilon).

    Range above 0, towards 1: below 1 the model remembers; above 1 it forgot more than retraining does, which
    shows as well (Chundawat et al., IEEE TIFS 18, 2023; epsilon, which keeps a time of 0 from dividing by zero, as
    in aiim-research/ERASURE: erasure/evaluations/measures.py).

    A model that is not back when its curve ends takes at least one step more than that. So the index is then only
    bounded: from below if that is the unlearned model, from above if it is the retrained one, not at all if both.

    Args:
        unlearned: of the model in question.
        retrained: of the retrained model, in the same steps.
        epsilon: above 0, small against a step.

    Raises:
        InputError: epsilon is not a positive number.
    """
    if not finite(epsilon, "epsilon", dimensions=0) > 0:
        raise InputError("epsilon is above 0.", got=f"{epsilon}")
    if unlearned.steps is None and retrained.steps is None:
        return AnamnesisIndex(None, Bound.UNKNOWN)
    bound = Bound.EXACT
    if unlearned.steps is None:
        bound = Bound.AT_LEAST
    elif retrained.steps is None:
        bound = Bound.AT_MOST
    return AnamnesisIndex((_least(unlearned) + epsilon) / (_least(retrained) + epsilon), bound)


def _least(time: RelearnTime) -> int:
    return time.watched + 1 if time.steps is None else time.steps


METRICS = (
    Metric(
        key="relearn_time",
        name="relearn time",
        definition="steps on the forget set until accuracy there is at least (1 - alpha) of the original model's",
        low=0.0,
        high=None,
        direction=Direction.RETRAINED,
        source='Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020',
    ),
    Metric(
        key="anamnesis_index",
        name="anamnesis index (AIN)",
        definition="(relearn time + epsilon) / (relearn time of the retrained model + epsilon)",
        low=0.0,
        high=None,
        direction=Direction.ONE,
        source='Chundawat et al., "Zero-Shot Machine Unlearning", IEEE TIFS 18, 2023',
    ),
)
