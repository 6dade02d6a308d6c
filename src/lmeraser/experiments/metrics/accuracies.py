"""Accuracies on the retain, forget and test sets, and scores derived from them.

The reference is the model retrained without the forgotten records, never an accuracy of zero on them: a model
that never saw a particular cat still recognises most cats. All accuracies are shares, not percentages. Pure
functions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import check_distributions, check_finite, check_labels, check_share
from lmeraser.experiments.metrics.base import Direction, Metric


@dataclass(frozen=True)
class Accuracies:
    """Accuracy of one model on the three sets, each from 0 to 1.

    Attributes:
        retain: accuracy on the records to keep.
        forget: accuracy on the records to forget.
        test: accuracy on records that no model saw.

    Raises:
        InputError: an accuracy is not between 0 and 1.
    """

    retain: float
    forget: float
    test: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            check_share(value, f"{name} accuracy")

    def to_json(self) -> dict[str, float]:
        """The accuracies as JSON values."""
        return asdict(self)


def accuracy(probabilities: ArrayLike, labels: ArrayLike) -> float:
    """Share of images whose most probable class is their label; ties are resolved to the first class.

    Range 0 to 1, towards the retrained model's value, on every set (the readout functions of Golatkar et al.,
    "Eternal Sunshine of the Spotless Net", CVPR 2020). "Unlearning accuracy" in the literature is 1 minus the
    accuracy on the forget set.

    Args:
        probabilities: float [n, classes].
        labels: int [n].

    Raises:
        InputError: the arrays are not distributions and matching labels.
    """
    checked = check_distributions(probabilities, "probabilities")
    return float((checked.argmax(axis=1) == check_labels(labels, checked)).mean())


def gaps(values: Mapping[str, float], reference: Mapping[str, float]) -> dict[str, float]:
    """Distance of each value to that of the retrained model: |value - reference|.

    Towards 0. Works for any metrics; `Accuracies.to_json` returns the three accuracies.

    Args:
        values: metrics of an unlearned model, by name.
        reference: metrics of the retrained model, under the same names.

    Raises:
        InputError: the names differ, there are no values, or a value is not finite.
    """
    if set(values) != set(reference) or not values:
        raise InputError(
            "The two models have different metrics, or none",
            got=f"{sorted(values)} and {sorted(reference)}",
        )
    ours = check_finite(list(values.values()), "values")
    theirs = check_finite([reference[name] for name in values], "reference")
    return dict(zip(values, np.abs(ours - theirs).tolist(), strict=True))


def average_gap(values: Mapping[str, float], reference: Mapping[str, float]) -> float:
    """Mean of the `gaps`: "average gap" (Fan et al., SalUn, ICLR 2024).

    The paper averages over four metrics, the three accuracies and `mia_efficacy`; this function averages over the
    metrics that are passed, so state which. Towards 0, and within 0 and 1 if all of the metrics are.

    Args:
        values: metrics of an unlearned model, by name.
        reference: metrics of the retrained model, under the same names.

    Raises:
        InputError: as in `gaps`.
    """
    return float(np.mean(list(gaps(values, reference).values())))


def tug_of_war(unlearned: Accuracies, retrained: Accuracies) -> float:
    """ToW: the product over the forget, retain and test set of (1 - |accuracy - that of the retrained model|).

    Range 0 to 1, towards 1 (Zhao et al., "What makes unlearning hard and what to do about it", NeurIPS 2024;
    kairanzhao/RUM: surgical_plugins/analysis.py).

    Args:
        unlearned: accuracies of the model under test.
        retrained: accuracies of the model retrained without the forgotten records.
    """
    return math.prod(1 - gap for gap in gaps(unlearned.to_json(), retrained.to_json()).values())


def aus(unlearned: Accuracies, *, original_test: float, class_removed: bool = False) -> float:
    """AUS, the adaptive unlearning score: (1 - (original test accuracy - test accuracy)) / (1 + D).

    D is |test accuracy - forget accuracy|, or the forget accuracy itself where a whole class was removed (Cotogni
    et al., DUCK, arXiv 2312.02052). Range 0 to 2, towards 1; above 1 the test accuracy has risen. It needs no
    retrained model, and therefore cannot tell whether forgetting went far enough: D assumes that forgotten records
    are as hard as test records.

    Args:
        unlearned: accuracies of the model under test.
        original_test: test accuracy before anything was forgotten.
        class_removed: whether the forget set is a whole class.

    Raises:
        InputError: the original accuracy is not between 0 and 1.
    """
    lost = check_share(original_test, "original_test") - unlearned.test
    expected = 0.0 if class_removed else unlearned.test
    return (1 - lost) / (1 + abs(expected - unlearned.forget))


def nomus(test_accuracy: float, attack_accuracy: float, *, weight: float = 0.5) -> float:
    """NoMUS: weight * test accuracy + (1 - weight) * (1 - 2 |attack accuracy - 1/2|).

    The normalised machine unlearning score of Choi and Na, "Towards Machine Unlearning Benchmarks", arXiv
    2311.02240. Range 0 to 1, towards 1; the retrained model's own value is below 1, so compare with it.

    Args:
        test_accuracy: of the model in question.
        attack_accuracy: share of forget and test records that a membership attack classifies correctly.
        weight: of the test accuracy.

    Raises:
        InputError: one of them is not between 0 and 1.
    """
    weight = check_share(weight, "weight")
    unsure = 1 - 2 * abs(check_share(attack_accuracy, "attack_accuracy") - 0.5)
    return weight * check_share(test_accuracy, "test_accuracy") + (1 - weight) * unsure


METRICS = (
    *(
        Metric(
            key=f"{name}_accuracy",
            name=f"{name} accuracy",
            definition=f"share of the {name} set whose most probable class is the label",
            low=0.0,
            high=1.0,
            direction=Direction.RETRAINED,
            source='Golatkar et al., "Eternal Sunshine of the Spotless Net", CVPR 2020',
        )
        for name in ("retain", "forget", "test")
    ),
    Metric(
        key="average_gap",
        name="average gap",
        definition="mean of |value - the retrained model's value| over the named metrics",
        low=0.0,
        high=None,
        direction=Direction.ZERO,
        source="Fan et al., SalUn, ICLR 2024",
    ),
    Metric(
        key="tug_of_war",
        name="tug of war (ToW)",
        definition="product over forget, retain and test set of (1 - |accuracy - the retrained model's|)",
        low=0.0,
        high=1.0,
        direction=Direction.ONE,
        source='Zhao et al., "What makes unlearning hard and what to do about it", NeurIPS 2024',
    ),
    Metric(
        key="aus",
        name="adaptive unlearning score (AUS)",
        definition="(1 - loss of test accuracy) / (1 + |test accuracy - forget accuracy|)",
        low=0.0,
        high=2.0,
        direction=Direction.ONE,
        source="Cotogni et al., DUCK, arXiv 2312.02052",
    ),
    Metric(
        key="nomus",
        name="normalised machine unlearning score (NoMUS)",
        definition="test accuracy / 2 + (1 - 2 |attack accuracy - 1/2|) / 2",
        low=0.0,
        high=1.0,
        direction=Direction.ONE,
        source='Choi and Na, "Towards Machine Unlearning Benchmarks", arXiv 2311.02240',
    ),
)
