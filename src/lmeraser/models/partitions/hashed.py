"""Partitions that look at no features: one cluster for all, or a cluster by the hash of the record id.

Both are fitted on nothing, so deleting a record never changes another record's place. There is no reason to prefer
one cluster for a new image, so all of them answer (``aggregation.route = "all"``). The paper's published code asks
one pseudo-random head instead. With ``"one"`` so does this: the cluster whose path has the largest hash with the
image's clean pixels (Thaler and Ravishankar, 1998), so that a cluster that vanishes moves no image but its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lmeraser.config.schema import Config
from lmeraser.core.seeding import below, coin
from lmeraser.models.partitions.base import Clusters, Features, Fitted, Partition, Pixels, Router


class HashedPartition(Partition):
    """``clusters`` clusters by hash of the record id; ``single`` is the case of one."""

    needs_features = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._route = config.aggregation.route

    def sample(self, ids: Sequence[str]) -> list[str]:
        """No record shapes the partition."""
        return []

    def fit(self, features: Features) -> Fitted:
        """Nothing."""
        return {"prototypes": np.zeros((0, 0), np.float32)}

    def trie_keys(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """The hash of the id."""
        bounds = (self._settings.clusters or 1,)
        return [self._place(below(self._seed, "partition", bounds, i)[0], i) for i in ids]

    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """All clusters, or one that the image draws."""
        if self._route == "all":
            every = np.arange(len(paths), dtype=np.int64)
            return lambda features, pixels: np.tile(every, (len(features), 1))

        def drawn(features: Features, pixels: Pixels) -> Clusters:
            images = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
            chosen = [max(range(len(paths)), key=lambda n: coin(self._seed, "route", paths[n], i)) for i in images]
            return np.array(chosen, dtype=np.int64)[:, None]

        return drawn
