"""Partitions that look at no features: one cluster for all, or a cluster by the hash of the record id.

Both are fitted on nothing, so deleting a record never changes another record's cluster. With ``random`` there is
no reason to prefer one cluster for a new image, so all of them vote (the mean of their probabilities); the
published code sends a test image to a pseudo-random head instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.config import Config
from lmeraser.determinism import below
from lmeraser.partitions.base import Clusters, Features, Fitted, Partition


class HashedPartition(Partition):
    """``clusters`` clusters by hash of the record id; ``single`` is the case of one."""

    needs_features = False

    def __init__(self, config: Config) -> None:
        self._seed = config.seed
        self._clusters = config.partition.clusters or 1

    def sample(self, ids: Sequence[str]) -> list[str]:
        """No record shapes the partition."""
        return []

    def fit(self, features: Features) -> Fitted:
        """No prototypes."""
        return Fitted(np.zeros((0, 0), np.float32), np.zeros(0, np.int64))

    def assign(self, fitted: Fitted, ids: Sequence[str], features: Features) -> Clusters:
        """The hash of the id."""
        draws = [below(self._seed, "partition", (self._clusters,), record_id)[0] for record_id in ids]
        return np.array(draws, dtype=np.int64)

    def route(self, fitted: Fitted, features: Features, clusters: Sequence[int]) -> NDArray[np.int64]:
        """All clusters vote: [n, len(clusters)]."""
        return np.tile(np.arange(len(clusters), dtype=np.int64), (len(features), 1))
