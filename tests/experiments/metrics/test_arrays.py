"""What is no distribution, no label and no share is refused, with the name of the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import classes_of, distributions, finite, flags, share, shares, true_class

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.5, NAN]], "1 of 2 that are not"),
        ([[0.5, float("inf")]], "finite"),
        ([[0.5, 0.4]], "row 0 sums to 0.9"),
        ([[1.0, 0.0], [0.2, 0.2]], "1 rows that do not; row 1 sums to 0.4"),
        ([[50.0, 50.0]], "not logits or percentages"),
        ([[1.5, -0.5]], "numbers from -0.5 to 1.5"),
        ([0.5, 0.5], "an array of shape \\(2,\\)"),
        (np.zeros((0, 3)), "none of them empty"),
        (np.zeros((3, 0)), "none of them empty"),
        ([["a", "b"]], "array of numbers"),
        ([[0.5, 0.5], [1.0]], "array of numbers"),
        (None, "finite|dimensions"),
    ],
)
def test_what_is_no_distribution_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        distributions(values, "probabilities")


def test_float32_rows_of_many_classes_are_distributions() -> None:
    logits = np.random.default_rng(0).standard_normal((50, 20_000)).astype(np.float32) * 10
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    checked = distributions(powers / powers.sum(axis=1, keepdims=True), "probabilities")
    assert checked.dtype == np.float64


def test_numbers_a_rounding_above_1_are_1() -> None:
    assert shares(np.array([0.25, 1 + 1e-7]), "p").tolist() == [0.25, 1.0]


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, "a"])
def test_what_is_no_share_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="the rate"):
        share(value, "the rate")


def test_a_list_is_no_single_number() -> None:
    with pytest.raises(InputError, match="is one number"):
        share([0.5], "the rate")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="1 dimensions"):
        finite(0.5, "scores")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "labels are 0 to 2"),
        ([-1, 0], "labels from -1 to 0"),
        ([0], "one label"),
        ([[0], [1]], "one label"),
        ([0.0, 1.0], "an integer"),
        ([True, False], "an integer"),
        (["cat", "dog"], "an integer"),
    ],
)
def test_what_is_no_label_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        classes_of(labels, np.full((2, 3), 1 / 3))


def test_flags_are_booleans() -> None:
    assert flags([True, False], (2,), "members").tolist() == [True, False]
    for wrong in ([1, 0], [0.5, 0.5], [True], [[True, False]]):
        with pytest.raises(InputError, match="members is an array of booleans"):
            flags(wrong, (2,), "members")


def test_the_probability_of_the_true_class() -> None:
    assert true_class([[0.75, 0.25], [0.125, 0.875], [1.0, 0.0]], [0, 1, 1]).tolist() == [0.75, 0.875, 0.0]
