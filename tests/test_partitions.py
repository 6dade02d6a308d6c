"""Partitions against scikit-learn and brute force, and their stability under deletions."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from lmeraser.config import parse
from lmeraser.partitions import Fitted, Partition, partition_of

IDS = [f"r{number:03d}" for number in range(80)]
seeds = st.integers(0, 10**6)


def hier(**settings_: Any) -> Partition:
    return partition_of(parse({"partition": {"metric": "euclidean", **settings_}}))


def points(seed: int, count: int = 40, dimension: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


@given(seed=seeds, linkage=st.sampled_from(["average", "complete", "ward"]), clusters=st.integers(1, 12))
@settings(deadline=None, max_examples=40)
def test_a_wanted_number_of_clusters_is_what_scikit_learn_finds(seed: int, linkage: str, clusters: int) -> None:
    features = points(seed)
    fitted = hier(linkage=linkage, clusters=clusters).fit(features)
    expected = AgglomerativeClustering(n_clusters=clusters, linkage=linkage).fit_predict(
        features.astype(np.float64)
    )
    assert adjusted_rand_score(expected, fitted.sample_clusters) == 1


@given(seed=seeds, linkage=st.sampled_from(["average", "complete", "ward"]), threshold=st.floats(0.5, 8))
@settings(deadline=None, max_examples=40)
def test_a_threshold_is_where_scikit_learn_stops_merging(seed: int, linkage: str, threshold: float) -> None:
    features = points(seed)
    fitted = hier(linkage=linkage, threshold=threshold).fit(features)
    other = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, linkage=linkage)
    expected = other.fit_predict(features.astype(np.float64))
    assert len(fitted.prototypes) == other.n_clusters_
    assert adjusted_rand_score(expected, fitted.sample_clusters) == 1


def test_prototypes_are_the_means_of_their_sampled_members() -> None:
    features = points(1)
    fitted = hier(clusters=6).fit(features)
    for number, prototype in enumerate(fitted.prototypes):
        members = features[fitted.sample_clusters == number].astype(np.float64)
        np.testing.assert_allclose(prototype, members.mean(axis=0), rtol=1e-6)
    assert fitted.prototypes.dtype == np.float32


def test_clusters_are_numbered_by_first_appearance() -> None:
    numbers = hier(clusters=6).fit(points(2)).sample_clusters
    firsts = [int(np.flatnonzero(numbers == number)[0]) for number in range(6)]
    assert firsts == sorted(firsts)


def test_cosine_ignores_the_length_of_features() -> None:
    features = points(3)
    scaled = features * np.linspace(1, 9, len(features), dtype=np.float32)[:, None]
    one, other = (hier(clusters=5, metric="cosine").fit(f) for f in (features, scaled))
    np.testing.assert_array_equal(one.sample_clusters, other.sample_clusters)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(one.prototypes[0], unit[one.sample_clusters == 0].mean(axis=0), rtol=1e-5)


@given(ids=st.sets(st.sampled_from(IDS), min_size=1), gone=st.sampled_from(IDS), size=st.integers(2, 30))
def test_deleting_moves_at_most_one_record_into_the_sample(ids: set[str], gone: str, size: int) -> None:
    partition = hier(sample_size=size, clusters=2)
    before, after = partition.sample(sorted(ids)), partition.sample(sorted(ids - {gone}))
    if gone in before:
        assert set(before) - {gone} <= set(after)
        assert len(set(after) - set(before)) == (1 if len(ids) > size else 0)
    else:
        assert after == before
    assert len(before) == min(size, len(ids))


def test_a_sample_does_not_depend_on_the_order_of_the_records() -> None:
    partition = hier(sample_size=10, clusters=2)
    assert partition.sample(IDS) == partition.sample(IDS[::-1])


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_the_nearest_prototype_by_brute_force_whatever_the_chunks(
    metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = hier(clusters=7, metric=metric)
    fitted = partition.fit(points(4))
    features = points(5, count=101)
    rows = features.astype(np.float64)
    if metric == "cosine":
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    expected = [int(np.argmin([np.linalg.norm(row - p) for p in fitted.prototypes])) for row in rows]
    ids = [str(number) for number in range(101)]
    np.testing.assert_array_equal(partition.assign(fitted, ids, features), expected)
    monkeypatch.setattr("lmeraser.partitions.hier_cluster._CHUNK", 7)
    np.testing.assert_array_equal(partition.assign(fitted, ids, features), expected)
    np.testing.assert_array_equal(partition.assign(fitted, ids[50:51], features[50:51]), expected[50:51])


def test_routing_passes_over_clusters_without_members() -> None:
    partition = hier(clusters=4)
    fitted = partition.fit(points(6))
    routes = partition.route(fitted, points(7), [1, 3])
    assert routes.shape == (40, 1)
    assert set(routes.ravel()) <= {0, 1}, "positions in the list of clusters with members"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_records_than_clusters(count: int) -> None:
    fitted = hier(clusters=20).fit(points(8, count=count))
    assert sorted(fitted.sample_clusters) == list(range(count))


def test_no_records() -> None:
    fitted = hier(clusters=3).fit(np.zeros((0, 5), np.float32))
    assert fitted.prototypes.shape == (0, 5)


def test_identical_and_zero_features() -> None:
    for features in (np.ones((6, 4), np.float32), np.zeros((6, 4), np.float32)):
        for metric in ("euclidean", "cosine"):
            partition = hier(threshold=0.5, metric=metric)
            fitted = partition.fit(features)
            assert len(fitted.prototypes) == 1
            assert np.isfinite(fitted.prototypes).all()
            assert partition.assign(fitted, ["x"], features[:1]).tolist() == [0]


def test_a_fitted_partition_survives_its_artifact() -> None:
    fitted = hier(clusters=3).fit(points(9))
    again = Fitted.of(fitted.tensors())
    np.testing.assert_array_equal(again.prototypes, fitted.prototypes)
    np.testing.assert_array_equal(again.sample_clusters, fitted.sample_clusters)


@pytest.mark.parametrize(("method", "clusters"), [("random", 5), ("single", None)])
def test_hashed_partitions_look_at_ids_only(method: str, clusters: int | None) -> None:
    partition = partition_of(parse({"partition": {"method": method, "clusters": clusters}}))
    assert partition.sample(IDS) == []
    assert not partition.needs_features
    nothing = np.zeros((0, 0), np.float32)
    fitted = partition.fit(nothing)
    numbers = partition.assign(fitted, IDS, nothing)
    assert set(numbers) == set(range(clusters or 1))
    np.testing.assert_array_equal(partition.assign(fitted, IDS[10:], nothing), numbers[10:])
    assert partition.route(fitted, points(1, count=3), [0, 2]).tolist() == [[0, 1]] * 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"method": "hier_cluster", "clusters": 3}, "1000 private records"),
        ({"method": "random", "clusters": 3}, "nothing"),
        ({"method": "single"}, "nothing"),
    ],
)
def test_the_settings_say_what_the_partition_is_fitted_on(settings: dict[str, Any], words: str) -> None:
    assert words in parse({"partition": {"clusters": None, **settings}}).partition.fitted_on
