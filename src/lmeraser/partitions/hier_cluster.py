"""Adaptive clustering by features (paper, Algorithms 1 and 2).

A sample of the records is clustered bottom-up (scipy's linkage, Muellner's algorithm) and the dendrogram is cut at
a distance threshold or at a wanted number of clusters. A cluster's prototype is the mean feature of its sampled
members. Every other record, and every image to be classified, goes to the nearest prototype.

The sample is the records with the smallest hashes, so deleting a record outside it leaves the partition alone, and
deleting a sampled one lets exactly one other in. Distances are computed pair by pair in float64 (scipy's `pdist`
and `cdist`, no BLAS), so they do not depend on chunks or threads. The metric ``cosine`` L2-normalises features
first: the Euclidean distance between unit vectors, which orders pairs as the cosine distance does.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.config import Config, PartitionConfig
from lmeraser.determinism import coin
from lmeraser.partitions.base import Clusters, Features, Fitted, Partition

_CHUNK = 4096


class HierCluster(Partition):
    """Hierarchical clustering of a hashed sample, nearest prototype for the rest."""

    needs_features = True

    def __init__(self, config: Config) -> None:
        self._seed = config.seed
        self._settings = config.partition

    def sample(self, ids: Sequence[str]) -> list[str]:
        """The ``sample_size`` ids with the smallest hashes, smallest first (Algorithm 1, line 1)."""
        keyed = ((coin(self._seed, "sample", record_id), record_id) for record_id in ids)
        return [record_id for _, record_id in heapq.nsmallest(self._settings.sample_size, keyed)]

    def fit(self, features: Features) -> Fitted:
        """Cluster the sample and take means (Algorithms 1 and 2)."""
        points = self._metric(features)
        if len(points) == 0:
            return Fitted(np.zeros((0, features.shape[1]), np.float32), np.zeros(0, np.int64))
        clusters = _by_first_appearance(_cut(points, self._settings))
        means = [points[clusters == number].mean(axis=0) for number in range(clusters.max() + 1)]
        return Fitted(np.stack(means).astype(np.float32), clusters)

    def assign(self, fitted: Fitted, ids: Sequence[str], features: Features) -> Clusters:
        """The nearest prototype; the first of equally near ones."""
        return self._nearest(fitted.prototypes, features)

    def route(self, fitted: Fitted, features: Features, clusters: Sequence[int]) -> NDArray[np.int64]:
        """The nearest prototype among clusters with members: [n, 1]."""
        return self._nearest(fitted.prototypes[list(clusters)], features)[:, None]

    def _nearest(self, prototypes: NDArray[np.float32], features: Features) -> Clusters:
        from scipy.spatial.distance import cdist

        nearest = np.empty(len(features), dtype=np.int64)
        for start in range(0, len(features), _CHUNK):
            rows = self._metric(features[start : start + _CHUNK])
            nearest[start : start + _CHUNK] = cdist(rows, prototypes.astype(np.float64)).argmin(axis=1)
        return nearest

    def _metric(self, features: Features) -> NDArray[np.float64]:
        points = features.astype(np.float64)
        if self._settings.metric == "euclidean":
            return points
        # Row by row: a matrix product would let the number of rows choose the order of summation.
        norms = np.array([np.sqrt(np.square(row).sum()) for row in points]).reshape(-1, 1)
        unit: NDArray[np.float64] = points / np.maximum(norms, 1e-12)
        return unit


def _cut(points: NDArray[np.float64], settings: PartitionConfig) -> NDArray[np.int64]:
    """Flat clusters of the sample, numbered arbitrarily from 1."""
    from scipy.cluster.hierarchy import fcluster, linkage

    if len(points) == 1:
        return np.ones(1, dtype=np.int64)
    tree = linkage(points, method=settings.linkage, metric="euclidean")
    if settings.threshold is not None:  # Algorithm 2: merge until the smallest distance exceeds t
        flat = fcluster(tree, settings.threshold, criterion="distance")
    else:
        flat = fcluster(tree, settings.clusters, criterion="maxclust")
    return np.asarray(flat, dtype=np.int64)


def _by_first_appearance(labels: NDArray[np.int64]) -> Clusters:
    """Labels renumbered 0, 1, ... in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
