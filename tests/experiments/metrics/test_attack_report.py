"""Against numbers worked out by hand, against all thresholds tried one by one, and against simulated records."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu, norm

from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import Floats
from lmeraser.experiments.metrics.attack_report import attack_report, auc_interval


def tied(seed: int, members: int, others: int) -> tuple[Floats, Any]:
    """Scores of which many are equal, and who is a member."""
    coins = np.random.default_rng(seed)
    truth = coins.permutation(np.arange(members + others) < members)
    return np.where(truth, 0.5, 0.0) + coins.integers(0, 6, members + others) / 4, truth


def test_areas_and_shares_are_those_counted_by_hand() -> None:
    """Members 4, 3, 1 and others 3, 2, 0: of 9 pairs, 6 are won (4: 3, 3: 2, 1: 1) and one is a tie."""
    report = attack_report([4, 3, 1, 3, 2, 0], [True, True, True, False, False, False])
    assert report.auc == pytest.approx(6.5 / 9)
    assert report.balanced_accuracy == pytest.approx((2 / 3 + 2 / 3) / 2)  # above 2: two members and one other
    assert (report.members, report.non_members) == (3, 3)
    assert report.auc_low < report.auc < report.auc_high


def test_members_that_stand_apart_and_members_that_hide_the_other_way_round() -> None:
    scores, members = np.arange(2000.0), np.arange(2000) >= 1000
    report = attack_report(scores, members)
    assert (report.auc, report.balanced_accuracy) == (1, 1)
    assert (report.tpr_at_1_percent, report.tpr_at_1_per_mille, report.notes) == (1, 1, ())
    upside_down = attack_report(-scores, members)
    assert (upside_down.auc, upside_down.balanced_accuracy) == (0, 0.5)
    assert upside_down.tpr_at_1_percent == 0
    assert upside_down.auc_high < 0.01, "far from 0.5, and it shows"


def test_scores_that_say_nothing() -> None:
    report = attack_report(np.zeros(400), np.arange(400) % 2 == 0)
    assert (report.auc, report.balanced_accuracy, report.tpr_at_1_percent) == (0.5, 0.5, 0.0)
    assert report.auc_low < 0.5 < report.auc_high


def test_a_rate_that_cannot_be_resolved_is_none_and_says_why() -> None:
    def rates(others: int) -> Any:
        report = attack_report(np.arange(others + 5.0), np.arange(others + 5) >= others)
        return report.tpr_at_1_percent, report.tpr_at_1_per_mille, report.notes

    assert rates(99) == (
        None,
        None,
        (
            "a false positive rate of 1.0% needs 100 non-members; there are 99",
            "a false positive rate of 0.1% needs 1,000 non-members; there are 99",
        ),
    )
    assert rates(100)[:2] == (1.0, None)
    assert rates(999)[:2] == (1.0, None)
    assert rates(1000) == (1.0, 1.0, ())


def test_at_1_percent_one_of_100_others_may_be_passed() -> None:
    """Others 0 to 99; members at 99.5 (above all), 98.5 (above all but one) and 97.5 (above all but two)."""
    scores = [*range(100), 99.5, 98.5, 97.5]
    assert attack_report(scores, [False] * 100 + [True] * 3).tpr_at_1_percent == pytest.approx(2 / 3)


def test_points_within_a_straight_piece_of_the_curve_count() -> None:
    """Ten equal steps of 0.5 % of the others and 10 % of the members each: at 1 % it is the second of them."""
    scores = np.repeat(np.arange(10.0), 11)
    members = np.tile(np.arange(11) < 10, 10)
    report = attack_report(np.concatenate([scores, np.full(190, -1.0)]), [*members, *[False] * 190])
    assert report.tpr_at_1_percent == pytest.approx(0.2)


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(1, 30))
def test_auc_and_accuracy_are_those_of_all_pairs_and_thresholds(seed: int, members: int, others: int) -> None:
    scores, truth = tied(seed, members, others)
    report = attack_report(scores, truth)
    wins = scores[truth][:, None] - scores[~truth]
    assert report.auc == pytest.approx(((wins > 0) + (wins == 0) / 2).mean())
    assert report.auc == pytest.approx(mannwhitneyu(scores[truth], scores[~truth]).statistic / wins.size)
    tried = [((scores[truth] >= bar).mean() + (scores[~truth] < bar).mean()) / 2 for bar in [*scores, math.inf]]
    assert report.balanced_accuracy == pytest.approx(max(tried))


@given(st.integers(0, 10**6), st.integers(1, 30), st.integers(100, 250))
def test_rates_are_those_of_all_thresholds(seed: int, members: int, others: int) -> None:
    scores, truth = tied(seed, members, others)
    passed = [(int((scores[~truth] >= bar).sum()), (scores[truth] >= bar).mean()) for bar in [*scores, math.inf]]
    expected = max(rate for wrong, rate in passed if wrong * 100 <= others)
    assert attack_report(scores, truth).tpr_at_1_percent == pytest.approx(expected)


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 120))
def test_neither_order_nor_scale_of_scores_matters(seed: int, members: int, others: int) -> None:
    scores, truth = tied(seed, members, others)
    report = attack_report(scores, truth)
    order = np.random.default_rng(seed).permutation(len(scores))
    assert attack_report(scores[order], truth[order]) == report
    assert attack_report(np.exp(3 * scores) - 7, truth) == report


@given(st.integers(0, 10**6), st.integers(1, 20), st.integers(1, 20))
def test_turning_scores_around_turns_the_auc_around(seed: int, members: int, others: int) -> None:
    scores, truth = tied(seed, members, others)
    one, other = attack_report(scores, truth), attack_report(-scores, truth)
    assert one.auc == pytest.approx(1 - other.auc)
    assert one.auc_low == pytest.approx(1 - other.auc_high, abs=1e-9)


@pytest.mark.parametrize(
    ("scores", "members", "message"),
    [
        ([1.0, 2.0], [True, True], "2 members, 0 non-members"),
        ([1.0, 2.0], [False, False], "0 members, 2 non-members"),
        ([1.0, math.nan], [True, False], "finite"),
        ([1.0, math.inf], [True, False], "finite"),
        ([1.0, 2.0], [1, 0], "members is not a boolean array"),
        ([1.0, 2.0], [True], "members is not a boolean array"),
        ([], [], "a non-empty"),
    ],
)
def test_an_attack_needs_scores_of_both_kinds(scores: Any, members: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attack_report(scores, members)


def variance(auc: float, members: int, others: int) -> float:
    """Of Hanley and McNeil, as they write it, with Newcombe's count for both."""
    count = (members + others) / 2
    first, second = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    spread = auc * (1 - auc) + (count - 1) * (first - auc**2) + (count - 1) * (second - auc**2)
    return spread / (members * others)


@given(st.floats(0.001, 0.999), st.integers(1, 5000), st.integers(1, 5000), st.floats(0.5, 0.999))
def test_ends_of_the_interval_solve_its_equation(auc: float, members: int, others: int, confidence: float) -> None:
    low, high = auc_interval(auc, members, others, confidence=confidence)
    assume(low > 1e-9)
    assume(high < 1 - 1e-9)
    width = norm.ppf((1 + confidence) / 2)
    assert auc - low == pytest.approx(width * math.sqrt(variance(low, members, others)), rel=1e-4)
    assert high - auc == pytest.approx(width * math.sqrt(variance(high, members, others)), rel=1e-4)


def test_one_record_of_each_kind_by_hand() -> None:
    """With N = 0 the variance is t (1 - t), and of AUC 1 the lower end solves (1 - t)^2 = z^2 t (1 - t)."""
    low, high = auc_interval(1.0, 1, 1)
    assert low == pytest.approx(1 / (1 + norm.ppf(0.975) ** 2))
    assert high == 1
    assert auc_interval(0.0, 1, 1) == pytest.approx((0, 1 - low))


@given(st.floats(0, 1), st.integers(1, 10**6), st.integers(1, 10**6))
def test_the_interval_holds_the_auc_and_keeps_within_0_and_1(auc: float, members: int, others: int) -> None:
    low, high = auc_interval(auc, members, others)
    assert 0 <= low <= auc <= high <= 1
    assert low < high, "even where the AUC is 0 or 1"
    wider_low, wider_high = auc_interval(auc, members, others, confidence=0.99)
    assert wider_low <= low
    assert high <= wider_high


@pytest.mark.parametrize(("shift", "members", "others"), [(0.0, 20, 20), (1.0, 20, 60), (2.0, 30, 30)])
def test_the_interval_holds_the_truth_as_often_as_it_says(shift: float, members: int, others: int) -> None:
    coins = np.random.default_rng(0)
    truth = norm.cdf(shift / math.sqrt(2))  # of two normal distributions so far apart
    runs = 400
    flags = np.arange(members + others) < members
    held = 0
    for _ in range(runs):
        report = attack_report(coins.standard_normal(members + others) + shift * flags, flags)
        held += report.auc_low <= truth <= report.auc_high
    assert held / runs == pytest.approx(0.95, abs=4 * math.sqrt(0.95 * 0.05 / runs))


@pytest.mark.parametrize(
    "arguments",
    [
        (-0.1, 5, 5, 0.95),
        (math.nan, 5, 5, 0.95),
        (0.5, 0, 5, 0.95),
        (0.5, 5, 5, 1e-9),
        (0.5, 5, 5, 1.0),
        (0.5, 5, 5, 95.0),
    ],
)
def test_an_interval_of_nothing_is_refused(arguments: Any) -> None:
    *values, confidence = arguments
    with pytest.raises(InputError):
        auc_interval(*values, confidence=confidence)


def test_a_share_that_so_few_records_cannot_show_is_null_in_json() -> None:
    report = attack_report([1.0, 0.0], [True, False])
    assert report.to_json()["auc"] == 1.0
    assert report.to_json()["tpr_at_1_percent"] is None
