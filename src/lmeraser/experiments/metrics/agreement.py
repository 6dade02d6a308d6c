"""Distances between the predictions of an unlearned model and those of the retrained model.

A distance is computed for each image and then averaged over images. (Averaged over images *and classes*, the
default of ``kl_div`` that some published code uses, it would shrink as classes are added.) For an exact method
paired with a retraining of the same seed, distances are 0. Unpaired, they are as large as between two retrainings;
`spread` measures how large that is. Pure functions.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import Floats, check_distributions
from lmeraser.experiments.metrics.base import Direction, Metric


def activation_distance(probabilities: ArrayLike, retrained: ArrayLike) -> float:
    """Mean over images of the Euclidean distance of the probabilities to those of the retrained model.

    Range 0 to sqrt(2), towards 0; usually on the forget set (Chundawat et al., "Can Bad Teaching Induce
    Forgetting?", AAAI 2023; if-loops/selective-synaptic-dampening: metrics.py, ``actv_dist``).

    Args:
        probabilities: predictions of the unlearned model, float [n, classes].
        retrained: predictions of the retrained model on the same images, float [n, classes].

    Raises:
        InputError: the arrays are not distributions over the same images and classes.
    """
    ours, theirs = _pair(probabilities, retrained, "retrained")
    return float(np.linalg.norm(ours - theirs, axis=1).mean())


def js_divergence(probabilities: ArrayLike, retrained: ArrayLike) -> float:
    """Mean over images of the Jensen-Shannon divergence to the retrained model's probabilities, in bits.

    JS(p, q) = KL(p | m) / 2 + KL(q | m) / 2 with m = (p + q) / 2 and the logarithm to base 2 (Lin, "Divergence
    measures based on the Shannon entropy", IEEE Transactions on Information Theory 37, 1991). Range 0 to 1, where
    1 means that the models never give the same class any probability; towards 0. Symmetric; a probability of zero
    is no special case, because 0 log 0 = 0 and m is zero only where both are. To nats: times ln 2.

    Args:
        probabilities: predictions of the unlearned model, float [n, classes].
        retrained: predictions of the retrained model on the same images, float [n, classes].

    Raises:
        InputError: the arrays are not distributions over the same images and classes.
    """
    return float(_divergences(*_pair(probabilities, retrained, "retrained")).mean())


def zrf(probabilities: ArrayLike, teacher: ArrayLike) -> float:
    """Zero retrain forgetting score: 1 - the mean divergence to a model with random weights, on the forget set.

    Range 0 to 1, towards the retrained model's value: 1 would be a model that predicts like
    the random one, which retraining does not produce (Chundawat et al., AAAI 2023). The divergence is
    `js_divergence`, to base 2.

    Args:
        probabilities: predictions of the model under test on the forget set, float [n, classes].
        teacher: predictions of the model with random weights on the same images, float [n, classes].

    Raises:
        InputError: the arrays are not distributions over the same images and classes.
    """
    return 1 - float(_divergences(*_pair(probabilities, teacher, "teacher")).mean())


def _divergences(ours: Floats, theirs: Floats) -> Floats:
    """Jensen-Shannon divergence of each row, in bits, float64 [n]; rows are scaled to sum to 1 exactly."""
    from scipy.special import rel_entr

    p, q = ours / ours.sum(axis=1, keepdims=True), theirs / theirs.sum(axis=1, keepdims=True)
    middle = (p + q) / 2
    nats = (rel_entr(p, middle) + rel_entr(q, middle)).sum(axis=1) / 2
    bits: Floats = np.clip(nats / math.log(2), 0.0, 1.0)  # rounding can exceed either end by a few ulps
    return bits


def _pair(ours: ArrayLike, theirs: ArrayLike, name: str) -> tuple[Floats, Floats]:
    first, second = check_distributions(ours, "probabilities"), check_distributions(theirs, name)
    if first.shape != second.shape:
        raise InputError(f"probabilities and {name} differ in shape", got=f"{first.shape} and {second.shape}")
    return first, second


_BAD_TEACHING = 'Chundawat et al., "Can Bad Teaching Induce Forgetting?", AAAI 2023'

METRICS = (
    Metric(
        key="activation_distance",
        name="activation distance",
        definition="mean over images of the Euclidean distance of probabilities to the retrained model's",
        low=0.0,
        high=math.sqrt(2),
        direction=Direction.ZERO,
        source=_BAD_TEACHING,
    ),
    Metric(
        key="js_divergence",
        name="Jensen-Shannon divergence",
        definition="mean over images of the divergence of probabilities to the retrained model's, in bits",
        low=0.0,
        high=1.0,
        direction=Direction.ZERO,
        source='Lin, "Divergence measures based on the Shannon entropy", IEEE Trans. Inf. Theory 37, 1991',
    ),
    Metric(
        key="zrf",
        name="zero retrain forgetting score (ZRF)",
        definition="1 - mean Jensen-Shannon divergence, in bits, to a model with random weights on the forget set",
        low=0.0,
        high=1.0,
        direction=Direction.RETRAINED,
        source=_BAD_TEACHING,
    ),
)
