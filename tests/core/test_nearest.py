"""Against scipy's distances, with many ties and near-ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from lmeraser.core.nearest import Matrix, nearest


def slow(rows: Matrix, points: Matrix) -> Matrix:
    return np.asarray(cdist(rows, points).argmin(axis=1))


@given(
    st.integers(0, 10**6), st.integers(1, 12), st.integers(1, 9), st.sampled_from([0.0, 1e-16, 1e-12, 1e-3, 1.0])
)
def test_the_answer_is_that_of_all_distances(seed: int, count: int, size: int, noise: float) -> None:
    coins = np.random.default_rng(seed)
    lattice = coins.integers(-1, 2, (count, size)).astype(np.float64)  # equal points, and rows halfway between
    points = lattice + noise * coins.standard_normal(lattice.shape)
    rows = coins.integers(-2, 3, (30, size)) / 2 + noise * coins.standard_normal((30, size))
    assert nearest(rows, points).tolist() == slow(rows, points).tolist()


@pytest.mark.parametrize("scale", [1e-160, 1e-3, 1e8, 1e200])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_scale_and_distance_from_zero_do_not_matter(scale: float, shift: float) -> None:
    coins = np.random.default_rng(0)
    points = (coins.standard_normal((50, 20)) + shift) * scale
    rows = (coins.standard_normal((200, 20)) + shift) * scale
    assert nearest(rows, points).tolist() == slow(rows, points).tolist()


def test_most_rows_need_no_second_look(monkeypatch: pytest.MonkeyPatch) -> None:
    coins = np.random.default_rng(0)
    rows, points = coins.standard_normal((500, 64)), coins.standard_normal((40, 64))
    expected = slow(rows, points).tolist()
    monkeypatch.setattr("scipy.spatial.distance.cdist", None)
    assert nearest(rows, points).tolist() == expected


def test_no_rows() -> None:
    assert nearest(np.zeros((0, 3)), np.ones((2, 3))).tolist() == []
