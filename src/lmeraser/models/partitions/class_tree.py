"""A tree over the backbone's public classes: no private record shapes it, and no cluster is larger than a limit.

The class vectors of the backbone's own public classifier are clustered bottom-up (Ward linkage of the centred unit
vectors). A record goes down this tree: at each node to the child whose mean class vector its feature is nearer to;
below a single class it is divided by hash. Its place is the whole way, so it depends on the record alone;
clusters are the shortest ways that at most ``max_records`` records share (`grouping`). Deleting a record
changes its own cluster, and rarely joins two small ones; there is no sample that it could hit.

Not in the paper, whose clusters depend on a private sample. Scalar products are summed row by row, so a place
does not depend on chunks or threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.models.partitions.base import Clusters, Features, Fitted, Partition, Pixels, Router, padded
from lmeraser.models.partitions.hierarchical import centred, unit_rows


class ClassTree(Partition):
    """Clusters of at most ``max_records`` records, by the way down a tree over public classes."""

    needs_features = True

    def sample(self, ids: Sequence[str]) -> list[str]:
        """No private record shapes the partition."""
        return []

    def fit(self, features: Features) -> Fitted:
        """The tree over class vectors, float32 [classes, d].

        Returns:
            ``directions``, float32 [nodes, d]: positive products go to child 1; ``children``, int64 [nodes, 2]: a
            node, or -1 for a single class. Node 0 is the root.
        """
        from scipy.cluster.hierarchy import linkage

        points = unit_rows(centred(features))
        count = len(points)
        tree = linkage(points, method="ward")
        sums = [*points]
        for left, right, *_ in tree:
            sums.append(sums[int(left)] + sums[int(right)])
        means = unit_rows(np.stack(sums))
        sides = tree[::-1, :2].astype(np.int64)  # the root first
        directions = means[sides[:, 1]] - means[sides[:, 0]]
        children = np.where(sides < count, -1, 2 * count - 2 - sides)
        return {"directions": directions.astype(np.float32), "children": children}

    def trie_keys(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """The way down the tree, then bits of the id's hash."""
        ways = [""] * len(ids)
        waiting = [(0, np.arange(len(ids)))]
        while waiting:
            node, rows = waiting.pop()
            right = _goes_right(features[rows], fitted["directions"][node])
            for side, chosen in enumerate((rows[~right], rows[right])):
                for row in chosen.tolist():
                    ways[row] += "01"[side]
                child = int(fitted["children"][node, side])
                if child >= 0 and len(chosen):
                    waiting.append((child, chosen))
        return [f"0/{way}{self._hash_bits(record_id)}" for way, record_id in zip(ways, ids, strict=True)]

    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """The cluster at the end of the way down; where a way has no cluster, the other side's."""
        under: dict[str, list[int]] = {"": []}  # clusters whose path begins with a way
        for position, path in enumerate(paths):
            bits = path.partition("/")[2]
            for length in range(len(bits) + 1):
                under.setdefault(bits[:length], []).append(position)

        def route(features: Features, pixels: Pixels) -> Clusters:
            votes: list[list[int]] = [[] for _ in features]
            waiting = [(0, "", np.arange(len(features)))]  # node, way, images
            while waiting:
                node, way, rows = waiting.pop()
                sides = [f"{way}{bit}" in under for bit in "01"]
                if node < 0 or not any(sides):  # below a single class all parts vote
                    for row in rows.tolist():
                        votes[row] = under[way]
                    continue
                right = _goes_right(features[rows], fitted["directions"][node])
                right |= not sides[0]
                right &= sides[1]
                for side, chosen in enumerate((rows[~right], rows[right])):
                    if len(chosen):
                        waiting.append((int(fitted["children"][node, side]), f"{way}{side}", chosen))
            return padded(votes)

        return route


def _goes_right(features: Features, direction: NDArray[np.float32]) -> NDArray[np.bool_]:
    """On which side of a node each feature lies, bool [n]."""
    right: NDArray[np.bool_] = (features.astype(np.float64) * direction.astype(np.float64)).sum(axis=1) > 0
    return right
