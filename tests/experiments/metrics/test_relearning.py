"""Against numbers worked out by hand; a model that never relearns has no relearn time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.relearning import (
    AnamnesisIndex,
    Bound,
    RelearnTime,
    anamnesis_index,
    relearn_time,
)

_curves = st.lists(st.floats(0, 1), min_size=1, max_size=20)
_share = st.floats(0, 1)
_times = st.integers(0, 50).flatmap(lambda n: st.builds(RelearnTime, st.integers(0, n) | st.none(), st.just(n)))


def test_relearn_time_by_hand() -> None:
    curve = [0.1, 0.5, 0.75, 0.79, 0.7]
    assert relearn_time(curve, 0.8, alpha=0.05) == RelearnTime(steps=3, watched=4)  # 0.76
    assert relearn_time(curve, 0.8, alpha=0.4) == RelearnTime(steps=1, watched=4)  # 0.48
    assert relearn_time(curve, 0.8, alpha=0.0) == RelearnTime(steps=None, watched=4)


def test_a_model_that_never_forgot_relearns_in_no_time() -> None:
    assert relearn_time([0.9], 0.9).steps == 0
    assert relearn_time([0.2, 0.3], 0.0).steps == 0


def test_a_mark_that_is_met_exactly_is_met() -> None:
    """Of 53 images, 19 are 95 % of 20, though not to the last bit."""
    assert 19 / 53 < 0.95 * (20 / 53)
    for images in range(20, 200):
        assert relearn_time([19 / images], 20 / images, alpha=0.05).steps == 0
    assert relearn_time([0.95 - 1 / 10**6], 1.0).steps is None, "one image of a million too few"


@given(_curves, _share, st.floats(0, 0.99), st.floats(0, 0.99))
def test_a_larger_margin_is_met_no_later(curve: list[float], original: float, one: float, other: float) -> None:
    wide = relearn_time(curve, original, alpha=max(one, other)).steps
    narrow = relearn_time(curve, original, alpha=min(one, other)).steps
    assert narrow is None or (wide is not None and wide <= narrow)


@given(_curves, _share, st.floats(0, 0.99))
def test_until_then_the_accuracy_was_below(curve: list[float], original: float, alpha: float) -> None:
    time = relearn_time(curve, original, alpha=alpha)
    before = curve if time.steps is None else curve[: time.steps]
    assert all(accuracy < (1 - alpha) * original for accuracy in before)
    assert time.watched == len(curve) - 1


@pytest.mark.parametrize(
    ("curve", "original", "alpha"),
    [([], 0.5, 0.05), ([50.0], 0.5, 0.05), ([math.nan], 0.5, 0.05), ([0.5], 76.0, 0.05), ([0.5], 0.5, -0.1)],
)
def test_what_is_no_accuracy_is_refused(curve: list[float], original: float, alpha: float) -> None:
    with pytest.raises(InputError, match=r"curve|original|alpha"):
        relearn_time(curve, original, alpha=alpha)


def test_a_margin_of_1_is_refused() -> None:
    with pytest.raises(InputError, match="every model has relearned"):
        relearn_time([0.5], 0.5, alpha=1.0)


def test_anamnesis_index_by_hand() -> None:
    index = anamnesis_index(RelearnTime(2, 9), RelearnTime(5, 9), epsilon=0.5)
    assert index == AnamnesisIndex(2.5 / 5.5, Bound.EXACT)
    at_once = anamnesis_index(RelearnTime(0, 9), RelearnTime(0, 9))
    assert at_once == AnamnesisIndex(1.0, Bound.EXACT)


def test_a_curve_that_ends_too_early_gives_a_bound() -> None:
    never, soon = RelearnTime(None, 9), RelearnTime(3, 9)
    assert anamnesis_index(never, soon, epsilon=1.0) == AnamnesisIndex(11 / 4, Bound.AT_LEAST)
    assert anamnesis_index(soon, never, epsilon=1.0) == AnamnesisIndex(4 / 11, Bound.AT_MOST)
    assert anamnesis_index(never, never) == AnamnesisIndex(None, Bound.UNKNOWN)


@given(_times, _times)
def test_a_longer_curve_keeps_within_the_bound(unlearned: RelearnTime, retrained: RelearnTime) -> None:
    index = anamnesis_index(unlearned, retrained)
    if index.value is None:
        return
    for later in (1, 100):
        watched = max(unlearned.watched, retrained.watched) + later
        ours = RelearnTime(unlearned.watched + later if unlearned.steps is None else unlearned.steps, watched)
        theirs = RelearnTime(retrained.watched + later if retrained.steps is None else retrained.steps, watched)
        found = anamnesis_index(ours, theirs)
        assert found.value is not None
        assert found.bound == Bound.EXACT
        if index.bound == Bound.AT_LEAST:
            assert found.value >= index.value
        elif index.bound == Bound.AT_MOST:
            assert found.value <= index.value
        else:
            assert found.value == index.value


@given(_times)
def test_a_model_compared_with_itself_has_1(time: RelearnTime) -> None:
    assert anamnesis_index(time, time).value in (1.0, None)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.nan, math.inf])
def test_epsilon_is_positive(epsilon: float) -> None:
    with pytest.raises(InputError, match="epsilon"):
        anamnesis_index(RelearnTime(0, 1), RelearnTime(0, 1), epsilon=epsilon)


def test_what_was_never_reached_is_null_in_json() -> None:
    assert RelearnTime(None, 4).to_json() == {"steps": None, "watched": 4}
    assert AnamnesisIndex(None, Bound.UNKNOWN).to_json() == {"value": None, "bound": "unknown"}
