"""The blocked Cholesky decomposition: a solution, and the same bits for any number of threads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

import lmeraser.core.cholesky as module
from conftest import examples
from lmeraser.core.cholesky import Matrix, block_threads, solve_positive_definite


def problem(seed: int, size: int, columns: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    random = np.random.default_rng(seed)
    half = random.standard_normal((size, size))
    return half @ half.T + np.eye(size), random.standard_normal((columns, size))


def solved(matrix: NDArray[np.float64], right: NDArray[np.float64], threads: int) -> Matrix:
    with block_threads(threads) as parallel:
        return solve_positive_definite(np.vstack([np.tril(matrix), right]), parallel)


@examples(20, 300)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 3), st.sampled_from([4, 7, 96]))
def test_it_solves_and_the_number_of_threads_changes_no_bit(
    seed: int, size: int, columns: int, block: int
) -> None:
    matrix, right = problem(seed, size, columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_BLOCK", block)
        patch.setattr(module, "_ROWS", 2 * block - 1)
        patch.setattr(module, "_INVERTED", 3)
        found = [solved(matrix, right, threads) for threads in (1, 2, 5)]
    assert len({solution.tobytes() for solution in found}) == 1
    assert np.allclose(found[0] @ matrix, right, atol=1e-8)


@pytest.mark.long
def test_a_large_matrix_has_the_same_bits_on_one_thread_and_on_three() -> None:
    matrix, right = problem(0, 1700, 10)
    one, two, three = (solved(matrix, right, threads) for threads in (1, 2, 3))
    assert one.tobytes() == two.tobytes() == three.tobytes()
    assert np.allclose(one @ matrix, right, atol=1e-6)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    with pytest.raises(np.linalg.LinAlgError):
        solved(-np.eye(3), np.ones((1, 3)), threads=1)
