"""Relearn time: how fast a model learns the forgotten records again. Models that merely hide them are faster.

Both models, unlearned and retrained, are trained on the forget set in the same way, and the accuracy on it is
measured before the first step and after every step. The caller chooses the step (a batch, an epoch), the same for
both models. Pure functions of these curves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import ArrayLike

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import check_finite, check_share, check_shares
from lmeraser.experiments.metrics.base import Direction, Metric

_ROUNDING = 1e-9  # accuracies are multiples of 1 / n; 0.95 * 0.8 need not be 0.76 to the last bit


@dataclass(frozen=True)
class RelearnTime:
    """Steps until the accuracy recovered.

    Attributes:
        steps: number of steps; 0 if the accuracy was never lost, None if it did not recover within the curve.
        watched: number of steps of the curve.
    """

    steps: int | None
    watched: int

    def to_json(self) -> dict[str, object]:
        """The time as JSON values."""
        return asdict(self)


class Bound(StrEnum):
    """Whether a value is exact or a bound."""

    EXACT = "exact"
    AT_LEAST = "at least"
    AT_MOST = "at most"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class AnamnesisIndex:
    """The index, or a bound of it.

    Attributes:
        value: the index or its bound; None if unknown.
        bound: whether the value is exact or a bound.
    """

    value: float | None
    bound: Bound

    def to_json(self) -> dict[str, object]:
        """The index as JSON values."""
        return asdict(self)


def relearn_time(curve: ArrayLike, original: float, *, alpha: float = 0.05) -> RelearnTime:
    """Steps until the accuracy on the forget set is at least (1 - alpha) * that of the original model.

    Range 0 upwards, towards the retrained model's value (Golatkar et al., CVPR 2020; with the margin
    alpha: Chundawat et al., "Zero-Shot Machine Unlearning", IEEE TIFS 18, 2023). A later drop below that level is
    ignored.

    Args:
        curve: accuracy on the forget set before the first step and after each step, float [steps + 1].
        original: accuracy of the model before unlearning.
        alpha: the margin, from 0 to below 1.

    Raises:
        InputError: an accuracy is not between 0 and 1, the curve is empty, or alpha is 1.
    """
    checked = check_shares(curve, "curve")
    if check_share(alpha, "alpha") == 1:
        raise InputError(
            "Margin alpha is out of range", got=f"{alpha}, expected below 1: at 1 every model has relearned"
        )
    recovered = checked >= (1 - alpha) * check_share(original, "original") - _ROUNDING
    return RelearnTime(int(np.argmax(recovered)) if recovered.any() else None, len(checked) - 1)


def anamnesis_index(unlearned: RelearnTime, retrained: RelearnTime, *, epsilon: float = 0.01) -> AnamnesisIndex:
    """AIN = (relearn time + epsilon) / (relearn time of the retrained model + epsilon).

    Range above 0, towards 1: below 1 the model remembers; above 1 it forgot more than retraining does, which is
    detectable as well (Chundawat et al., IEEE TIFS 18, 2023; epsilon, which avoids a division by zero, as
    in aiim-research/ERASURE: erasure/evaluations/measures.py).

    A model that does not recover within its curve needs at least one more step. The index is then only bounded:
    from below if this is the unlearned model, from above if it is the retrained one, not at all if both.

    Args:
        unlearned: relearn time of the model under test.
        retrained: relearn time of the retrained model, in the same steps.
        epsilon: above 0, small compared with a step.

    Raises:
        InputError: epsilon is not a positive number.
    """
    if not check_finite(epsilon, "epsilon", dimensions=0) > 0:
        raise InputError("epsilon is out of range", got=f"{epsilon}, expected a positive number")
    if unlearned.steps is None and retrained.steps is None:
        return AnamnesisIndex(None, Bound.UNKNOWN)
    bound = Bound.EXACT
    if unlearned.steps is None:
        bound = Bound.AT_LEAST
    elif retrained.steps is None:
        bound = Bound.AT_MOST
    return AnamnesisIndex((_minimum_steps(unlearned) + epsilon) / (_minimum_steps(retrained) + epsilon), bound)


def _minimum_steps(time: RelearnTime) -> int:
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
