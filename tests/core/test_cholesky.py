"""The blocked Cholesky decomposition: a solution, and the same bits for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import lmeraser.core.cholesky as module
from conftest import examples
from lmeraser.core.cholesky import solve_positive_definite


def problem(seed: int, size: int, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    half = random.standard_normal((size, size))
    return half @ half.T + np.eye(size), random.standard_normal((size, columns))


@examples(20, 300)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3), st.sampled_from([4, 7, 64]))
def test_it_solves_and_the_number_of_threads_changes_no_bit(
    seed: int, size: int, columns: int, block: int
) -> None:
    matrix, right = problem(seed, size, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        found = [solve_positive_definite(matrix.copy(), right.copy(), threads=threads) for threads in (1, 2, 5)]
    assert len({solution.tobytes() for solution in found}) == 1
    assert np.allclose(matrix @ found[0], right, atol=1e-8)


@pytest.mark.long
def test_a_large_matrix_has_the_same_bits_on_one_thread_and_on_three() -> None:
    matrix, right = problem(0, 1700, 10)
    one, three = (solve_positive_definite(matrix.copy(), right.copy(), threads=threads) for threads in (1, 3))
    assert one.tobytes() == three.tobytes()


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        solve_positive_definite(-np.eye(3), np.ones((3, 1)))
