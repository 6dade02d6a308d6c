"""The trace of a matrix that is too large to invert, from what its inverse makes of a few fixed vectors.

Hutchinson's estimate: the mean of v' A v over vectors v of random signs is close to tr A if entries away from the
diagonal are small. (M. F. Hutchinson, A stochastic estimator of the trace of the influence matrix, 1989.) The
signs are the same for every matrix of a size, so an estimate is a function of the matrix. Pure functions on numpy
arrays.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PROBES = 16  # right to about two parts in a hundred


@lru_cache(maxsize=2)
def probes_for(width: int) -> NDArray[np.float64]:
    """Signs, float64 [n, width]: bits of SHAKE-256."""
    count = _PROBES * width
    data = hashlib.shake_256(f"lmeraser probes {width}".encode()).digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=count)
    signs = bits.reshape(_PROBES, width).astype(np.float64) * 2 - 1
    signs.setflags(write=False)
    return signs


def effective_parameters(probes: NDArray[np.float64], solved: NDArray[np.floating[Any]], ridge: float) -> float:
    """An estimate of tr(W (W + ridge I)^-1) = width - ridge tr((W + ridge I)^-1).

    Args:
        probes: v, float64 [n, width].
        solved: (W + ridge I)^-1 v, float64 [n, width].
        ridge: the number that was added to the diagonal of W.
    """
    return float(probes.shape[1] - ridge * (probes * solved).sum() / len(probes))
