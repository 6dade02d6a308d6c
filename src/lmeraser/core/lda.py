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

Everything follows from the statistics by one Cholesky decomposition in float64, on one thread or in blocks
(`core.cholesky`). Because the statistics of the same records are the same bytes, so is the head in one
environment. `solve_cross_validated` also takes the penalty from the statistics. Both can score angles instead of
distances (`core.cosine_scores`). `solve_shrunk` is the same with the regularisation that other implementations
have (a share of shrinkage, no calibration). Pure functions on numpy arrays.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.blas import one_blas_thread
from lmeraser.core.cholesky import block_threads, blocks, solve_positive_definite
from lmeraser.core.cosine_scores import cosine_scores
from lmeraser.core.sufficient_statistics import (
    SCALE,
    QuantizedEmbeddings,
    SufficientStatistics,
    dequantize,
    quantize,
)
from lmeraser.core.tensors import Array
from lmeraser.core.traces import effective_parameters, probes_for

Score = Literal["distance", "cosine", "blend"]

_STEP = 1 / SCALE
_NEVER = -1e9  # score of a class without records
_RIDGES: tuple[float, ...] = tuple(2.0 ** (step / 2) for step in range(49))  # from 1 to 2**24
_SELECTED = 512  # numbers of an embedding that the ridge is chosen on
_USUAL_PENALTY = 0.4  # p; what a few records are shrunk with
_FEW = 10.0  # records per class at which the ridge lies half way between this and the one they choose
_FILLED = 256  # rows of the scatter that are computed at once; another number gives other bits
_DOUBT = 50.0  # records per class at which scores are halved
_ROUNDING_VARIANCE = 1 / (12 * SCALE**2)  # of an error that is uniform within half a step of quantization


def solve(statistics: SufficientStatistics, penalty: float, score: Score = "distance") -> dict[str, Array]:
    """The global head.

    Args:
        statistics: of at least one record.
        penalty: in mean squared distances of an embedding to its class mean; greater than 0.
        score: ``distance``, or one of `core.cosine_scores`.

    Returns:
        ``weight``, float32 [classes, d + 1]; the last column is the bias.
    """
    import scipy.linalg  # noqa: F401 - its BLAS is not numpy's, and has to be there before the limit

    # Another number of threads sums in another order and gives other bits.
    with one_blas_thread():
        counts, means, scatter = _scatter(statistics)
        distance = max(float(np.trace(scatter)), 0.0) / max(float(counts.sum()), 1.0)
        ridge = penalty * distance + 1.0
        scatter[np.diag_indices(len(scatter))] += ridge
        if score == "blend":
            probes = probes_for(len(scatter))
            found = _solved(scatter, np.hstack([means, probes.T]))
            freedom = effective_parameters(probes, found[:, len(counts) :].T, ridge)
            weight = found[:, : len(counts)] * counts.sum()
            return _stacked(*cosine_scores(weight, means, counts, ridge, freedom), counts)
        weight, bias = _discriminants(scatter, means, counts)
        if score == "cosine":
            return _stacked(*cosine_scores(weight, means, counts, ridge), counts)
    return _head(weight, bias, counts)


def solve_cross_validated(statistics: SufficientStatistics, score: Score = "distance") -> dict[str, Array]:
    """The global head with the penalty that follows from the statistics.

    As `solve`, with `cross_validated_ridge` in the place of p w + 1. Several threads compute it, with the same
    bits for any number of them.

    Args:
        statistics: of at least one record.
        score: ``distance``, or one of `core.cosine_scores`.

    Returns:
        As `solve`.
    """
    width = statistics.width - 1
    counts, means = _means(statistics)
    weighted = means * counts
    # A class without records gets no weights; its column of zeros would only take time.
    present = np.flatnonzero(counts)
    probes = probes_for(width) if score == "blend" else np.empty((0, width))
    own = slice(width, width + len(present))
    stacked = np.empty((own.stop + len(probes), width))  # the scatter on top of the right-hand sides
    stacked[own] = means.T[present] * counts.sum()
    stacked[own.stop :] = probes

    def fill(rows: slice) -> None:
        stacked[rows, rows] = 0.0
        for number in range(rows.start, rows.stop):
            np.multiply(statistics.row(number), _STEP**2, out=stacked[number, : number + 1])
        stacked[rows, : rows.stop] -= weighted[rows] @ means[: rows.stop].T

    ridges = list[float]()

    def prepare(rows: slice | None) -> None:
        if rows is None:
            ridges.append(cross_validated_ridge(statistics))
        else:
            fill(rows)

    with block_threads() as parallel:
        parallel(prepare, [None, *blocks(0, width, _FILLED)])  # the ridge is chosen meanwhile
        ridge = ridges[0]
        stacked[np.diag_indices(width)] += ridge
        weight = np.zeros_like(means)
        found = solve_positive_definite(stacked, parallel)
        weight[:, present] = found[: len(present)].T
        if score != "distance":
            freedom = effective_parameters(probes, found[len(present) :], ridge) if len(probes) else None
            return _stacked(*cosine_scores(weight, means, counts, ridge, freedom), counts)
        return _head(weight, _biases(weight, means, counts), counts)


def cross_validated_ridge(statistics: SufficientStatistics) -> float:
    """The number to add to the diagonal of the scatter.

    The more records there are, the closer it is to what generalised cross-validation chooses, c, which a few of
    them cannot tell well:

        r = c^t (p w + 1)^(1 - t),    t = k / (k + 10)

    with k records per class and p = 0.4.

    Args:
        statistics: of at least one record.
    """
    counts, means = _means(statistics)
    squares = statistics.diagonal[:-1].astype(np.float64).sum() / SCALE**2
    distance = max(float(squares - (np.square(means) * counts).sum()), 0.0) / float(counts.sum())
    trust = _trust(counts, _FEW)
    chosen = least_generalised_error(statistics)
    return float(chosen**trust * (_USUAL_PENALTY * distance + 1.0) ** (1 - trust))


def least_generalised_error(statistics: SufficientStatistics) -> float:
    """The ridge with the least error in generalised cross-validation: a power of the square root of 2.

    Generalised cross-validation (Golub, Heath and Wahba, 1979) of a ridge regression of class indicators on
    embeddings: of the ridges r between 1 and 2**24 the one with the smallest

        RSS(r) / (1 - df(r) / n)^2          df(r) = 1 + tr(T (T + r I)^-1)

    with the scatter T of embeddings around the mean of all and the residual sum of squares RSS, both of which
    follow from the statistics. It estimates the error on other records without holding any out. Of wide
    embeddings a fixed selection of `_SELECTED` numbers is used, which is faster and chooses a similar ridge.

    Args:
        statistics: of at least one record.
    """
    with one_blas_thread():
        width = statistics.width - 1
        chosen = np.linspace(0, width - 1, min(width, _SELECTED)).round().astype(np.int64)
        moments = statistics.moments.astype(np.float64) / SCALE
        counts = moments[-1]
        records = counts.sum()
        sums = moments[chosen]
        total = sums.sum(axis=1)
        scatter = statistics.products(chosen).astype(np.float64) / SCALE**2
        scatter -= np.outer(total, total) / records
        values, vectors = np.linalg.eigh(scatter)
        values = np.maximum(values, 0.0)
        explained = np.square(vectors.T @ (sums - np.outer(total, counts) / records)).sum(axis=1)
        indicators = float((counts - counts**2 / records).sum())
        best = math.inf
        ridge = _RIDGES[-1]
        for candidate in reversed(_RIDGES):  # of equal ones the largest
            shrunk = values + candidate
            freedom = 1.0 + float((values / shrunk).sum())
            residual = indicators - float((explained * (2.0 / shrunk - values / shrunk**2)).sum())
            error = max(residual, 0.0) / (1.0 - freedom / records) ** 2 if freedom < records else math.inf
            if error < best:
                best = error
                ridge = candidate
    return ridge


def solve_shrunk(
    statistics: SufficientStatistics, shrinkage: float | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Discriminants with a covariance between that of the records and a multiple of the identity.

        score of class y for embedding c:   m_y' C c  -  m_y' C m_y / 2  +  log(n_y / n)
        C = ((1 - s) V + s v I)^-1

    with the covariance V of embeddings around their class mean, the mean v of its diagonal and the shrinkage s.
    The variance of rounding errors is the least that is added to the diagonal, so that C exists for any records.

    Args:
        statistics: of at least one record.
        shrinkage: s, from 0 to 1; None for the oracle approximating shrinkage, a function of V, the number of
            records and d (Chen, Wiesel, Eldar and Hero, Shrinkage Algorithms for MMSE Covariance Estimation, 2010,
            equation 23, without the terms in 2 / d, as in scikit-learn).

    Returns:
        Weights, float64 [classes, d], and biases, float64 [classes].
    """
    import scipy.linalg  # noqa: F401 - as in `solve`

    with one_blas_thread():
        counts, means, scatter = _scatter(statistics)
        records = float(counts.sum())
        variance = max(float(np.trace(scatter)), 0.0) / records / len(scatter)
        if shrinkage is None:
            shrinkage = _oracle_approximating(scatter / records, variance, records)
        scatter *= 1 - shrinkage
        scatter[np.diag_indices(len(scatter))] += records * max(shrinkage * variance, _ROUNDING_VARIANCE)
        weight, bias = _discriminants(scatter, means, counts)
    return np.ascontiguousarray(weight.T), np.where(counts > 0, bias, _NEVER)


def scores(
    weights: NDArray[np.float64], biases: NDArray[np.float64], embeddings: QuantizedEmbeddings
) -> NDArray[np.float64]:
    """Scores of classes; a row's result depends neither on the other rows nor on the number of threads.

    Matrix products of integers whose sums stay below 2**53 are exact in float64, whatever their order. Entries of
    quantized embeddings are below 2**15, so weights are split into two integers of as many bits as that leaves,
    which together have more bits than a float64.

    Args:
        weights: float64 [classes, d].
        biases: float64 [classes].
        embeddings: quantized embeddings, int16 [n, d + 1].

    Returns:
        float64 [n, classes].
    """
    inputs = embeddings[:, :-1].astype(np.float64)
    bits = 53 - 15 - math.ceil(math.log2(inputs.shape[1]))
    exponents = np.frexp(np.abs(weights).max(axis=1))[1]
    scaled = np.ldexp(weights, bits - exponents[:, None])
    high = np.rint(scaled)
    low = np.rint(np.ldexp(scaled - high, bits))
    sums = inputs @ high.T + np.ldexp(inputs @ low.T, -bits)
    total: NDArray[np.float64] = np.ldexp(sums, exponents - bits) / SCALE + biases
    return total


def _scatter(
    statistics: SufficientStatistics,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Records per class [classes], class means [d, classes] and scatter around them [d, d], in float64."""
    counts, means = _means(statistics)
    scatter = statistics.gram[:-1, :-1].astype(np.float64)  # changed in place: it may be large
    scatter /= SCALE**2
    scatter -= (means * counts) @ means.T
    return counts, means, scatter


def _means(statistics: SufficientStatistics) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Records per class [classes] and class means [d, classes], in float64."""
    moments = statistics.moments.astype(np.float64) / SCALE
    counts = moments[-1]
    return counts, moments[:-1] / np.maximum(counts, 1)


def _discriminants(
    scatter: NDArray[np.float64], means: NDArray[np.float64], counts: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights [d, classes] and biases [classes], -inf for a class without records; the scatter is regular."""
    weight = _solved(scatter, means) * counts.sum()
    return weight, _biases(weight, means, counts)


def _solved(scatter: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
    """X [d, n] with scatter X = right."""
    from scipy.linalg import cho_solve

    factor = np.linalg.cholesky(scatter)  # scipy's would hold the GIL throughout
    found: NDArray[np.float64] = cho_solve((factor.T, False), right, check_finite=False)  # .T avoids a copy
    return found


def _biases(
    weight: NDArray[np.float64], means: NDArray[np.float64], counts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Biases [classes] for weights and means [d, classes]; -inf for a class without records."""
    with np.errstate(divide="ignore"):
        biases: NDArray[np.float64] = np.log(counts / counts.sum()) - 0.5 * (means * weight).sum(axis=0)
    return biases


def _head(weight: NDArray[np.float64], bias: NDArray[np.float64], counts: NDArray[np.float64]) -> dict[str, Array]:
    """The head with calibrated scores, from weights [d, classes] and biases [classes]."""
    trust = _trust(counts, _DOUBT)
    return _stacked(weight * trust, bias * trust, counts)


def _stacked(
    weight: NDArray[np.float64], bias: NDArray[np.float64], counts: NDArray[np.float64]
) -> dict[str, Array]:
    """The head from weights [d, classes] and biases [classes]."""
    head = np.vstack([weight, np.where(counts > 0, bias, _NEVER)]).T
    return {"weight": np.ascontiguousarray(head, dtype=np.float32)}


def _trust(counts: NDArray[np.float64], doubt: float) -> float:
    """From 0 to 1, the more records there are per class; 0.5 where these are ``doubt``."""
    per_class = float(counts.sum()) / max(int((counts > 0).sum()), 1)
    return per_class / (per_class + doubt)


def _oracle_approximating(covariance: NDArray[np.float64], variance: float, records: float) -> float:
    """The oracle approximating shrinkage of a covariance [d, d] whose diagonal has the mean ``variance``."""
    mean_square = float(np.mean(np.square(covariance)))
    excess = (records + 1) * (mean_square - variance**2 / len(covariance))
    return min((mean_square + variance**2) / excess, 1.0) if excess > 0 else 1.0


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
