"""How much a number varies over seeds, and whether another one lies within that.

Two retrainings with different seeds differ as well. Only a model that differs from the retrained ones by more than
they do from each other has shown that it is another model. (An exact method, paired with a retraining of the same
seed, differs by nothing at all.) Pure functions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import mean, stdev  # exact: equal numbers have a deviation of 0, not of a rounding error

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import certainty, finite


@dataclass(frozen=True)
class Spread:
    """Numbers over seeds, in brief.

    Attributes:
        mean: of them.
        std: sample standard deviation (n - 1); None for a single number.
        low: lower end of the confidence interval of the mean; None for a single number.
        high: upper end.
        seeds: how many numbers.
        confidence: of the interval.
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
    """Whether numbers could be those of further retrained models.

    Attributes:
        inside: they could.
        mean: of the numbers in question.
        low: where the mean of as many further retrained models would lie, lower end.
        high: upper end.
        confidence: with this probability.
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
        values: one for each seed.
        confidence: of the interval, from 0.5 to 0.9999.

    Raises:
        InputError: there are no values, one is not finite, or the confidence is out of range.
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
    """Could the mean of these values be that of as many further retrained models?

    The interval is Student's prediction interval for the mean of k further values (Hahn and Meeker, "Statistical
    Intervals", 1991, chapter 4): mean +- t s sqrt(1 / k + 1 / n), with mean and s of the n reference values. That
    of the mean alone, mean +- t s / sqrt(n), would shut out most single retrainings. An inside says that no
    difference was seen: with few seeds the interval is wide, so report it.

    Args:
        values: of the models in question, one for each seed.
        reference: of retrained models, at least two seeds.
        confidence: of the interval, from 0.5 to 0.9999.

    Raises:
        InputError: values are missing or not finite, or the confidence is out of range.
    """
    asked, known = _numbers(values, "values"), _numbers(reference, "reference")
    if len(known) < 2:
        raise InputError(
            "How much retrained models vary takes at least two of them.",
            got="1 reference value",
            next_step="retrain with more seeds",
        )
    margin = _quantile(len(known), confidence) * stdev(known) * math.sqrt(1 / len(asked) + 1 / len(known))
    found, middle = mean(asked), mean(known)
    return Verdict(
        inside=abs(found - middle) <= margin,
        mean=found,
        low=middle - margin,
        high=middle + margin,
        confidence=confidence,
    )


def _numbers(values: Sequence[float], name: str) -> list[float]:
    numbers: list[float] = finite(values, name).tolist()
    return numbers


def _quantile(seeds: int, confidence: float) -> float:
    """Of Student's distribution with seeds - 1 degrees of freedom, two-sided."""
    from scipy.special import stdtrit

    upper = (1 + certainty(confidence)) / 2
    return float(stdtrit(seeds - 1, upper)) if seeds > 1 else math.inf
