"""Partitions that look at no features: one cluster for all, or a cluster by the hash of the record id.

Both are fitted on nothing, so deleting a record never changes another record's place. There is no reason to prefer
one cluster for a new image, so all of them vote (the mean of their probabilities); the published code sends a test
image to a pseudo-random head instead.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lmeraser.determinism import below
from lmeraser.partitions.base import Features, Fitted, Partition, Router


class HashedPartition(Partition):
    """``clusters`` clusters by hash of the record id; ``single`` is the case of one."""

    needs_features = False

    def sample(self, ids: Sequence[str]) -> list[str]:
        """No record shapes the partition."""
        return []

    def fit(self, features: Features) -> Fitted:
        """Nothing."""
        return {"prototypes": np.zeros((0, 0), np.float32)}

    def places(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """The hash of the id."""
        bounds = (self._settings.clusters or 1,)
        return [self._place(below(self._seed, "partition", bounds, i)[0], i) for i in ids]

    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """All clusters vote."""
        every = np.arange(len(paths), dtype=np.int64)
        return lambda features: np.tile(every, (len(features), 1))
