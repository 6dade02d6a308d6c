"""What is no distribution, no label and no share is refused, with the name of the argument."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import (
    check_distributions,
    check_finite,
    check_flags,
    check_labels,
    check_share,
    check_shares,
    true_class,
)

NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([[0.5, NAN]], "not finite: 1 of 2"),
        ([[0.5, float("inf")]], "finite"),
        ([[0.5, 0.4]], "row 0 sums to 0.9"),
        ([[1.0, 0.0], [0.2, 0.2]], "1 of 2 rows; row 1 sums to 0.4"),
        ([[50.0, 50.0]], "not logits or percentages"),
        ([[1.5, -0.5]], "-0.5 to 1.5, expected 0 to 1"),
        ([0.5, 0.5], "\\(2,\\), expected"),
        (np.zeros((0, 3)), "a non-empty"),
        (np.zeros((3, 0)), "a non-empty"),
        ([["a", "b"]], "converted to numbers"),
        ([[0.5, 0.5], [1.0]], "converted to numbers"),
        (None, "finite|2-D array"),
    ],
)
def test_what_is_no_distribution_is_refused(values: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_distributions(values, "probabilities")


def test_float32_rows_of_many_classes_are_distributions() -> None:
    logits = np.random.default_rng(0).standard_normal((50, 20_000)).astype(np.float32) * 10
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    checked = check_distributions(powers / powers.sum(axis=1, keepdims=True), "probabilities")
    assert checked.dtype == np.float64


def test_numbers_a_rounding_above_1_are_1() -> None:
    assert check_shares(np.array([0.25, 1 + 1e-7]), "p").tolist() == [0.25, 1.0]


@pytest.mark.parametrize("value", [-0.1, 1.1, NAN, "a"])
def test_what_is_no_share_is_refused(value: Any) -> None:
    with pytest.raises(InputError, match="the rate"):
        check_share(value, "the rate")


def test_a_list_is_no_single_number() -> None:
    with pytest.raises(InputError, match="expected a single number"):
        check_share([0.5], "the rate")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="a non-empty 1-D array"):
        check_finite(0.5, "scores")


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 3], "expected 0 to 2 for 3 classes"),
        ([-1, 0], "-1 to 0, expected"),
        ([0], "expected 2 integers"),
        ([[0], [1]], "expected 2 integers"),
        ([0.0, 1.0], "expected 2 integers"),
        ([True, False], "expected 2 integers"),
        (["cat", "dog"], "expected 2 integers"),
    ],
)
def test_what_is_no_label_is_refused(labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        check_labels(labels, np.full((2, 3), 1 / 3))


def test_flags_are_booleans() -> None:
    assert check_flags([True, False], (2,), "members").tolist() == [True, False]
    for wrong in ([1, 0], [0.5, 0.5], [True], [[True, False]]):
        with pytest.raises(InputError, match="members is not a boolean array"):
            check_flags(wrong, (2,), "members")


def test_the_probability_of_the_true_class() -> None:
    assert true_class([[0.75, 0.25], [0.125, 0.875], [1.0, 0.0]], [0, 1, 1]).tolist() == [0.75, 0.875, 0.0]
