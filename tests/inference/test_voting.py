"""Several answers as one: means, majorities, and ties; each image for itself."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser.inference.voting import combine

ALL = np.ones((1, 3), dtype=np.bool_)


def rows(*shares: list[float]) -> list[Any]:
    """One image's probabilities by each cluster."""
    return [np.array([row], np.float32) for row in shares]


def test_the_mean_of_probabilities() -> None:
    answers = rows([0.5, 0.5, 0], [0.7, 0.2, 0.1], [0, 0.2, 0.8])
    np.testing.assert_allclose(combine(answers, ALL, "mean"), [[0.4, 0.3, 0.3]], rtol=1e-6)


def test_a_majority_wins_whatever_the_mean_says() -> None:
    answers = rows([0.51, 0.49, 0], [0.51, 0.49, 0], [0, 1, 0])
    assert combine(answers, ALL, "mean").argmax() == 1
    vote = combine(answers, ALL, "vote")
    assert vote.argmax() == 0
    np.testing.assert_allclose(vote, [[(2 + 0.34) / 4, (1 + 0.66) / 4, 0]], rtol=1e-6)


def test_the_mean_breaks_ties() -> None:
    answers = rows([0.6, 0.4, 0], [0, 0.9, 0.1], [0.1, 0, 0.9])
    assert combine(answers, ALL, "vote").argmax() == 1


def test_a_cluster_that_an_image_does_not_have_is_not_heard() -> None:
    answers = rows([0.6, 0.4, 0], [0, 0.9, 0.1], [0, 0.9, 0.1])
    first = np.array([[True, False, False]])
    np.testing.assert_allclose(combine(answers, first, "mean"), answers[0])
    np.testing.assert_allclose(combine(answers, first, "vote"), [[0.8, 0.2, 0]], rtol=1e-6)


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 6), voters=st.integers(1, 7))
@pytest.mark.parametrize("how", ["mean", "vote"])
def test_any_answers_by_counting(how: Literal["mean", "vote"], seed: int, count: int, voters: int) -> None:
    coins = np.random.default_rng(seed)
    answers = [coins.dirichlet(np.full(4, 0.3), count).astype(np.float32) for _ in range(voters)]
    asked = coins.random((count, voters)) < 0.7
    asked[:, 0] = True
    together = combine(answers, asked, how)
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-5)
    for row in range(count):
        heard = [answers[n][row] for n in range(voters) if asked[row, n]]
        mean = np.mean(heard, axis=0)
        votes = np.bincount([int(shares.argmax()) for shares in heard], minlength=4)
        best = mean.argmax() if how == "mean" else max(range(4), key=lambda c: (votes[c], mean[c]))
        assert together[row].argmax() == best
        alone = combine([shares[row : row + 1] for shares in answers], asked[row : row + 1], how)
        np.testing.assert_array_equal(alone[0], together[row])
