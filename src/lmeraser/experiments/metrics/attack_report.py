"""Quality of a membership attack: how well its scores separate members from non-members.

Compare every number with that of the same attack on the retrained model. An AUC far below 0.5 is a failure too:
forgotten records that look *less* like members than unseen records have been marked, and the inverted attack finds
them. Pure functions.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from numpy.typing import ArrayLike

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import Floats, check_confidence, check_finite, check_flags, check_share
from lmeraser.experiments.metrics.base import Direction, Metric


@dataclass(frozen=True)
class AttackReport:
    """How well scores separate members from non-members.

    Attributes:
        auc: probability that a member's score is above a non-member's, ties counting half.
        auc_low: lower end of its confidence interval, see `auc_interval`.
        auc_high: upper end.
        confidence: confidence level of that interval.
        tpr_at_1_percent: share of members identified while at most 1 % of non-members are misclassified as
            members; None for fewer than 100 non-members.
        tpr_at_1_per_mille: the same at 0.1 %; None for fewer than 1,000 non-members.
        balanced_accuracy: mean of the shares of correctly classified members and non-members, at the best
            threshold for these very records: at least 0.5, and above it by chance for small sets.
        members: number of members.
        non_members: number of non-members.
        notes: reasons for numbers that are None.
    """

    auc: float
    auc_low: float
    auc_high: float
    confidence: float
    tpr_at_1_percent: float | None
    tpr_at_1_per_mille: float | None
    balanced_accuracy: float
    members: int
    non_members: int
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def attack_report(scores: ArrayLike, members: ArrayLike, *, confidence: float = 0.95) -> AttackReport:
    """Evaluate how well ``scores`` separate members from non-members.

    The true positive rate at 0.1 % false positives (Carlini et al., IEEE S&P 2022) is taken at the best threshold
    that at most one in a thousand non-members exceeds. With fewer than 1,000 non-members this would be a threshold
    that none exceeds: the rate at 0 %, decided by the single largest score. It is None then, with a note.

    Args:
        scores: one score per record, higher: more likely a member; float [n].
        members: mask of the members, bool [n].
        confidence: confidence level of the interval.

    Raises:
        InputError: scores are not finite, or there are no members or no non-members.
    """
    from sklearn.metrics import auc, roc_curve

    checked = check_finite(scores, "scores")
    truth = check_flags(members, checked.shape, "members")
    inside = int(truth.sum())
    outside = len(truth) - inside
    if not inside or not outside:
        raise InputError(
            "The attack needs members and non-members", got=f"{inside} members, {outside} non-members"
        )
    # drop_intermediate omits points within straight segments of the curve: rates would be underestimated.
    false, true, _ = roc_curve(truth, checked, drop_intermediate=False)
    area = float(auc(false, true))
    low, high = auc_interval(area, inside, outside, confidence=confidence)
    rates = {level: _rate(false, true, level, outside) for level in (0.01, 0.001)}
    return AttackReport(
        auc=area,
        auc_low=low,
        auc_high=high,
        confidence=confidence,
        tpr_at_1_percent=rates[0.01],
        tpr_at_1_per_mille=rates[0.001],
        balanced_accuracy=float((1 + (true - false).max()) / 2),
        members=inside,
        non_members=outside,
        notes=tuple(
            f"a false positive rate of {level:.1%} needs {round(1 / level):,} non-members; there are {outside:,}"
            for level, rate in rates.items()
            if rate is None
        ),
    )


def auc_interval(auc: float, members: int, non_members: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Confidence interval of an AUC, from the AUC and the numbers of members and non-members.

    Newcombe, "Confidence intervals for an effect size measure based on the Mann-Whitney statistic. Part 2",
    Statistics in Medicine 25, 2006, method 5: the values t with |auc - t| <= z sqrt(V(t)), where

        V(t) = t (1 - t) (1 + N ((1 - t) / (2 - t) + t / (1 + t))) / (members * non-members)

    is the variance of Hanley and McNeil (1982) with N = (members + non-members) / 2 - 1 in the place of both its
    counts. It is deterministic, stays within 0 and 1, and has positive width even for an AUC of 0 or 1.

    Args:
        auc: the AUC, from 0 to 1.
        members: number of members, at least 1.
        non_members: number of non-members, at least 1.
        confidence: confidence level, from 0.5 to 0.9999.

    Raises:
        InputError: an argument is out of range.
    """
    from scipy.special import ndtri

    area = check_share(auc, "auc")
    if min(members, non_members) < 1:
        raise InputError(
            "An AUC needs members and non-members", got=f"{members} members, {non_members} non-members"
        )
    width = float(ndtri((1 + check_confidence(confidence)) / 2))
    return _lowest(area, members, non_members, width), 1 - _lowest(1 - area, members, non_members, width)


def _lowest(area: float, members: int, non_members: int, width: float) -> float:
    """The smallest t with area - t <= width * sqrt(V(t)); as V(t) = V(1 - t), the largest is its mirror image."""
    from scipy.optimize import brentq

    if area == 0:
        return 0.0
    mean = (members + non_members) / 2 - 1

    def over(t: float) -> float:
        factor = 1 + mean * ((1 - t) / (2 - t) + t / (1 + t))
        return area - t - width * math.sqrt(t * (1 - t) * factor / (members * non_members))

    # Below 1: V vanishes there, and t = 1 would be a root that is not an end of the interval.
    return float(brentq(over, 0.0, min(area, 1 - 1e-12)))


def _rate(false: Floats, true: Floats, level: float, non_members: int) -> float | None:
    if non_members < round(1 / level):
        return None
    return float(true[false <= level + 1e-12].max())  # 3 of 300 are 1 %, whatever the division says


_CARLINI = 'Carlini et al., "Membership Inference Attacks From First Principles", IEEE S&P 2022'

METRICS = (
    Metric(
        key="auc",
        name="AUC of the attack",
        definition="probability that a member's score is above a non-member's, ties counting half",
        low=0.0,
        high=1.0,
        direction=Direction.RETRAINED,
        source='Hanley and McNeil, "The meaning and use of the area under a ROC curve", Radiology 143, 1982',
    ),
    Metric(
        key="tpr_at_1_percent",
        name="TPR at 1 % FPR",
        definition="share of members identified while at most 1 % of non-members are misclassified as members",
        low=0.0,
        high=1.0,
        direction=Direction.RETRAINED,
        source=_CARLINI,
    ),
    Metric(
        key="tpr_at_1_per_mille",
        name="TPR at 0.1 % FPR",
        definition="share of members identified while at most 0.1 % of non-members are misclassified as members",
        low=0.0,
        high=1.0,
        direction=Direction.RETRAINED,
        source=_CARLINI,
    ),
    Metric(
        key="balanced_accuracy",
        name="balanced accuracy of the attack",
        definition="mean share of correctly classified members and non-members, at the best threshold",
        low=0.5,
        high=1.0,
        direction=Direction.RETRAINED,
        source=_CARLINI,
    ),
)
