"""The map shows every cluster once, within the picture, as near and as large as it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.tensors import Array
from lmeraser.models.manifest import Cluster
from lmeraser.service.dashboard.cluster_map import HEIGHT, WIDTH, cluster_map


def clusters(*sizes: int, paths: list[str] | None = None) -> tuple[Cluster, ...]:
    named = paths or [str(number) for number in range(len(sizes))]
    return tuple(
        Cluster(number=number, path=path, records=size, constituent=None)
        for number, (path, size) in enumerate(zip(named, sizes, strict=True))
    )


@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=40), st.integers(0, 99), st.integers(1, 8))
def test_every_cluster_is_in_the_picture(sizes: list[int], seed: int, width: int) -> None:
    prototypes = np.random.default_rng(seed).standard_normal((len(sizes), width)).astype(np.float32)
    dots = cluster_map(clusters(*sizes), {"prototypes": prototypes})
    assert sorted(dot.number for dot in dots) == list(range(len(sizes)))
    assert all(d.x - d.radius >= 0 and d.x + d.radius <= WIDTH for d in dots)
    assert all(d.y - d.radius >= 0 and d.y + d.radius <= HEIGHT for d in dots)
    assert [d.records for d in dots] == sorted(sizes, reverse=True)


def test_distances_on_a_plane_are_kept_and_areas_are_numbers_of_records() -> None:
    corners = np.array([[0, 0, 0], [0, 3, 0], [0, 0, 4]], np.float32)
    dots = {dot.number: dot for dot in cluster_map(clusters(100, 25, 100), {"prototypes": corners})}

    def distance(a: int, b: int) -> float:
        return float(np.hypot(dots[a].x - dots[b].x, dots[a].y - dots[b].y))

    assert distance(0, 1) / distance(0, 2) == pytest.approx(3 / 4, abs=0.01)
    assert distance(1, 2) / distance(0, 2) == pytest.approx(5 / 4, abs=0.01)
    assert dots[1].radius * 2 == dots[0].radius == dots[2].radius


def test_parts_of_a_divided_cluster_lie_together() -> None:
    prototypes = np.eye(3, dtype=np.float32)
    found = clusters(5, 5, 5, paths=["0/0", "0/1", "2"])
    dots = {dot.number: (dot.x, dot.y) for dot in cluster_map(found, {"prototypes": prototypes})}
    assert dots[0] == dots[1] != dots[2]


def test_ways_down_a_tree_lead_where_its_directions_point() -> None:
    fitted: dict[str, Array] = {
        "directions": np.array([[8, 0], [0, 2]], np.float32),
        "children": np.array([[-1, 1], [-1, -1]]),
    }
    found = clusters(1, 1, 1, paths=["0/0", "0/10", "0/11"])
    dots = {dot.number: dot for dot in cluster_map(found, fitted)}
    near = np.hypot(dots[1].x - dots[2].x, dots[1].y - dots[2].y)
    far = np.hypot(dots[0].x - dots[1].x, dots[0].y - dots[1].y)
    assert far / near == pytest.approx(np.hypot(8, 1) / 2, abs=0.05)
    below = cluster_map(clusters(1, 1, paths=["0/01", "0/0"]), fitted)
    assert (below[0].x, below[0].y) == (below[1].x, below[1].y), "bits below a single class lead nowhere"


def test_clusters_without_a_place_are_not_drawn() -> None:
    assert cluster_map(clusters(3, 4), {"prototypes": np.zeros((0, 0), np.float32)}) == []
    assert cluster_map((), {"prototypes": np.eye(2, dtype=np.float32)}) == []
    (one,) = cluster_map(clusters(3), {"prototypes": np.ones((1, 4), np.float32)})
    assert (one.x, one.y) == (WIDTH / 2, HEIGHT / 2)
