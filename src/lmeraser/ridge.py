"""The global head: ridge regression from the class of a record on its code, solved from sums (`sums`).

    minimise over W:   sum of |W c - e_y|^2 + penalty |W|^2      over records with code c and class y

Every entry of W solves (gram + penalty I) W^T = moments, by one Cholesky decomposition in float64 on one thread.
Because the sums are the same bytes for the same records, so is the head in one environment. The bias is
penalised as little as its constant, 1, is small. Pure functions; knows numpy and scipy only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmeraser.sums import SCALE, Sums, decode, encode
from lmeraser.tensors import Array


def solve(sums: Sums, penalty: float) -> dict[str, Array]:
    """The global head.

    Args:
        sums: over at least one record.
        penalty: in units of squared embeddings; greater than 0.

    Returns:
        ``weight``, float32 [classes, d + 1]; the last column is the bias.
    """
    from scipy.linalg import cho_factor, cho_solve
    from threadpoolctl import threadpool_limits

    gram = sums.gram.astype(np.float64) / SCALE**2
    gram[np.diag_indices(len(gram))] += penalty
    # Another number of threads adds up in another order and gives other bits.
    with threadpool_limits(1, user_api="blas"):
        factor = cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        weight = cho_solve(factor, sums.moments.astype(np.float64) / SCALE, check_finite=False)
    return {"weight": np.ascontiguousarray(weight.T, dtype=np.float32)}


def probabilities(
    weights: NDArray[np.float32], embeddings: NDArray[np.float32], sharpness: float = 1.0
) -> NDArray[np.float32]:
    """Probabilities of classes from linear scores of codes.

    Each image is summed up alone: a matrix product may depend on the neighbours.

    Args:
        weights: float32 [n, classes, d + 1], or [1, classes, d + 1] for the same head for every image.
        embeddings: float32 [n, d].
        sharpness: factor of the scores.

    Returns:
        float32 [n, classes].
    """
    codes = decode(encode(embeddings))
    scores = (weights * codes[:, None, :]).sum(axis=2, dtype=np.float32) * np.float32(sharpness)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares
