"""Scores of classes by angles instead of distances, from the same solution as linear discriminants.

    score of class y for embedding c:   t ( g_y' S (c - m) sqrt(N / N_y)  +  log(n_y / n) )

with the mean m of all embeddings, g_y = m_y - m, N_y = g_y' S g_y, the mean N of N_y over records, and everything
else as in `core.lda`. In the metric of S, g_y' S (c - m) / sqrt(N_y) is the cosine of the angle between c and the
class mean, both seen from m, times the length of c - m. A distance (`core.lda`) prefers classes near m for
embeddings that lie near m, as those of records that were not trained on do; an angle does not.

t follows from the statistics as well: 1.5 sqrt(r / (r + 50)) / s for r records per class, at most 0.5, with the
mean square s^2, over pairs of classes, of the standard deviation within classes of the difference of their scores.
So scores vary by as much as probabilities should, whatever the penalty, the width and the number of classes are.
(At 1, probabilities would be those of normal distributions, whose tails are lighter than those of embeddings.) All
of it takes products of classes with classes only.

*Blended* scores take out what is chance. The mean of n_y records is off by their scatter over n_y, so N_y is too
large by about

    b_y = f / ((1 - f / n) n_y),        f = tr(W (W + ridge I)^-1)

with the effective number of parameters f (S fits the records that it was computed from: the distances of others
are larger by 1 / (1 - f / n)). N_y - b_y takes the place of N_y, or N_y / 2 if that is more. Counts of classes
vary by chance as well. If D, at least 1, is their variance over that of counts that are drawn from equal classes,
the prior is p_y = (1 - 1 / D) n_y / n + (1 / D) / K for K classes; and without chance it may weigh more, so log
p_y counts three times, but at most 1 / t times, which is Bayes' rule.

The further classes are apart, the less of their distance may be believed, because the tails of embeddings are
heavy, and the more the parameters are fitted to the records at hand, the less as well. For blended scores

    t = (1 - f / n) sqrt(r / (r + 14)) min(3 / s^1.2, 0.6)

with numbers that were chosen on records that no reported figure is computed from.

How long c - m is tells classes apart as well, and the fewer there are, the less is lost by believing it: with a =
10 / (K + 10), the score is a times that of a distance and 1 - a times that of an angle,

    t ( a (g_y' S (c - m) - N_y / 2) + (1 - a) g_y' S (c - m) sqrt(N / N_y)  +  min(3, 1 / t) log p_y )

`docs/adr/0026-layers-random-features-and-penalty.md` has the comparisons. Pure functions on numpy arrays.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

_NOISE = 1.5  # standard deviation of differences of scores within a class, in the softmax
_MOST = 0.5  # of t
_DOUBT = 50.0  # records per class at which t^2 is halved
_BLENDED_NOISE = 3.0  # t of blended scores where s is 1
_BLENDED_POWER = 1.2  # of s
_BLENDED_MOST = 0.6
_BLENDED_DOUBT = 14.0
_SHARPNESS = 0.3  # factor of scores in the softmax (``global_head.sharpness``) that t is meant for
_SHORTEST = 0.01  # of N_y, in N: the angle with a mean that is next to the mean of all says nothing
_MOST_USED = 0.95  # of f, in n
_PRIOR = 3.0  # weight of a prior without chance
_CLASSES = 10.0  # at which a blend is half an angle and half a distance
_LEAST_NOISE = 0.05  # of s^2, in mean distances between classes: single records per class have no scatter


def cosine_scores(
    weight: NDArray[np.float64],
    means: NDArray[np.float64],
    counts: NDArray[np.float64],
    ridge: float,
    freedom: float | None = None,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Weights and biases whose scores are those of angles.

    Args:
        weight: S applied to class means, float64 [d, classes].
        means: class means, float64 [d, classes].
        counts: records of each class, at least one in all, float64 [classes].
        ridge: the number that was added to the diagonal of the scatter: S = n (W + ridge I)^-1.
        freedom: f; blended scores if it is given.

    Returns:
        Weights, float64 [d, classes], and biases, float64 [classes], for scores that are then multiplied by
        ``global_head.sharpness``; 0 for classes without records.
    """
    found = np.zeros_like(weight)
    biases = np.zeros_like(counts)
    present = np.flatnonzero(counts)
    own = counts[present]
    share = own / own.sum()
    centre = means[:, present] @ share
    directions = weight[:, present] - (weight[:, present] @ share)[:, None]
    deviations = means[:, present] - centre[:, None]
    products = deviations.T @ directions  # g_y' S g_z
    lengths = np.diag(products).clip(min=0.0)
    prior = share
    prior_weight = 1.0
    if freedom is not None:
        lengths = np.maximum(lengths - _chance_lengths(own, freedom), lengths / 2)
        prior = _without_chance(own)
        prior_weight = _PRIOR
    mean_length = float(lengths @ share)
    factors = np.ones_like(own)
    if mean_length > 0:
        factors = np.sqrt(mean_length / np.maximum(lengths, _SHORTEST * mean_length))
    distance = 0.0
    if freedom is not None:
        distance = _CLASSES / (len(own) + _CLASSES)
        factors = (1 - distance) * factors + distance
    # Since (W + ridge I) S = n I, the covariance within classes of g_y' S c is g_y' S W S g_z / n.
    covariances = products - ridge / own.sum() * (directions.T @ directions)
    both = np.outer(factors, factors)
    noise = math.sqrt(max(_between_pairs(covariances * both), _LEAST_NOISE * _between_pairs(products * both), 0.0))
    factor = _factor(noise, own) if freedom is None else _blended_factor(noise, own, freedom)
    scale = factor / _SHARPNESS
    found[:, present] = directions * (factors * scale)
    biases[present] = np.log(prior) * (min(prior_weight, 1 / factor) * scale) - centre @ found[:, present]
    biases[present] -= distance * scale / 2 * lengths
    return found, biases


def _factor(noise: float, counts: NDArray[np.float64]) -> float:
    """The factor t, from s."""
    per_class = float(counts.sum()) / len(counts)
    wanted = _NOISE * math.sqrt(per_class / (per_class + _DOUBT))
    return min(wanted / noise, _MOST) if noise > 0 else _MOST


def _blended_factor(noise: float, counts: NDArray[np.float64], freedom: float) -> float:
    """The factor t of blended scores."""
    per_class = float(counts.sum()) / len(counts)
    alone = min(_BLENDED_NOISE / noise**_BLENDED_POWER, _BLENDED_MOST) if noise > 0 else _BLENDED_MOST
    return (1 - _used(counts, freedom)) * math.sqrt(per_class / (per_class + _BLENDED_DOUBT)) * alone


def _used(counts: NDArray[np.float64], freedom: float) -> float:
    """The share f / n."""
    return min(max(freedom / float(counts.sum()), 0.0), _MOST_USED)


def _chance_lengths(counts: NDArray[np.float64], freedom: float) -> NDArray[np.float64]:
    """b_y [classes]."""
    used = _used(counts, freedom)
    lengths: NDArray[np.float64] = counts.sum() * used / (1 - used) / counts
    return lengths


def _without_chance(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """p_y [classes]."""
    records = float(counts.sum())
    classes = len(counts)
    equal = records / classes
    dispersion = float(np.square(counts - equal).sum()) / (equal * max(classes - 1, 1))
    chance = 1 / max(dispersion, 1.0)
    shares: NDArray[np.float64] = (1 - chance) * counts / records + chance / classes
    return shares


def _between_pairs(products: NDArray[np.float64]) -> float:
    """The mean over pairs of classes of p_yy + p_zz - 2 p_yz; 0 for a single class."""
    classes = len(products)
    if classes < 2:
        return 0.0
    return float(2 * (classes * np.trace(products) - products.sum()) / (classes * (classes - 1)))
