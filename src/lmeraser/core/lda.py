"""The global head: linear discriminant analysis of quantized embeddings, solved from their sufficient statistics.

    score of class y for embedding c:   m_y' S c  -  m_y' S m_y / 2  +  log(n_y / n),    S = n (W + (p w + 1) I)^-1

with the class means m_y, the scatter W of embeddings around their class mean, the mean squared distance w = tr(W)
/ n of an embedding to its class mean, the penalty p, and n_y of n records in class y. The penalty therefore means
the same for every backbone, and shrinks less the more records there are, as the error of W does; the 1 keeps W
regular where it is 0. The score is, up to a constant, the logarithm of the class probability if embeddings are
normally distributed around the means (Hastie, Tibshirani and Friedman, The Elements of Statistical Learning,
sections 4.3 and 4.3.1).

Means and scatter of few records make scores too extreme. All scores are multiplied by r / (r + 50) for r records
per class, which calibrates probabilities without changing the order of classes.

Everything follows from the statistics by one Cholesky decomposition in float64 on one thread. Because the
statistics of the same records are the same bytes, so is the head in one environment. Pure functions on numpy
arrays.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.sufficient_statistics import SCALE, SufficientStatistics, dequantize, quantize
from lmeraser.core.tensors import Array

_NEVER = -1e9  # score of a class without records
_DOUBT = 50.0  # records per class at which scores are halved


def solve(statistics: SufficientStatistics, penalty: float) -> dict[str, Array]:
    """The global head.

    Args:
        statistics: of at least one record.
        penalty: in mean squared distances of an embedding to its class mean; greater than 0.

    Returns:
        ``weight``, float32 [classes, d + 1]; the last column is the bias.
    """
    from scipy.linalg import cho_solve
    from threadpoolctl import threadpool_limits

    moments = statistics.moments.astype(np.float64) / SCALE
    counts = moments[-1]
    means = moments[:-1] / np.maximum(counts, 1)
    # Another number of threads sums in another order and gives other bits.
    with threadpool_limits(1, user_api="blas"):
        scatter = statistics.gram[:-1, :-1].astype(np.float64) / SCALE**2 - (means * counts) @ means.T
        distance = max(float(np.trace(scatter)), 0.0) / max(float(counts.sum()), 1.0)
        scatter[np.diag_indices(len(scatter))] += penalty * distance + 1.0
        factor = np.linalg.cholesky(scatter)  # scipy's would hold the GIL throughout
        weight = cho_solve((factor.T, False), means, check_finite=False) * counts.sum()  # .T avoids a copy
    with np.errstate(divide="ignore"):
        bias = np.log(counts / counts.sum()) - 0.5 * (means * weight).sum(axis=0)
    per_class = counts.sum() / max(int((counts > 0).sum()), 1)
    trust = per_class / (per_class + _DOUBT)
    head = np.vstack([weight * trust, np.where(counts > 0, bias * trust, _NEVER)]).T
    return {"weight": np.ascontiguousarray(head, dtype=np.float32)}


def probabilities(
    weights: NDArray[np.float32], embeddings: NDArray[np.float32], sharpness: float = 1.0
) -> NDArray[np.float32]:
    """Probabilities of classes from linear scores of quantized embeddings.

    Each image is summed separately: in a matrix product its result may depend on the other images.

    Args:
        weights: float32 [n, classes, d + 1], or [1, classes, d + 1] for one head for all images.
        embeddings: float32 [n, d].
        sharpness: factor of the scores.

    Returns:
        float32 [n, classes].
    """
    inputs = dequantize(quantize(embeddings))
    scores = (weights * inputs[:, None, :]).sum(axis=2, dtype=np.float32) * np.float32(sharpness)
    powers = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return shares
