"""Membership inference: scores that say of each record how likely it was trained on. Higher: more likely.

Three attacks, from cheap to strong. They see the probability that models give the true class of a record: the
attacked model, and reference models of which it is known who was trained on what. `attack_report` says how well
the scores tell members from others.

To examine a model that forgot, take the forgotten records as members and records that no model saw as
non-members. The same attack on the retrained model gives the value to compare with; it need not be 0.5, as the
forgotten records may be easier or harder than the others. These are diagnostics: an attack that fails proves
nothing about another attack. Pure functions.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import Floats, flags, share, shares
from lmeraser.experiments.metrics.base import Direction, Metric

_CLOSEST = 2.0**-24  # to 0 and 1: half the gap below 1 in float32, where a probability of 1 says no more than this
_SAME = 1e-9  # a standard deviation below this is rounding: logits are at most 17
_ENOUGH = 64  # reference models for a variance of each record's own (Carlini et al. 2022)


@dataclass(frozen=True, eq=False)
class Confidences:
    """Probabilities of the true class of n records.

    Attributes:
        target: by the attacked model, float64 [n].
        references: by reference models, float64 [models, n].
        seen: whether a reference model was trained on a record, bool [models, n].

    Raises:
        InputError: shapes differ, a number is no probability, or a record was seen by all reference models.
    """

    target: Floats
    references: Floats
    seen: NDArray[np.bool_]

    def __post_init__(self) -> None:
        target, references = shares(self.target, "target"), shares(self.references, "references", dimensions=2)
        if references.shape[1:] != target.shape:
            raise InputError(
                "Reference models answer for the same records as the attacked model.",
                got=f"shapes {references.shape} and {target.shape}",
            )
        seen = flags(self.seen, references.shape, "seen")
        if everywhere := int(seen.all(axis=0).sum()):
            raise InputError(
                "For every record there is a reference model that was not trained on it.",
                got=f"{everywhere} of {len(target)} records that all {len(references)} were trained on",
                next_step="train reference models without them, or leave these records out",
            )
        for name, value in (("target", target), ("references", references), ("seen", seen)):
            object.__setattr__(self, name, value)  # as what the annotations say, whatever was passed


def confidence(target: ArrayLike) -> Floats:
    """The probability of the true class as the score, float64 [n]: models are surer of what they saw.

    The attack of Yeom et al., "Privacy Risk in Machine Learning", CSF 2018, for cross entropy: a threshold on the
    loss is a threshold on this. It takes easy records for members.

    Args:
        target: probability of the true class by the attacked model, float [n].

    Raises:
        InputError: they are not probabilities.
    """
    return shares(target, "target")


def lira(records: Confidences, *, enough: int = _ENOUGH) -> Floats:
    """Offline LiRA: how much surer the attacked model is than models that did not see the record, float64 [n].

    The offline attack of Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022. A
    confidence p becomes log(p / (1 - p)), which is about normal over models; with mean m and standard deviation s
    over the reference models that were not trained on the record, the paper's score is the normal distribution
    function of (log(p / (1 - p)) - m) / s. Returned is the number before that
    function, which orders records alike and does not run into 1.

    The standard deviation is each record's own if every record has ``enough`` such models, otherwise one for all
    records: of the deviations from each record's mean. (The paper's code pools the records themselves, and scores
    by the normal *density*, which takes a model that is strangely unsure for one that saw the record.) A common
    one changes no order; where there is nothing to estimate it from, as with one model for each record, it is 1.

    Args:
        records: what models say.
        enough: reference models for a standard deviation of a record's own.

    Raises:
        InputError: a standard deviation of a record's own is 0, or is asked for from fewer than two models.
    """
    if enough < 2:
        raise InputError("A standard deviation of a record's own takes two models.", got=f"enough = {enough}")
    out = ~records.seen
    counts = out.sum(axis=0)
    logits = _logits(records.references)
    means = np.where(out, logits, 0).sum(axis=0) / counts
    squares = (np.where(out, logits - means, 0) ** 2).sum(axis=0)
    apart = _logits(records.target) - means
    scores: Floats = apart / (_own(squares, counts) if counts.min() >= enough else _common(squares, counts))
    return scores


def rmia(records: Confidences, population: Confidences, *, offline_a: float = 0.3, gamma: float = 1.0) -> Floats:
    """Offline RMIA: the share of a population that a record stands out against, float64 [n], from 0 to 1.

    Zarifzadeh, Liu and Shokri, "Low-Cost High-Power Membership Inference Attacks", ICML 2024 (arXiv 2312.03262).
    The score of x is the share of z in the population with

        (p(x | model) / p(x)) / (p(z | model) / p(z)) >= gamma

    where p(x) = ((1 + a) q + 1 - a) / 2 and q is the mean over the reference models that were not trained on x: an
    estimate of the mean over models that were and models that were not, for which a says how far the former lie
    above the latter. Defaults as in the authors' code (privacytrustlab/ml_privacy_meter:
    modules/mia/attacks/rmia.py). Works with one reference model.

    Args:
        records: what models say of the records in question.
        population: the same of other records, which the attacked model was not trained on.
        offline_a: a, from 0 to 1; larger the less models gain on what they see.
        gamma: how far a record must stand out; above 0.

    Raises:
        InputError: a or gamma is out of range, or p(x) is zero (a is 1 and so is every q zero).
    """
    offline_a = share(offline_a, "offline_a")
    if not 0 < gamma < np.inf:
        raise InputError("gamma is a positive number.", got=f"{gamma}")
    ratios = np.sort(_ratios(population, offline_a))
    # LR >= gamma without the division: a z of probability zero has every record stand out against it.
    below: NDArray[np.int64] = np.searchsorted(gamma * ratios, _ratios(records, offline_a), side="right")
    return below / len(ratios)


def mia_efficacy(retain: ArrayLike, unseen: ArrayLike, forget: ArrayLike) -> float:
    """MIA-efficacy: the share of forgotten records that a classifier takes for records never seen.

    The classifier tells retained from unseen records by the attacked model's confidence alone: scikit-learn's
    ``SVC(C=3, gamma="auto", kernel="rbf")`` (Jia et al., "Model Sparsity Can Simplify Machine Unlearning", NeurIPS
    2023; OPTML-Group/Unlearn-Sparse: evaluation/SVC_MIA.py). Range 0 to 1, towards the retrained model's value: 1
    is not "all forgotten", as retained records are also taken for unseen ones. Weak (Hayes et al., SaTML 2025); it
    is here to be compared with published tables.

    Args:
        retain: probability of the true class of retained records, float [n]; take a sample of them.
        unseen: of as many records that no model saw, float [n].
        forget: of the forgotten records, float [m].

    Raises:
        InputError: they are not probabilities, or there are not as many retained as unseen ones: the classifier
            would then favour the larger set.
    """
    from sklearn.svm import SVC

    seen, new = shares(retain, "retain"), shares(unseen, "unseen")
    if len(seen) != len(new):
        raise InputError(
            "The classifier is fitted on as many retained as unseen records.",
            got=f"{len(seen)} and {len(new)}",
            next_step="pass a sample of the larger set",
        )
    classifier = SVC(C=3, gamma="auto", kernel="rbf")
    classifier.fit(np.concatenate([seen, new])[:, None], np.repeat([1, 0], len(seen)))
    return float((classifier.predict(shares(forget, "forget")[:, None]) == 0).mean())


def _logits(probabilities: Floats) -> Floats:
    kept = np.clip(probabilities, _CLOSEST, 1 - _CLOSEST)
    logits: Floats = np.log(kept) - np.log1p(-kept)
    return logits


def _own(squares: Floats, counts: NDArray[np.int64]) -> Floats:
    """Standard deviation of each record, float64 [n], from the sums of its squared deviations."""
    deviations: Floats = np.sqrt(squares / (counts - 1))
    if alike := int((deviations < _SAME).sum()):
        raise InputError(
            "Reference models differ in what they say of a record.",
            got=f"{alike} of {len(counts)} records of which all say the same",
            next_step="pass a larger 'enough', so that one standard deviation serves all records",
        )
    return deviations


def _common(squares: Floats, counts: NDArray[np.int64]) -> float:
    """One standard deviation for all records; 1 where there is nothing to estimate it from."""
    deviation = math.sqrt(squares.sum() / max((counts - 1).sum(), 1))
    return deviation if deviation >= _SAME else 1.0


def _ratios(records: Confidences, offline_a: float) -> Floats:
    """p(x | model) / p(x), float64 [n]."""
    out = ~records.seen
    mean_out = np.where(out, records.references, 0).sum(axis=0) / out.sum(axis=0)
    expected = ((1 + offline_a) * mean_out + 1 - offline_a) / 2
    if not expected.all():
        raise InputError(
            "RMIA divides by p(x), which is above 0.",
            got=f"{int((expected == 0).sum())} records to which no reference model gives any probability",
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
