"""Against numbers worked out by hand and against scipy's intervals; how often a verdict is right."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.spread import Spread, spread, verdict

_numbers = st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8)


def test_spread_by_hand() -> None:
    """Two numbers: s = |a - b| / sqrt(2), and t with one degree of freedom is tan(0.95 pi / 2)."""
    found = spread([1.0, 3.0])
    margin = math.tan(0.95 * math.pi / 2) * math.sqrt(2) / math.sqrt(2)
    assert found.mean == 2
    assert found.std == pytest.approx(math.sqrt(2))
    assert found.low == pytest.approx(2 - margin)
    assert found.high == pytest.approx(2 + margin)
    assert found.seeds == 2


def test_a_single_number_has_no_interval() -> None:
    assert spread([0.7]) == Spread(0.7, None, None, None, 1, 0.95)


@given(_numbers, st.floats(0.5, 0.999))
def test_the_interval_is_that_of_scipy(values: list[float], confidence: float) -> None:
    found = spread(values, confidence=confidence)
    error = stats.sem(values)
    low, high = stats.t.interval(confidence, len(values) - 1, np.mean(values), error or 1e-300)
    assert found.low == pytest.approx(low, rel=1e-9, abs=1e-9)
    assert found.high == pytest.approx(high, rel=1e-9, abs=1e-9)
    assert found.std == pytest.approx(np.std(values, ddof=1), rel=1e-9, abs=1e-9)


@given(_numbers)
def test_the_order_of_seeds_does_not_matter(values: list[float]) -> None:
    assert spread(values) == spread(values[::-1])


@given(st.floats(-1e3, 1e3), st.integers(2, 6))
def test_equal_numbers_have_no_spread_and_hold_only_themselves(value: float, count: int) -> None:
    assert spread([value] * count).std == 0
    assert verdict([value], [value] * count).inside
    assert not verdict([value + max(1e-9, abs(value) * 1e-9)], [value] * count).inside


def test_verdict_by_hand() -> None:
    """Of reference values 0 and 2, mean 1 and s = sqrt(2): a single one lies within 1 +- t sqrt(2) sqrt(3 / 2)."""
    margin = math.tan(0.5 * math.pi / 2) * math.sqrt(2) * math.sqrt(1.5)
    found = verdict([1 + 0.99 * margin], [0.0, 2.0], confidence=0.5)
    assert (found.low, found.high) == pytest.approx((1 - margin, 1 + margin))
    assert found.inside
    assert found.mean == pytest.approx(1 + 0.99 * margin)
    assert not verdict([1 + 1.01 * margin], [0.0, 2.0], confidence=0.5).inside
    narrower = math.tan(0.5 * math.pi / 2) * math.sqrt(2)  # of two values: sqrt(1 / 2 + 1 / 2)
    assert verdict([0.5, 1.5], [0.0, 2.0], confidence=0.5).high == pytest.approx(1 + narrower)


@pytest.mark.parametrize(("asked", "known"), [(1, 3), (1, 5), (3, 5), (5, 2)])
def test_retrained_models_are_inside_as_often_as_is_said(asked: int, known: int) -> None:
    coins = np.random.default_rng(0)
    inside = [
        verdict(coins.normal(3, 2, asked).tolist(), coins.normal(3, 2, known).tolist(), confidence=0.8).inside
        for _ in range(2000)
    ]
    assert np.mean(inside) == pytest.approx(0.8, abs=4 * math.sqrt(0.8 * 0.2 / 2000))


@pytest.mark.parametrize("values", [[], [math.nan], [1.0, math.inf]])
def test_what_is_no_number_is_refused(values: list[float]) -> None:
    with pytest.raises(InputError, match="values"):
        spread(values)
    with pytest.raises(InputError, match="reference"):
        verdict([1.0], values)


def test_one_retrained_model_has_no_spread() -> None:
    with pytest.raises(InputError, match="more seeds"):
        verdict([1.0], [1.0])


@pytest.mark.parametrize("confidence", [0.0, 0.49, 0.99999, 1.0, 95.0, math.nan])
def test_a_confidence_is_a_share(confidence: float) -> None:
    with pytest.raises(InputError, match=r"(?i)confidence"):
        spread([1.0, 2.0], confidence=confidence)
    with pytest.raises(InputError, match=r"(?i)confidence"):
        verdict([1.0], [1.0, 2.0], confidence=confidence)


def test_the_spread_of_one_value_is_null_in_json() -> None:
    assert verdict([1.0], [1.0, 1.0]).to_json() == {
        "inside": True,
        "mean": 1.0,
        "low": 1.0,
        "high": 1.0,
        "confidence": 0.95,
    }
    assert spread([1.0]).to_json()["std"] is None
