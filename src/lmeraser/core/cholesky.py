"""The Cholesky decomposition of a large matrix on several threads, with the same bits for any number of them.

The matrix is divided into blocks of fixed sizes. Every operation on blocks runs on one thread, and those
on one block follow each other in a fixed order; threads only share out different blocks. (A BLAS on several
threads divides single products, and sums them in another order.) Products go through numpy, which lets other
threads run meanwhile; scipy's do not. Knows nothing about statistics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.blas import one_blas_thread

_BLOCK = 256  # columns that are worked on in one step; another number gives other bits
_ROWS = 512  # of these columns in one operation; the same
_INVERTED = 64  # rows of a triangle that is inverted as any matrix
_MOST_THREADS = 8

Matrix = NDArray[np.floating[Any]]
Parallel = Callable[[Callable[[Any], None], Iterable[Any]], None]


@contextmanager
def block_threads(threads: int | None = None) -> Iterator[Parallel]:
    """Threads that call a function with each of several items; every operation of a BLAS runs on one of them.

    Args:
        threads: how many; None: as many as there are cores, up to eight.
    """
    count = threads if threads is not None else min(os.cpu_count() or 1, _MOST_THREADS)
    with one_blas_thread(), ThreadPoolExecutor(count) as pool:

        def parallel(function: Callable[[Any], None], items: Iterable[Any]) -> None:
            for _ in pool.map(function, items):
                pass

        yield parallel


def blocks(start: int, stop: int, size: int) -> list[slice]:
    """From ``start`` to ``stop``, ``size`` at a time."""
    return [slice(first, min(first + size, stop)) for first in range(start, stop, size)]


def solve_positive_definite(stacked: Matrix, parallel: Parallel) -> Matrix:
    """X with X A = B, for a symmetric positive definite A; its bits do not depend on the number of threads.

    Args:
        stacked: A on top of B, float64 [d + n, d]; of A the lower triangle is read. Overwritten.
        parallel: `block_threads`.

    Returns:
        X, float64 [n, d], which overwrites B.

    Raises:
        numpy.linalg.LinAlgError: A is not positive definite.
    """
    size = stacked.shape[1]
    pivots = blocks(0, size, _BLOCK)
    inverses: list[Matrix] = []
    # A = L L'. What divides the rows below a pivot by L' divides those of B as well.
    for pivot in pivots:
        left = slice(0, pivot.start)
        below = blocks(pivot.stop, len(stacked), _ROWS)

        def subtract(rows: slice, pivot: slice = pivot, left: slice = left) -> None:
            stacked[rows, pivot] -= stacked[rows, left] @ stacked[pivot, left].T
            if rows is pivot:  # the first one, so that it is decomposed beside the products of the others
                inverses.append(_inverse(np.linalg.cholesky(stacked[pivot, pivot])))

        parallel(subtract, [pivot, *below])

        def divide(rows: slice, pivot: slice = pivot, inverse: Matrix = inverses[-1]) -> None:
            stacked[rows, pivot] = stacked[rows, pivot] @ inverse.T

        parallel(divide, below)

    def divide_by_lower(rows: slice) -> None:
        for pivot, inverse in zip(reversed(pivots), reversed(inverses), strict=True):
            right = slice(pivot.stop, size)
            rest = stacked[rows, pivot] - stacked[rows, right] @ stacked[right, pivot]
            stacked[rows, pivot] = rest @ inverse

    parallel(divide_by_lower, blocks(size, len(stacked), _ROWS))
    return stacked[size:]


def _inverse(lower: Matrix) -> Matrix:
    """The inverse of a lower triangle, from those of its two halves."""
    size = len(lower)
    if size <= _INVERTED:
        return np.linalg.inv(lower)
    half = size // 2
    inverse = np.zeros_like(lower)
    first = _inverse(lower[:half, :half])
    second = _inverse(lower[half:, half:])
    inverse[:half, :half] = first
    inverse[half:, half:] = second
    inverse[half:, :half] = -(second @ (lower[half:, :half] @ first))
    return inverse
