"""Membership inference: scores for how likely each record was in the training set. Higher: more likely.

Three attacks, from cheap to strong. Their input is the probability of the true class of each record, predicted by
the attacked model and by reference models whose training sets are known. `attack_report` evaluates how well the
scores separate members from non-members.

To examine a model after unlearning, use the forgotten records as members and unseen records as non-members. The
same attack on the retrained model gives the value to compare with; it need not be 0.5, since the forgotten records
may be easier or harder than the others. These are diagnostics: the failure of one attack proves nothing about
another. Pure functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import Floats, check_flags, check_share, check_shares
from lmeraser.experiments.metrics.base import Direction, Metric

_CLOSEST = 2.0**-24  # distance to 0 and 1: half the gap below 1 in float32, the resolution of a probability of 1
_NEGLIGIBLE = 1e-9  # a smaller standard deviation is rounding error: logits are at most 17
_ENOUGH = 64  # reference models for a per-record variance (Carlini et al. 2022)


@dataclass(frozen=True, eq=False)
class Confidences:
    """Predicted probabilities of the true class of n records.

    Attributes:
        target: predictions of the attacked model, float64 [n].
        references: predictions of the reference models, float64 [models, n].
        seen: whether a reference model was trained on a record, bool [models, n].

    Raises:
        InputError: shapes differ, a value is not a probability, or all reference models saw a record.
    """

    target: Floats
    references: Floats
    seen: NDArray[np.bool_]

    def __post_init__(self) -> None:
        target, references = (
            check_shares(self.target, "target"),
            check_shares(self.references, "references", dimensions=2),
        )
        if references.shape[1:] != target.shape:
            raise InputError(
                "Reference models and attacked model differ in number of records",
                got=f"shapes {references.shape} and {target.shape}",
            )
        seen = check_flags(self.seen, references.shape, "seen")
        if everywhere := int(seen.all(axis=0).sum()):
            raise InputError(
                "No reference model without the record",
                got=f"{everywhere} of {len(target)} records were seen by all {len(references)} models",
                next_step="train reference models without them, or leave these records out",
            )
        for name, value in (("target", target), ("references", references), ("seen", seen)):
            object.__setattr__(self, name, value)  # converted to the annotated types


def confidence(target: ArrayLike) -> Floats:
    """The probability of the true class as score, float64 [n]: models are more confident on training records.

    The attack of Yeom et al., "Privacy Risk in Machine Learning", CSF 2018, for cross entropy: a threshold on the
    loss is a threshold on this. It mistakes easy records for members.

    Args:
        target: probability of the true class predicted by the attacked model, float [n].

    Raises:
        InputError: the values are not probabilities.
    """
    return check_shares(target, "target")


def lira(records: Confidences, *, enough: int = _ENOUGH) -> Floats:
    """Offline LiRA: how much more confident the attacked model is than models without the record, float64 [n].

    The offline attack of Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022. A
    confidence p becomes log(p / (1 - p)), which is approximately normal over models; with mean m and standard
    deviation s over the reference models that were not trained on the record, the paper's score is the normal
    distribution function of (log(p / (1 - p)) - m) / s. This function returns its argument, which orders records
    identically and does not saturate at 1.

    The standard deviation is estimated per record if every record has ``enough`` such models, otherwise pooled:
    one for all records, of the deviations from each record's mean. (The paper's code pools the records themselves,
    and scores by the normal *density*, which mistakes an unusually unsure model for one that saw the record.) A
    pooled deviation does not change the order; where it cannot be estimated, as with one model per record, it is
    1.

    Args:
        records: predictions for the records.
        enough: reference models needed for a per-record standard deviation.

    Raises:
        InputError: a per-record standard deviation is 0, or ``enough`` is below 2.
    """
    if enough < 2:
        raise InputError(
            "Too few reference models for a per-record standard deviation",
            got=f"enough = {enough}, expected at least 2",
        )
    out = ~records.seen
    counts = out.sum(axis=0)
    logits = _logits(records.references)
    means = np.where(out, logits, 0).sum(axis=0) / counts
    squares = (np.where(out, logits - means, 0) ** 2).sum(axis=0)
    differences = _logits(records.target) - means
    per_record = counts.min() >= enough
    deviations = _per_record_deviation(squares, counts) if per_record else _pooled_deviation(squares, counts)
    scores: Floats = differences / deviations
    return scores


def rmia(records: Confidences, population: Confidences, *, offline_a: float = 0.3, gamma: float = 1.0) -> Floats:
    """Offline RMIA: the share of a population that a record dominates, float64 [n], from 0 to 1.

    Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024 (arXiv 2312.03262).
    The score of x is the share of z in the population with

        (p(x | model) / p(x)) / (p(z | model) / p(z)) >= gamma

    where p(x) = ((1 + a) q + 1 - a) / 2 and q is the mean over the reference models that were not trained on x. It
    estimates the mean over models that were and models that were not; a models how far the former lie above the
    latter. Defaults as in the authors' code (privacytrustlab/ml_privacy_meter:
    modules/mia/attacks/rmia.py). Works with one reference model.

    Args:
        records: predictions for the records under test.
        population: predictions for other records, which the attacked model was not trained on.
        offline_a: a, from 0 to 1; the larger, the less models gain on their training records.
        gamma: the ratio by which a record must dominate; above 0.

    Raises:
        InputError: a or gamma is out of range, or p(x) is zero (a is 1 and every q is 0).
    """
    offline_a = check_share(offline_a, "offline_a")
    if not 0 < gamma < np.inf:
        raise InputError("gamma is out of range", got=f"{gamma}, expected a positive number")
    ratios = np.sort(_ratios(population, offline_a))
    # LR >= gamma without the division: every record dominates a z of probability zero.
    below: NDArray[np.int64] = np.searchsorted(gamma * ratios, _ratios(records, offline_a), side="right")
    return below / len(ratios)


def mia_efficacy(retain: ArrayLike, unseen: ArrayLike, forget: ArrayLike) -> float:
    """MIA-efficacy: the share of forgotten records that a classifier labels as unseen.

    The classifier separates retained from unseen records by the attacked model's confidence alone: scikit-learn's
    ``SVC(C=3, gamma="auto", kernel="rbf")`` (Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS
    2023; OPTML-Group/Unlearn-Sparse: evaluation/SVC_MIA.py). Range 0 to 1, towards the retrained model's value: 1
    does not mean "all forgotten", since retained records are labelled as unseen, too. A weak attack (Hayes et al.,
    SaTML 2025), included for comparison with published tables.

    Args:
        retain: probability of the true class of retained records, float [n]; pass a sample of them.
        unseen: the same for equally many unseen records, float [n].
        forget: the same for the forgotten records, float [m].

    Raises:
        InputError: the values are not probabilities, or the numbers of retained and unseen records differ: the
            classifier would favour the larger set.
    """
    from sklearn.svm import SVC

    seen, new = check_shares(retain, "retain"), check_shares(unseen, "unseen")
    if len(seen) != len(new):
        raise InputError(
            "Numbers of retained and unseen records differ",
            got=f"{len(seen)} and {len(new)}",
            next_step="pass a sample of the larger set",
        )
    classifier = SVC(C=3, gamma="auto", kernel="rbf")
    classifier.fit(np.concatenate([seen, new])[:, None], np.repeat([1, 0], len(seen)))
    return float((classifier.predict(check_shares(forget, "forget")[:, None]) == 0).mean())


def _logits(probabilities: Floats) -> Floats:
    clipped = np.clip(probabilities, _CLOSEST, 1 - _CLOSEST)
    logits: Floats = np.log(clipped) - np.log1p(-clipped)
    return logits


def _per_record_deviation(squares: Floats, counts: NDArray[np.int64]) -> Floats:
    """Standard deviation of each record, float64 [n], from its sum of squared deviations."""
    deviations: Floats = np.sqrt(squares / (counts - 1))
    if constant := int((deviations < _NEGLIGIBLE).sum()):
        raise InputError(
            "Per-record standard deviation is zero",
            got=f"{constant} of {len(counts)} records have the same prediction from all reference models",
            next_step="pass a larger 'enough' to pool the standard deviation over records",
        )
    return deviations


def _pooled_deviation(squares: Floats, counts: NDArray[np.int64]) -> float:
    """One standard deviation for all records; 1 where it cannot be estimated."""
    deviation = math.sqrt(squares.sum() / max((counts - 1).sum(), 1))
    return deviation if deviation >= _NEGLIGIBLE else 1.0


def _ratios(records: Confidences, offline_a: float) -> Floats:
    """p(x | model) / p(x), float64 [n]."""
    out = ~records.seen
    mean_out = np.where(out, records.references, 0).sum(axis=0) / out.sum(axis=0)
    expected = ((1 + offline_a) * mean_out + 1 - offline_a) / 2
    if not expected.all():
        raise InputError(
            "RMIA cannot divide by p(x) = 0",
            got=f"{int((expected == 0).sum())} records with probability 0 from every reference model",
            next_step="pass offline_a below 1",
        )
    ratios: Floats = records.target / expected
    return ratios


METRICS = (
    Metric(
        key="mia_efficacy",
        name="MIA-efficacy",
        definition="share of the forget set that an SVC on confidences, retained against unseen, calls unseen",
        low=0.0,
        high=1.0,
        direction=Direction.RETRAINED,
        source='Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS 2023',
    ),
)
