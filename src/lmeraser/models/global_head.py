"""The global head of sufficient statistics, as the settings say: for training and for quarantine."""

from __future__ import annotations

from lmeraser.config.global_head import GlobalHeadConfig
from lmeraser.core.digests import Digest
from lmeraser.core.lda import solve, solve_cross_validated
from lmeraser.core.sufficient_statistics import SufficientStatistics
from lmeraser.core.tensors import Array


def global_head(statistics: SufficientStatistics, settings: GlobalHeadConfig) -> dict[str, Array]:
    """The global head of at least one record; as `core.lda.solve`."""
    if settings.penalty_rule == "cross_validated":
        return solve_cross_validated(statistics, settings.score)
    return solve(statistics, settings.penalty, settings.score)


def sums_digest(statistics: SufficientStatistics, settings: GlobalHeadConfig) -> Digest:
    """The digest by which a head with these settings refers to its statistics."""
    return statistics.digest if settings.penalty_rule == "fixed" else statistics.packed_digest
