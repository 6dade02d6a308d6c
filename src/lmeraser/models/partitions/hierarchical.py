"""Adaptive clustering by features (paper, Algorithms 1 and 2), and a balanced variant of it.

A sample of the records is clustered bottom-up (scipy's linkage, Muellner's algorithm) and the dendrogram is cut:
at a distance threshold (the paper), or where it gives a wanted number of clusters or a wanted expected share. With
``max_share`` clusters that hold more than that share of the sample are split further, top-down. A cluster's
prototype is the mean feature of its sampled members. Every other record, and every image to be classified, goes to
the nearest prototype. If the partition is fitted on public class vectors instead, no private record shapes it.

The sample consists of the records with the smallest hashes: deleting a record outside it leaves the partition
unchanged, and deleting a sampled record lets exactly one other record in. Distances are computed pair by pair in
float64 (scipy's `pdist` and `cdist`, no BLAS), so they do not depend on chunks or threads. The metric ``cosine``
L2-normalises features first: the Euclidean distance between unit vectors orders pairs as the cosine distance does
(`core.nearest` avoids most of these computations without changing an answer). Shares are compared as exact
fractions of the decimal numbers in the settings, so a cut at the limit does not depend on rounding.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.partition import PartitionConfig
from lmeraser.core.nearest import nearest
from lmeraser.core.seeding import coin
from lmeraser.models.partitions.base import (
    Clusters,
    Features,
    Fitted,
    Partition,
    Router,
    padded,
    positions_by_root,
)

_CHUNK = 4096


class HierCluster(Partition):
    """Hierarchical clustering of a hashed sample (or of class vectors), nearest prototype for the rest."""

    needs_features = True

    def sample(self, ids: Sequence[str]) -> list[str]:
        """The ``sample_size`` ids with the smallest hashes, smallest first (Algorithm 1, line 1)."""
        if self._settings.public:
            return []
        keyed = ((coin(self._seed, "sample", record_id), record_id) for record_id in ids)
        return [record_id for _, record_id in heapq.nsmallest(self._settings.sample_size, keyed)]

    def fit(self, features: Features) -> Fitted:
        """Cluster the sample and average each cluster (Algorithms 1 and 2)."""
        points = unit_rows(centred(features)) if self._settings.public else self._metric(features)
        if len(points) == 0:
            empty = np.zeros((0, features.shape[1]), np.float32)
            return {"prototypes": empty, "sample_clusters": np.zeros(0, np.int64)}
        clusters = _by_first_appearance(_cut(points, self._settings))
        means = np.stack([points[clusters == number].mean(axis=0) for number in range(clusters.max() + 1)])
        if self._settings.public:
            means = unit_rows(means)  # a short vector would be near to everything
            clusters = np.zeros(0, np.int64)
        return {"prototypes": means.astype(np.float32), "sample_clusters": clusters}

    def sample_trie_keys(self, fitted: Fitted, ids: Sequence[str]) -> list[str]:
        """The dendrogram's cluster of each sampled record."""
        return [self._trie_key(n, i) for n, i in zip(fitted["sample_clusters"].tolist(), ids, strict=True)]

    def trie_keys(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """The nearest prototype; the first of several at the same distance."""
        roots = self._nearest(fitted["prototypes"].astype(np.float64), features)
        return [self._trie_key(root, record_id) for root, record_id in zip(roots.tolist(), ids, strict=True)]

    def for_routing(self, fitted: Fitted) -> Fitted:
        """The prototypes; not which sampled record is in which cluster."""
        return {"prototypes": fitted["prototypes"]}

    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """The nearest prototype with members; if its cluster is split, all of its parts vote."""
        by_root = positions_by_root(paths)
        prototypes = fitted["prototypes"][list(by_root)].astype(np.float64)
        positions = padded(list(by_root.values()))
        return lambda features, pixels: positions[self._nearest(prototypes, features)]

    def _nearest(self, prototypes: NDArray[np.float64], features: Features) -> Clusters:
        found = np.empty(len(features), dtype=np.int64)
        for start in range(0, len(features), _CHUNK):
            rows = self._metric(features[start : start + _CHUNK])
            found[start : start + _CHUNK] = nearest(rows, prototypes)
        return found

    def _metric(self, features: Features) -> NDArray[np.float64]:
        points = features.astype(np.float64)
        return points if self._settings.metric == "euclidean" else unit_rows(points)


def unit_rows(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows scaled to length 1."""
    # Row by row: a matrix product would let the number of rows choose the order of summation.
    norms = np.array([np.sqrt(np.square(row).sum()) for row in points]).reshape(-1, 1)
    unit: NDArray[np.float64] = points / np.maximum(norms, 1e-12)
    return unit


def centred(vectors: Features) -> NDArray[np.float64]:
    """Public class vectors minus their mean: only differences between classes say where a record belongs."""
    points = vectors.astype(np.float64)
    differences: NDArray[np.float64] = points - points.mean(axis=0)
    return differences


def _cut(points: NDArray[np.float64], settings: PartitionConfig) -> NDArray[np.int64]:
    """Cut the dendrogram: the cluster of each point, numbered arbitrarily."""
    from scipy.cluster.hierarchy import linkage

    if len(points) == 1:
        return np.zeros(1, dtype=np.int64)
    tree = linkage(points, method=settings.linkage, metric="euclidean")
    share_limit = Fraction(1) if settings.max_share is None else _exact(settings.max_share)
    limit = max(1, int(share_limit * len(points)))  # rounded down
    if settings.threshold is not None:  # Algorithm 2: merge until the smallest distance exceeds t
        return _top_down(tree, settings.threshold, limit)
    if settings.expected_share is not None:
        share = _exact(settings.expected_share)
        return _highest(tree, limit, lambda flat: expected_share(flat) <= share)
    wanted = min(settings.clusters or 1, len(points))
    return _highest(tree, limit, lambda flat: flat.max() + 1 >= wanted)


def expected_share(labels: NDArray[np.int64]) -> Fraction:
    """Expected share of the points in the cluster of a uniformly drawn one: sum n_k^2 / N^2, exactly.

    Args:
        labels: cluster of each of N points, int64 [N].
    """
    sizes = np.bincount(labels).tolist()
    return Fraction(sum(size**2 for size in sizes), len(labels) ** 2)


def _exact(share: float) -> Fraction:
    """The decimal number that the user wrote, not the binary fraction next to it: 0.05 is 1/20."""
    return Fraction(repr(share))


def _highest(
    tree: NDArray[np.float64], limit: int, accepted: Callable[[NDArray[np.int64]], bool]
) -> NDArray[np.int64]:
    """The cut at the largest accepted threshold; the lower the threshold, the more clusters there are."""
    heights = np.unique(tree[:, 2])
    low, high = -1, len(heights) - 1  # position -1 stands for a threshold below every height
    while low < high:
        middle = (low + high + 1) // 2
        if accepted(_top_down(tree, heights[middle], limit)):
            low = middle
        else:
            high = middle - 1
    return _top_down(tree, heights[low] if low >= 0 else -1.0, limit)


def _top_down(tree: NDArray[np.float64], threshold: float, limit: int) -> NDArray[np.int64]:
    """Split while a cluster is higher than the threshold or holds more than ``limit`` points."""
    count = len(tree) + 1
    flat = np.empty(count, dtype=np.int64)
    number = 0
    waiting = [2 * count - 2]
    while waiting:
        node = waiting.pop()
        left, right, height, size = tree[node - count] if node >= count else (0, 0, 0.0, 1)
        if node >= count and (height > threshold or size > limit):
            waiting += [int(left), int(right)]
            continue
        flat[_points_below(tree, node)] = number
        number += 1
    return flat


def _points_below(tree: NDArray[np.float64], node: int) -> list[int]:
    count = len(tree) + 1
    points = []
    waiting = [node]
    while waiting:
        below = waiting.pop()
        if below < count:
            points.append(below)
        else:
            waiting += [int(tree[below - count, 0]), int(tree[below - count, 1])]
    return points


def _by_first_appearance(labels: NDArray[np.int64]) -> Clusters:
    """Labels renumbered 0, 1, ... in the order in which they first appear."""
    _, first, inverse = np.unique(labels, return_index=True, return_inverse=True)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse]
