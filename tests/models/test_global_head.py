"""The global head as the settings say."""

from __future__ import annotations

import numpy as np
import pytest

from lmeraser.config.schema import parse
from lmeraser.core.lda import Score, solve, solve_cross_validated
from lmeraser.core.sufficient_statistics import SufficientStatistics, embedding, quantize
from lmeraser.models.global_head import global_head


def statistics_of_noise() -> SufficientStatistics:
    vectors = np.random.default_rng(0).standard_normal((30, 1, 6)).astype(np.float32)
    return SufficientStatistics.zero(7, 3).plus(quantize(embedding(vectors)), [n % 3 for n in range(30)])


def test_the_rule_decides_which_penalty_is_used() -> None:
    statistics = statistics_of_noise()
    fixed = parse({"global_head": {"penalty": 2.0}}).global_head
    chosen = parse({"global_head": {"penalty_rule": "cross_validated"}}).global_head
    assert np.array_equal(global_head(statistics, fixed)["weight"], solve(statistics, 2.0)["weight"])
    expected = solve_cross_validated(statistics)["weight"]
    assert np.array_equal(global_head(statistics, chosen)["weight"], expected)


@pytest.mark.parametrize("score", ["cosine", "blend"])
def test_the_score_is_that_of_the_settings_with_either_penalty(score: Score) -> None:
    statistics = statistics_of_noise()
    fixed = parse({"global_head": {"penalty": 2.0, "score": score}}).global_head
    chosen = parse({"global_head": {"penalty_rule": "cross_validated", "score": score}}).global_head
    expected = solve(statistics, 2.0, score)["weight"]
    assert np.array_equal(global_head(statistics, fixed)["weight"], expected)
    expected = solve_cross_validated(statistics, score)["weight"]
    assert np.array_equal(global_head(statistics, chosen)["weight"], expected)
