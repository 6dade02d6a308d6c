"""Spread of a metric over seeds, and whether another value lies within it.

Two retrainings with different seeds also differ. Only a model that differs from the retrained models by more than
they differ from each other is distinguishable from them. (An exact method, paired with a retraining of the same
seed, does not differ at all.) Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev  # exact: equal numbers have a deviation of 0, not of a rounding error

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import check_confidence, check_finite


@dataclass(frozen=True)
class Spread:
    """Summary of a metric over seeds.

    Attributes:
        mean: mean of the values.
        std: sample standard deviation (n - 1); None for a single value.
        low: lower end of the confidence interval of the mean; None for a single value.
        high: upper end.
        seeds: number of values.
        confidence: confidence level of the interval.
    """

    mean: float
    std: float | None
    low: float | None
    high: float | None
    seeds: int
    confidence: float

    def to_json(self) -> dict[str, object]:
        """The spread as JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class Verdict:
    """Whether values are consistent with further retrained models.

    Attributes:
        inside: whether their mean lies inside the interval.
        mean: mean of the values under test.
        low: lower end of the prediction interval for the mean of as many further retrained models.
        high: upper end.
        confidence: confidence level of the interval.
    """

    inside: bool
    mean: float
    low: float
    high: float
    confidence: float

    def to_json(self) -> dict[str, object]:
        """The verdict as JSON values."""
        return asdict(self)


def spread(values: Sequence[float], *, confidence: float = 0.95) -> Spread:
    """Mean, standard deviation and Student's interval of the mean: mean +- t s / sqrt(n).

    Args:
        values: one value per seed.
        confidence: confidence level, from 0.5 to 0.9999.

    Raises:
        InputError: there are no values, one is not finite, or the confidence level is out of range.
    """
    numbers = _numbers(values, "values")
    quantile = _quantile(len(numbers), confidence)
    middle = mean(numbers)
    if len(numbers) == 1:
        return Spread(middle, None, None, None, 1, confidence)
    deviation = stdev(numbers)
    margin = quantile * deviation / math.sqrt(len(numbers))
    return Spread(middle, deviation, middle - margin, middle + margin, len(numbers), confidence)


def verdict(values: Sequence[float], reference: Sequence[float], *, confidence: float = 0.95) -> Verdict:
    """Test whether the mean of these values is consistent with that of as many further retrained models.

    The interval is Student's prediction interval for the mean of k further values (Hahn and Meeker, "Statistical
    Intervals", 1991, chapter 4): mean +- t s sqrt(1 / k + 1 / n), with mean and s of the n reference values. The
    interval of the mean alone, mean +- t s / sqrt(n), would exclude most single retrainings. "Inside" means that
    no difference was detected: with few seeds the interval is wide, so report it.

    Args:
        values: values of the models under test, one per seed.
        reference: values of retrained models, at least two seeds.
        confidence: confidence level, from 0.5 to 0.9999.

    Raises:
        InputError: values are missing or not finite, or the confidence level is out of range.
    """
    tested = _numbers(values, "values")
    known = _numbers(reference, "reference")
    if len(known) < 2:
        raise InputError(
            "Too few reference values for a spread",
            got="1, expected at least 2",
            next_step="retrain with more seeds",
        )
    margin = _quantile(len(known), confidence) * stdev(known) * math.sqrt(1 / len(tested) + 1 / len(known))
    tested_mean = mean(tested)
    middle = mean(known)
    return Verdict(
        inside=abs(tested_mean - middle) <= margin,
        mean=tested_mean,
        low=middle - margin,
        high=middle + margin,
        confidence=confidence,
    )


def _numbers(values: Sequence[float], name: str) -> list[float]:
    numbers: list[float] = check_finite(values, name).tolist()
    return numbers


def _quantile(seeds: int, confidence: float) -> float:
    """Two-sided quantile of Student's distribution with seeds - 1 degrees of freedom."""
    from scipy.special import stdtrit

    upper = (1 + check_confidence(confidence)) / 2
    return float(stdtrit(seeds - 1, upper)) if seeds > 1 else math.inf
