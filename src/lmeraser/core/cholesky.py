"""The Cholesky decomposition of a large matrix on several threads, with the same bits for any number of them.

The matrix is divided into square blocks of a fixed size. Every operation on blocks runs on one thread, and those
on one block follow each other in a fixed order; threads only share out different blocks. (A BLAS on several
threads divides single products, and sums them in another order.) Knows nothing about statistics.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

_BLOCK = 512  # rows of a block; another number gives other bits
_MOST_THREADS = 8

Matrix = NDArray[np.float64]


def solve_positive_definite(matrix: Matrix, right: Matrix, *, threads: int | None = None) -> Matrix:
    """X with A X = B, for a symmetric positive definite A; its bits do not depend on the number of threads.

    Args:
        matrix: A, float64 [d, d]; its lower triangle is read and overwritten.
        right: B, float64 [d, n]; overwritten by X.
        threads: how many; None: as many as there are cores, up to eight.

    Raises:
        numpy.linalg.LinAlgError: A is not positive definite.
    """
    from threadpoolctl import threadpool_limits

    size = len(matrix)
    spans = [slice(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]
    count = threads if threads is not None else min(os.cpu_count() or 1, _MOST_THREADS)
    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(count) as pool:

        def parallel(function: Callable[[Any], None], items: Iterable[Any]) -> None:
            for _ in pool.map(function, items):
                pass

        inverses = _factorize(matrix, spans, parallel)
        _substitute(matrix, right, spans, inverses)
    return right


def _factorize(matrix: Matrix, spans: Sequence[slice], parallel: Callable[..., None]) -> list[Matrix]:
    """Overwrite the blocks below the diagonal by those of L; returns the inverses of those on the diagonal."""
    inverses: list[Matrix] = []
    for step, pivot in enumerate(spans):
        inverse = np.linalg.inv(np.linalg.cholesky(matrix[pivot, pivot]))
        inverses.append(inverse)
        rest = spans[step + 1 :]

        def divide(rows: slice, pivot: slice = pivot, inverse: Matrix = inverse) -> None:
            matrix[rows, pivot] = matrix[rows, pivot] @ inverse.T

        def subtract(block: tuple[slice, slice], pivot: slice = pivot) -> None:
            rows, columns = block
            matrix[rows, columns] -= matrix[rows, pivot] @ matrix[columns, pivot].T

        parallel(divide, rest)
        parallel(subtract, [(rows, columns) for at, rows in enumerate(rest) for columns in rest[: at + 1]])
    return inverses


def _substitute(matrix: Matrix, right: Matrix, spans: Sequence[slice], inverses: Sequence[Matrix]) -> None:
    """Overwrite B by the X with L L' X = B."""
    for step, pivot in enumerate(spans):
        right[pivot] = inverses[step] @ right[pivot]
        below = slice(pivot.stop, None)
        right[below] -= matrix[below, pivot] @ right[pivot]
    for step in reversed(range(len(spans))):
        pivot = spans[step]
        right[pivot] = inverses[step].T @ right[pivot]
        above = slice(0, pivot.start)
        right[above] -= matrix[pivot, above].T @ right[pivot]
