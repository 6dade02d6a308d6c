"""The clusters of a model on a plane: their places in the space of features, from the side that shows most.

A cluster's point is its prototype or, with a class tree, the sum of the half steps on the way down to it. The
plane is that of the first two principal components. Areas of the circles are proportional to the numbers of
records. Pure functions; know nothing about drawing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.tensors import Array
from lmeraser.models.manifest import Cluster

WIDTH, HEIGHT = 640, 400  # of the picture
_LARGEST = 34.0  # radius of the largest circle
_SMALLEST = 3.0
_MARGIN = 40.0


@dataclass(frozen=True)
class Dot:
    """A cluster in the picture.

    Attributes:
        number: of the cluster.
        records: its members.
        x: from the left.
        y: from the top.
        radius: of the circle.
    """

    number: int
    records: int
    x: float
    y: float
    radius: float


def cluster_map(clusters: tuple[Cluster, ...], fitted: Mapping[str, Array]) -> list[Dot]:
    """Where to draw the clusters, the largest first; none where clusters have no place (divided by hash).

    Args:
        clusters: of a model.
        fitted: the tensors of its partition.
    """
    points = _points(clusters, fitted)
    if points is None or not len(points):
        return []
    plane = _spread(_principal(points))
    largest = max(cluster.records for cluster in clusters)
    dots = [
        Dot(
            cluster.number,
            cluster.records,
            round(float(x), 1),
            round(float(y), 1),
            round(max(_SMALLEST, _LARGEST * (cluster.records / largest) ** 0.5), 1),
        )
        for cluster, (x, y) in zip(clusters, plane, strict=True)
    ]
    return sorted(dots, key=lambda dot: (-dot.records, dot.number))


def _points(clusters: tuple[Cluster, ...], fitted: Mapping[str, Array]) -> NDArray[np.float64] | None:
    """A point for each cluster, float64 [n, d]."""
    paths = [cluster.path.partition("/") for cluster in clusters]
    if "directions" in fitted:
        return np.array([_way(bits, fitted) for _, _, bits in paths])
    if fitted.get("prototypes") is None or not fitted["prototypes"].size:
        return None
    points: NDArray[np.float64] = fitted["prototypes"].astype(np.float64)[[int(head) for head, _, _ in paths]]
    return points


def _way(bits: str, fitted: Mapping[str, Array]) -> NDArray[np.float64]:
    """Where a way down a class tree leads; bits below a single class lead nowhere."""
    directions, children = fitted["directions"].astype(np.float64), fitted["children"]
    point, node = np.zeros(directions.shape[1]), 0
    for bit in map(int, bits):
        if node < 0:
            break
        point = point + (0.5 if bit else -0.5) * directions[node]
        node = int(children[node, bit])
    return point


def _principal(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Along the first two principal components, float64 [n, 2]; the largest value of each is positive."""
    centred = points - points.mean(axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    plane = np.zeros((len(points), 2))
    shown = min(2, len(values))
    plane[:, :shown] = left[:, :shown] * values[:shown]
    turned: NDArray[np.float64] = np.where(plane.max(axis=0) >= -plane.min(axis=0), 1.0, -1.0) * plane
    return turned


def _spread(plane: NDArray[np.float64]) -> NDArray[np.float64]:
    """Into the picture, with the same scale both ways."""
    size = np.array([WIDTH, HEIGHT]) - 2 * _MARGIN
    low, extent = plane.min(axis=0), np.ptp(plane, axis=0)
    scale = float(np.min(size / np.maximum(extent, 1e-12))) if extent.any() else 0.0
    placed: NDArray[np.float64] = (plane - low - extent / 2) * scale + np.array([WIDTH, HEIGHT]) / 2
    return placed
