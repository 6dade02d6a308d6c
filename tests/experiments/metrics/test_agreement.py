"""Against numbers worked out by hand, and against scipy's distance."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.agreement import activation_distance, js_divergence, zrf
from lmeraser.experiments.metrics.arrays import Floats

_seeds = st.integers(0, 10**6)
_counts, _classes = st.integers(1, 12), st.integers(1, 8)
_sharpness = st.sampled_from([0.01, 1.0, 100.0])


def answers(seed: int, count: int, classes: int, sharpness: float) -> Floats:
    """Distributions, some with probabilities of exactly zero."""
    coins = np.random.default_rng(seed)
    values = coins.dirichlet(np.full(classes, 1 / sharpness), count)
    values[(coins.random(values.shape) < 0.2) & (values < values.max(axis=1, keepdims=True))] = 0
    return np.asarray(values / values.sum(axis=1, keepdims=True))


def test_activation_distance_by_hand() -> None:
    ours = [[1.0, 0.0], [0.5, 0.5], [0.2, 0.8]]
    theirs = [[0.0, 1.0], [0.5, 0.5], [0.5, 0.5]]
    expected = (math.sqrt(2) + 0 + math.sqrt(0.09 + 0.09)) / 3
    assert activation_distance(ours, theirs) == pytest.approx(expected)


def test_js_divergence_by_hand() -> None:
    assert js_divergence([[1.0, 0.0]], [[0.0, 1.0]]) == 1
    # m = (3/4, 1/4): half of 1 log2(4/3), and half of 1/2 log2(2/3) + 1/2 log2(2)
    expected = math.log2(4 / 3) / 2 + (math.log2(2 / 3) / 2 + 1 / 2) / 2
    assert js_divergence([[1.0, 0.0]], [[0.5, 0.5]]) == pytest.approx(expected)
    assert js_divergence([[1.0, 0.0], [0.3, 0.7]], [[0.5, 0.5], [0.3, 0.7]]) == pytest.approx(expected / 2)


def test_classes_that_nobody_considers_change_nothing() -> None:
    """The mean is over images, not over images and classes."""
    narrow, wide = [[0.9, 0.1]], [[0.9, 0.1, *[0.0] * 98]]
    other, wide_other = [[0.4, 0.6]], [[0.4, 0.6, *[0.0] * 98]]
    assert js_divergence(wide, wide_other) == pytest.approx(js_divergence(narrow, other))
    assert activation_distance(wide, wide_other) == pytest.approx(activation_distance(narrow, other))


@given(_seeds, _counts, _classes, _sharpness)
def test_js_divergence_is_that_of_scipy(seed: int, count: int, classes: int, sharpness: float) -> None:
    ours, theirs = answers(seed, count, classes, sharpness), answers(seed + 1, count, classes, sharpness)
    with np.errstate(invalid="ignore"):  # of equal rows its square root is sometimes that of -1e-17
        expected = np.nan_to_num(jensenshannon(ours, theirs, base=2, axis=1)) ** 2
    assert js_divergence(ours, theirs) == pytest.approx(expected.mean(), abs=1e-9)


@given(_seeds, _counts, _classes, _sharpness)
def test_distances_are_zero_for_equals_symmetric_and_bounded(
    seed: int, count: int, classes: int, sharpness: float
) -> None:
    ours, theirs = answers(seed, count, classes, sharpness), answers(seed + 1, count, classes, sharpness)
    for distance, highest in ((js_divergence, 1.0), (activation_distance, math.sqrt(2) + 1e-12)):
        assert distance(ours, ours) == 0
        assert distance(ours, theirs) == distance(theirs, ours)
        assert 0 <= distance(ours, theirs) <= highest


@given(_seeds, st.integers(2, 12), _classes, _sharpness)
def test_the_order_of_images_and_of_classes_does_not_matter(
    seed: int, count: int, classes: int, sharpness: float
) -> None:
    ours, theirs = answers(seed, count, classes, sharpness), answers(seed + 1, count, classes, sharpness)
    coins = np.random.default_rng(seed)
    places = np.ix_(coins.permutation(count), coins.permutation(classes))
    for distance in (js_divergence, activation_distance):
        assert distance(ours[places], theirs[places]) == pytest.approx(distance(ours, theirs))


def test_no_rounding_leads_out_of_the_range() -> None:
    coins = np.random.default_rng(0)
    ours = coins.dirichlet(np.ones(10), 300)
    for one in ours:
        nearly = one * (1 + 1e-9 * coins.standard_normal(10))
        assert js_divergence([one], [nearly / nearly.sum()]) >= 0
        nowhere = np.zeros(10)
        assert js_divergence([[*one, *nowhere]], [[*nowhere, *one]]) <= 1


def test_float32_answers_of_equal_models_do_not_differ() -> None:
    ours = answers(3, 200, 100, 1.0).astype(np.float32)
    assert js_divergence(ours, ours.copy()) == 0
    nearly = ours.astype(np.float64) * (1 + 1e-8)
    assert 0 <= js_divergence(ours, nearly) < 1e-12


def test_zrf_by_hand() -> None:
    assert zrf([[1.0, 0.0]], [[0.0, 1.0]]) == 0
    assert zrf([[0.5, 0.5]], [[0.5, 0.5]]) == 1
    assert zrf([[1.0, 0.0], [0.5, 0.5]], [[0.0, 1.0], [0.5, 0.5]]) == 0.5


@pytest.mark.parametrize("distance", [activation_distance, js_divergence, zrf])
def test_answers_to_other_images_or_classes_are_refused(distance: object) -> None:
    assert callable(distance)
    with pytest.raises(InputError, match="differ in shape"):
        distance([[0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(InputError, match="differ in shape"):
        distance([[0.5, 0.5]], [[0.5, 0.25, 0.25]])
    with pytest.raises(InputError, match="finite"):
        distance([[math.nan, 0.5]], [[0.5, 0.5]])
    with pytest.raises(InputError, match="sums to"):
        distance([[0.5, 0.5]], [[0.1, 0.1]])
