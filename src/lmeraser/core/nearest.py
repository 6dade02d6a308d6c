"""The nearest of some points, found fast and exactly.

A matrix product gives all squared distances within a known error; where only one point can be the nearest, it
is. The rest is settled by scipy's `cdist`, pair by pair. So the answer is that of `cdist` alone, whatever the
product's library, threads and shapes do to its last bits. Pure functions.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]


def nearest(rows: Matrix, points: Matrix) -> NDArray[np.int64]:
    """Position of the point nearest to each row; the first of equally near ones.

    Args:
        rows: float64 [n, d].
        points: float64 [k, d], at least one.
    """
    from scipy.spatial.distance import cdist

    with np.errstate(invalid="ignore", over="ignore"):
        squares, lengths = np.square(points).sum(axis=1), np.square(rows).sum(axis=1)
        distances = squares - 2 * (rows @ points.T)  # without the row's own square, which shifts all alike
        low = distances.min(axis=1, initial=np.inf)
        limit = low + _error(lengths, squares.max(), rows.shape[1])
        settled = ((distances <= limit[:, None]).sum(axis=1) == 1) & np.isfinite(limit)
    found: NDArray[np.int64] = distances.argmin(axis=1)
    if not settled.all():
        found[~settled] = cdist(rows[~settled], points).argmin(axis=1)
    return found


def _error(lengths: Matrix, longest: float, terms: int) -> Matrix:
    """More than two squared distances, each computed in either way, can be off against each other.

    A sum of d products is off by at most d eps of the sum of their magnitudes (Higham, Accuracy and Stability,
    section 3.1), here by (d + 8) eps (|x| + |p|)^2; four of these, and eight times that for good measure.
    """
    limits = np.finfo(np.float64)
    sizes: Matrix = (np.sqrt(lengths) + np.sqrt(longest)) ** 2
    return 32 * (terms + 8) * (limits.eps * sizes + limits.tiny)  # tiny: where squares underflow
