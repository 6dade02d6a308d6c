"""Exact nearest neighbours among a few points, at the speed of a matrix product.

A matrix product gives all squared distances within a known error. Where that leaves only one candidate, it is the
nearest point; the other rows are decided by scipy's `cdist`, pair by pair. The result is therefore that of `cdist`
alone, whatever the product's library, threads and shapes do to its last bits. Pure functions on numpy arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def nearest(rows: Matrix, points: Matrix) -> NDArray[np.int64]:
    """Index of the point nearest to each row; the first of several equally near ones.

    Args:
        rows: float64 [n, d].
        points: float64 [k, d], at least one.

    Returns:
        int64 [n].
    """
    from scipy.spatial.distance import cdist

    with np.errstate(invalid="ignore", over="ignore"):
        point_squares = np.square(points).sum(axis=1)
        row_squares = np.square(rows).sum(axis=1)
        distances = point_squares - 2 * (rows @ points.T)  # less the row's own square, the same for all points
        smallest = distances.min(axis=1, initial=np.inf)
        limit = smallest + _error_bound(row_squares, point_squares.max(), rows.shape[1])
        decided = ((distances <= limit[:, None]).sum(axis=1) == 1) & np.isfinite(limit)
    indices: NDArray[np.int64] = distances.argmin(axis=1)
    if not decided.all():
        indices[~decided] = cdist(rows[~decided], points).argmin(axis=1)
    return indices


def _error_bound(row_squares: Matrix, largest_point_square: float, terms: int) -> Matrix:
    """Upper bound of the error in comparing two squared distances, each computed in either way.

    The error of a sum of d products is at most d eps times the sum of their magnitudes (Higham, Accuracy and
    Stability of Numerical Algorithms, section 3.1), here (d + 8) eps (|x| + |p|)^2. A comparison involves four
    such errors; the bound is eight times their sum, as a margin.

    Args:
        row_squares: squared norms of the rows, float64 [n].
        largest_point_square: largest squared norm of a point.
        terms: d.

    Returns:
        float64 [n].
    """
    limits = np.finfo(np.float64)
    magnitudes: Matrix = (np.sqrt(row_squares) + np.sqrt(largest_point_square)) ** 2
    return 32 * (terms + 8) * (limits.eps * magnitudes + limits.tiny)  # tiny: where squares underflow
