"""Against numbers worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.accuracies import (
    METRICS,
    Accuracies,
    accuracy,
    aus,
    average_gap,
    gaps,
    nomus,
    tug_of_war,
)

_share = st.floats(0, 1)
_accuracies = st.builds(Accuracies, retain=_share, forget=_share, test=_share)
_named = st.fixed_dictionaries(dict.fromkeys(("retain", "forget", "test", "mia"), _share))
HIGHEST = {metric.key: metric.high for metric in METRICS}


def test_accuracy_by_hand() -> None:
    probabilities = [[0.5, 0.3, 0.2], [0.1, 0.2, 0.7], [0.4, 0.4, 0.2], [0.0, 0.0, 1.0]]
    assert accuracy(probabilities, [0, 2, 1, 2]) == 3 / 4  # of the tie in the third row, the first class counts
    assert accuracy(probabilities, [0, 2, 0, 2]) == 1
    assert accuracy(probabilities, [1, 1, 1, 1]) == 0


def test_accuracy_refuses_labels_of_other_classes() -> None:
    with pytest.raises(InputError, match="expected 0 to 1 for 2 classes"):
        accuracy([[0.5, 0.5]], [2])


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 5))
def test_the_order_of_images_does_not_matter(seed: int, count: int, classes: int) -> None:
    coins = np.random.default_rng(seed)
    probabilities = coins.dirichlet(np.ones(classes), count)
    labels = coins.integers(0, classes, count)
    order = coins.permutation(count)
    assert accuracy(probabilities[order], labels[order]) == accuracy(probabilities, labels)


@pytest.mark.parametrize("wrong", [-0.01, 1.01, 93.0, math.nan])
def test_accuracies_are_shares(wrong: float) -> None:
    for name in ("retain", "forget", "test"):
        with pytest.raises(InputError, match=f"{name} accuracy"):
            Accuracies(**{"retain": 0.5, "forget": 0.5, "test": 0.5, name: wrong})


def test_gaps_by_hand() -> None:
    ours = {"retain": 1.0, "forget": 0.25, "test": 0.5}
    theirs = {"test": 0.75, "retain": 0.875, "forget": 0.5}
    assert gaps(ours, theirs) == {"retain": 0.125, "forget": 0.25, "test": 0.25}
    assert average_gap(ours, theirs) == pytest.approx(0.625 / 3)


@given(_named, _named)
def test_gaps_are_distances(ours: dict[str, float], theirs: dict[str, float]) -> None:
    assert average_gap(ours, ours) == 0
    assert gaps(ours, theirs) == gaps(theirs, ours)
    assert 0 <= average_gap(ours, theirs) <= 1


@pytest.mark.parametrize(
    ("ours", "theirs"), [({}, {}), ({"a": 0.5}, {"b": 0.5}), ({"a": 0.5}, {"a": 0.5, "b": 0.5})]
)
def test_gaps_are_between_the_same_metrics(ours: dict[str, float], theirs: dict[str, float]) -> None:
    with pytest.raises(InputError, match="different metrics"):
        gaps(ours, theirs)


def test_gaps_of_what_is_not_a_number_are_refused() -> None:
    with pytest.raises(InputError, match="finite"):
        gaps({"a": math.nan}, {"a": 0.5})


def test_tug_of_war_by_hand() -> None:
    unlearned = Accuracies(retain=0.9, forget=0.5, test=0.75)
    retrained = Accuracies(retain=1.0, forget=0.75, test=0.25)
    assert tug_of_war(unlearned, retrained) == pytest.approx(0.9 * 0.75 * 0.5)


@given(_accuracies, _accuracies)
def test_tug_of_war_is_1_for_equals_and_never_above(one: Accuracies, other: Accuracies) -> None:
    assert tug_of_war(one, one) == 1
    assert tug_of_war(one, other) == pytest.approx(tug_of_war(other, one))
    assert 0 <= tug_of_war(one, other) <= 1


def test_one_set_that_is_all_wrong_is_enough_for_a_tug_of_war_of_0() -> None:
    assert tug_of_war(Accuracies(1.0, 0.0, 1.0), Accuracies(1.0, 1.0, 1.0)) == 0


def test_aus_by_hand() -> None:
    unlearned = Accuracies(retain=0.9, forget=0.5, test=0.75)
    assert aus(unlearned, original_test=1.0) == pytest.approx(0.75 / 1.25)
    assert aus(unlearned, original_test=0.75) == pytest.approx(1 / 1.25)
    assert aus(unlearned, original_test=1.0, class_removed=True) == pytest.approx(0.75 / 1.5)


@given(_accuracies, _share, st.booleans())
def test_aus_keeps_its_range(unlearned: Accuracies, original: float, class_removed: bool) -> None:
    highest = HIGHEST["aus"]
    assert highest is not None
    assert 0 <= aus(unlearned, original_test=original, class_removed=class_removed) <= highest


def test_nomus_by_hand() -> None:
    assert nomus(0.75, 0.5) == pytest.approx(0.75 / 2 + 1 / 2)
    assert nomus(0.75, 0.75) == pytest.approx(0.75 / 2 + 0.5 / 2)
    assert nomus(0.75, 0.25) == nomus(0.75, 0.75)  # an attack that is always wrong is always right
    assert nomus(0.75, 1.0, weight=0.2) == pytest.approx(0.15)


@given(_share, _share, _share)
def test_nomus_keeps_its_range(test: float, attack: float, weight: float) -> None:
    assert 0 <= nomus(test, attack, weight=weight) <= 1


@pytest.mark.parametrize("arguments", [(2.0, 0.5), (0.5, 50.0), (math.nan, 0.5)])
def test_scores_of_percentages_are_refused(arguments: Any) -> None:
    with pytest.raises(InputError, match=r"out of range|finite"):
        nomus(*arguments)
    with pytest.raises(InputError, match="original_test"):
        aus(Accuracies(0.5, 0.5, 0.5), original_test=76.0)
