"""A two-dimensional map of a model's clusters: their positions in feature space, projected by PCA.

The point of a cluster is its prototype or, with a class tree, the sum of the half steps along the path to it. The
plane is that of the first two principal components. The area of a circle is proportional to the number of records.
Pure functions; know nothing about drawing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.tensors import Array
from lmeraser.models.manifest import Cluster

WIDTH, HEIGHT = 640, 400  # of the map, pixels
_LARGEST_RADIUS = 34.0
_SMALLEST_RADIUS = 3.0
_MARGIN = 40.0


@dataclass(frozen=True)
class ClusterCircle:
    """A cluster on the map.

    Attributes:
        number: of the cluster.
        records: number of its records.
        x: pixels from the left.
        y: pixels from the top.
        radius: of the circle, pixels.
    """

    number: int
    records: int
    x: float
    y: float
    radius: float


def cluster_map(clusters: Sequence[Cluster], fitted: Mapping[str, Array]) -> list[ClusterCircle]:
    """The circles of clusters, the largest first; none if clusters have no position (partition by hash).

    Args:
        clusters: of a model.
        fitted: the tensors of its partition.
    """
    points = _points(clusters, fitted)
    if points is None or not len(points):
        return []
    positions = _fit_to_map(_first_two_components(points))
    largest = max(cluster.records for cluster in clusters)
    circles = [
        ClusterCircle(
            cluster.number,
            cluster.records,
            round(float(x), 1),
            round(float(y), 1),
            round(max(_SMALLEST_RADIUS, _LARGEST_RADIUS * (cluster.records / largest) ** 0.5), 1),
        )
        for cluster, (x, y) in zip(clusters, positions, strict=True)
    ]
    return sorted(circles, key=lambda circle: (-circle.records, circle.number))


def _points(clusters: Sequence[Cluster], fitted: Mapping[str, Array]) -> NDArray[np.float64] | None:
    """One point per cluster, float64 [n, d]; None if they have no position."""
    paths = [cluster.path.partition("/") for cluster in clusters]
    if "directions" in fitted:
        return np.array([_tree_point(bits, fitted) for _, _, bits in paths])
    if fitted.get("prototypes") is None or not fitted["prototypes"].size:
        return None
    points: NDArray[np.float64] = fitted["prototypes"].astype(np.float64)[[int(head) for head, _, _ in paths]]
    return points


def _tree_point(bits: str, fitted: Mapping[str, Array]) -> NDArray[np.float64]:
    """The point that a path down a class tree leads to, float64 [d]; bits below a single class do not move it."""
    directions = fitted["directions"].astype(np.float64)
    children = fitted["children"]
    point = np.zeros(directions.shape[1])
    node = 0
    for bit in map(int, bits):
        if node < 0:
            break
        point = point + (0.5 if bit else -0.5) * directions[node]
        node = int(children[node, bit])
    return point


def _first_two_components(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Coordinates on the first two principal axes, float64 [n, 2]; the largest absolute one is positive."""
    centred = points - points.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(points), 2))
    components = min(2, len(values))
    plane[:, :components] = left[:, :components] * values[:components]
    oriented: NDArray[np.float64] = np.where(plane.max(axis=0) >= -plane.min(axis=0), 1.0, -1.0) * plane
    return oriented


def _fit_to_map(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions on the map, in pixels, float64 [n, 2]; both axes have the same scale."""
    size = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN
    low = plane.min(axis=0)
    extent = np.ptp(plane, axis=0)
    scale = float(np.min(size / np.maximum(extent, 1e-12))) if extent.any() else 0.0
    positions: NDArray[np.float64] = (plane - low - extent / 2) * scale + np.array([WIDTH, HEIGHT]) / 2
    return positions
