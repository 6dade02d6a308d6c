"""A head that is solved for early is the one that would be solved for later, of the announced statistics alone."""

from __future__ import annotations

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import lmeraser.pipeline.early_head as early_head
from lmeraser.config.global_head import GlobalHeadConfig
from lmeraser.core.sufficient_statistics import SCALE, SufficientStatistics
from lmeraser.models.global_head import global_head, sums_digest
from lmeraser.pipeline.early_head import EarlyHead

SETTINGS = [
    GlobalHeadConfig(weight=1.0),
    GlobalHeadConfig(weight=1.0, penalty_rule="cross_validated", score="cosine"),
]


def statistics_of(seed: int, records: int = 40) -> SufficientStatistics:
    embeddings = np.random.default_rng(seed).integers(-3000, 3000, (records, 13)).astype(np.int16)
    embeddings[:, -1] = SCALE
    return SufficientStatistics.zero(13, 2).plus(embeddings, [number % 2 for number in range(records)])


def blas_threads() -> set[int]:
    return {library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas"}


@pytest.mark.parametrize("settings", SETTINGS, ids=["fixed", "cross-validated"])
def test_the_head_is_that_of_the_announced_statistics(settings: GlobalHeadConfig) -> None:
    statistics = statistics_of(0)
    before = blas_threads()
    with EarlyHead(settings, classes=2) as early:
        assert early.solution(statistics) is None
        early.announce(statistics)
        early.announce(statistics_of(1))
        found = early.solution(statistics.widened(2))
        assert early.solution(statistics_of(0)) is None, "others that are equal are not taken for them"
        assert blas_threads() == {1}
    assert found is not None
    assert found[0] == sums_digest(statistics, settings)
    assert found[1]["weight"].tobytes() == global_head(statistics, settings)["weight"].tobytes()
    assert blas_threads() == before
    assert early.solution(statistics) is None, "nothing is kept"


def test_classes_that_were_added_since_are_added(monkeypatch: pytest.MonkeyPatch) -> None:
    solved: list[SufficientStatistics] = []
    monkeypatch.setattr(early_head, "global_head", lambda statistics, _: solved.append(statistics))
    statistics = statistics_of(0)
    with EarlyHead(SETTINGS[0], classes=3) as early:
        early.announce(statistics)
    assert [each.moments.shape for each in solved] == [(13, 3)]


def test_what_goes_wrong_is_raised_where_the_head_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise np.linalg.LinAlgError("not positive definite")

    monkeypatch.setattr(early_head, "global_head", fail)
    statistics = statistics_of(0)
    with EarlyHead(SETTINGS[0], classes=2) as early:
        early.announce(statistics)
        with pytest.raises(np.linalg.LinAlgError):
            early.solution(statistics)


def test_no_head_is_solved_for_without_records() -> None:
    nobody = SufficientStatistics.zero(13, 2)
    with EarlyHead(SETTINGS[0], classes=2) as early:
        early.announce(nobody)
        assert early.solution(nobody) is None
