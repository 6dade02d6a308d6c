"""Partitions that use no features: one cluster for all records, or a cluster by the hash of the record id.

Both are fitted on nothing, so deleting a record never changes another record's trie key. No cluster suits a new
image better than another, so by default all of them vote (``aggregation.route = "all"``). The paper's published
code asks one pseudo-random head instead; ``"one"`` does the same: it takes the cluster whose path has the largest
hash together with the image's clean pixels (rendezvous hashing; Thaler and Ravishankar, 1998), so a cluster that
disappears moves only the images that were routed to it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from lmeraser.config.schema import Config
from lmeraser.core.seeding import below, coin
from lmeraser.models.partitions.base import Clusters, Features, Fitted, Partition, Pixels, Router


class HashedPartition(Partition):
    """``clusters`` clusters by hash of the record id; the method ``single`` is the case of one."""

    needs_features = False

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        self._route = config.aggregation.route

    def sample(self, ids: Sequence[str]) -> list[str]:
        """Empty: the partition is fitted on no record."""
        return []

    def fit(self, features: Features) -> Fitted:
        """Nothing to fit: no prototypes."""
        return {"prototypes": np.zeros((0, 0), np.float32)}

    def trie_keys(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """The hash of the record id, modulo the number of clusters."""
        clusters = self._settings.clusters or 1
        if clusters == 1:
            return [self._trie_key(0, i) for i in ids]
        return [self._trie_key(below(self._seed, "partition", (clusters,), i)[0], i) for i in ids]

    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """All clusters, or one drawn by the image's pixels."""
        if self._route == "all":
            all_clusters = np.arange(len(paths), dtype=np.int64)
            return lambda features, pixels: np.tile(all_clusters, (len(features), 1))

        def route_by_pixels(features: Features, pixels: Pixels) -> Clusters:
            images = [hashlib.sha256(image.tobytes()).hexdigest() for image in pixels]
            chosen = [max(range(len(paths)), key=lambda n: coin(self._seed, "route", paths[n], i)) for i in images]
            return np.array(chosen, dtype=np.int64)[:, None]

        return route_by_pixels
