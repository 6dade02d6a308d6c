"""A tree over the backbone's public classes: no private record shapes it, and clusters have a maximum size.

The class vectors of the backbone's own public classifier are clustered bottom-up (Ward linkage of the centred unit
vectors). A record descends this tree: at each node it goes to the child whose mean class vector is nearer to the
record's feature; below a single class it goes on by bits of its hash. The whole descent is the record's trie key,
so it depends on the record alone. Clusters are the shortest prefixes that at most ``max_records`` records share
(`trie`). Deleting a record changes its own cluster, and occasionally merges two small ones; there is no sample to
hit.

Not in the paper, whose clusters depend on a private sample. Scalar products are summed row by row, so a trie key
does not depend on chunks or threads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.models.partitions.base import Clusters, Features, Fitted, Partition, Pixels, Router, padded
from lmeraser.models.partitions.hierarchical import centred, unit_rows


class ClassTree(Partition):
    """Clusters of at most ``max_records`` records, by descent through a tree over public classes."""

    needs_features = True

    def sample(self, ids: Sequence[str]) -> list[str]:
        """Empty: the partition is fitted on no private record."""
        return []

    def fit(self, features: Features) -> Fitted:
        """Build the tree over class vectors, float32 [classes, d].

        Returns:
            ``directions``, float32 [nodes, d]: features with a positive product go to child 1; ``children``, int64
            [nodes, 2]: a node, or -1 for a single class. Node 0 is the root.
        """
        from scipy.cluster.hierarchy import linkage

        points = unit_rows(centred(features))
        count = len(points)
        tree = linkage(points, method="ward")
        sums = [*points]
        for left, right, *_ in tree:
            sums.append(sums[int(left)] + sums[int(right)])
        means = unit_rows(np.stack(sums))
        sides = tree[::-1, :2].astype(np.int64)  # root first
        directions = means[sides[:, 1]] - means[sides[:, 0]]
        children = np.where(sides < count, -1, 2 * count - 2 - sides)
        return {"directions": directions.astype(np.float32), "children": children}

    def trie_keys(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """The bits of the descent through the tree, then those of the id's hash."""
        descents = [""] * len(ids)
        waiting = [(0, np.arange(len(ids)))]
        while waiting:
            node, rows = waiting.pop()
            right = _goes_right(features[rows], fitted["directions"][node])
            for side, chosen in enumerate((rows[~right], rows[right])):
                for row in chosen.tolist():
                    descents[row] += "01"[side]
                child = int(fitted["children"][node, side])
                if child >= 0 and len(chosen):
                    waiting.append((child, chosen))
        return [f"0/{bits}{self._hash_bits(record_id)}" for bits, record_id in zip(descents, ids, strict=True)]

    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """The cluster at the end of the descent; where one side has no cluster, the other side is taken."""
        under: dict[str, list[int]] = {"": []}  # positions of the clusters under each prefix
        for position, path in enumerate(paths):
            bits = path.partition("/")[2]
            for length in range(len(bits) + 1):
                under.setdefault(bits[:length], []).append(position)

        def route(features: Features, pixels: Pixels) -> Clusters:
            votes: list[list[int]] = [[] for _ in features]
            waiting = [(0, "", np.arange(len(features)))]  # node, prefix, images
            while waiting:
                node, prefix, rows = waiting.pop()
                sides = [f"{prefix}{bit}" in under for bit in "01"]
                if node < 0 or not any(sides):  # below a single class all clusters vote
                    for row in rows.tolist():
                        votes[row] = under[prefix]
                    continue
                right = _goes_right(features[rows], fitted["directions"][node])
                right |= not sides[0]
                right &= sides[1]
                for side, chosen in enumerate((rows[~right], rows[right])):
                    if len(chosen):
                        waiting.append((int(fitted["children"][node, side]), f"{prefix}{side}", chosen))
            return padded(votes)

        return route


def _goes_right(features: Features, direction: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether each feature goes to child 1 of a node, bool [n]."""
    right: NDArray[np.bool_] = (features.astype(np.float64) * direction.astype(np.float64)).sum(axis=1) > 0
    return right
