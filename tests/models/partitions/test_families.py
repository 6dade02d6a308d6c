"""Partitions against scikit-learn and brute force, and their stability under deletions."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.cluster import AgglomerativeClustering
from sklearn.metrics import adjusted_rand_score

from conftest import examples
from lmeraser.config.schema import parse
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.errors import ConfigError
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.base import Partition
from lmeraser.models.partitions.hierarchical import expected_share
from lmeraser.models.partitions.trie import group

IDS = [f"r{number:03d}" for number in range(80)]
NO_PIXELS = np.zeros((0, 0), np.float32)
seeds = st.integers(0, 10**6)


def hier(**settings_: Any) -> Partition:
    return partition_of(parse({"partition": {"metric": "euclidean", **settings_}}))


def points(seed: int, count: int = 40, dimension: int = 5) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, dimension)).astype(np.float32)


def roots(partition: Partition, fitted: Any, ids: list[str], features: Any) -> NDArray[np.int64]:
    return np.array([int(trie_key) for trie_key in partition.trie_keys(fitted, ids, features)])


@given(seed=seeds, linkage=st.sampled_from(["average", "complete", "ward"]), clusters=st.integers(1, 12))
@settings(examples(fast=13, explore=40))
def test_a_wanted_number_of_clusters_is_what_scikit_learn_finds(seed: int, linkage: str, clusters: int) -> None:
    features = points(seed)
    fitted = hier(linkage=linkage, clusters=clusters).fit(features)
    expected = AgglomerativeClustering(n_clusters=clusters, linkage=linkage).fit_predict(
        features.astype(np.float64)
    )
    assert adjusted_rand_score(expected, fitted["sample_clusters"]) == 1


@given(seed=seeds, linkage=st.sampled_from(["average", "complete", "ward"]), threshold=st.floats(0.5, 8))
@settings(examples(fast=13, explore=40))
def test_a_threshold_is_where_scikit_learn_stops_merging(seed: int, linkage: str, threshold: float) -> None:
    features = points(seed)
    fitted = hier(linkage=linkage, threshold=threshold).fit(features)
    other = AgglomerativeClustering(n_clusters=None, distance_threshold=threshold, linkage=linkage)
    expected = other.fit_predict(features.astype(np.float64))
    assert len(fitted["prototypes"]) == other.n_clusters_
    assert adjusted_rand_score(expected, fitted["sample_clusters"]) == 1


def test_prototypes_are_the_means_of_their_sampled_members() -> None:
    features = points(1)
    fitted = hier(clusters=6).fit(features)
    for number, prototype in enumerate(fitted["prototypes"]):
        members = features[fitted["sample_clusters"] == number].astype(np.float64)
        np.testing.assert_allclose(prototype, members.mean(axis=0), rtol=1e-6)
    assert fitted["prototypes"].dtype == np.float32


def test_clusters_are_numbered_by_first_appearance() -> None:
    numbers = hier(clusters=6).fit(points(2))["sample_clusters"]
    firsts = [int(np.flatnonzero(numbers == number)[0]) for number in range(6)]
    assert firsts == sorted(firsts)


def test_cosine_ignores_the_length_of_features() -> None:
    features = points(3)
    scaled = features * np.linspace(1, 9, len(features), dtype=np.float32)[:, None]
    one, other = (hier(clusters=5, metric="cosine").fit(f) for f in (features, scaled))
    np.testing.assert_array_equal(one["sample_clusters"], other["sample_clusters"])
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    np.testing.assert_allclose(one["prototypes"][0], unit[one["sample_clusters"] == 0].mean(axis=0), rtol=1e-5)


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
    expected = [int(np.argmin([np.linalg.norm(row - p) for p in fitted["prototypes"]])) for row in rows]
    ids = [str(number) for number in range(101)]
    np.testing.assert_array_equal(roots(partition, fitted, ids, features), expected)
    monkeypatch.setattr("lmeraser.models.partitions.hierarchical._CHUNK", 7)
    np.testing.assert_array_equal(roots(partition, fitted, ids, features), expected)
    np.testing.assert_array_equal(roots(partition, fitted, ids[50:51], features[50:51]), expected[50:51])


def test_routing_passes_over_clusters_without_members() -> None:
    partition = hier(clusters=4)
    fitted = partition.fit(points(6))
    routes = partition.router(fitted, ["1", "3"])(points(7), NO_PIXELS)
    assert routes.shape == (40, 1)
    assert set(routes.ravel()) <= {0, 1}, "positions in the list of clusters with members"


@pytest.mark.parametrize("count", [1, 2, 3])
def test_fewer_records_than_clusters(count: int) -> None:
    fitted = hier(clusters=20).fit(points(8, count=count))
    assert sorted(fitted["sample_clusters"]) == list(range(count))


def test_no_records() -> None:
    fitted = hier(clusters=3).fit(np.zeros((0, 5), np.float32))
    assert fitted["prototypes"].shape == (0, 5)


def test_identical_and_zero_features() -> None:
    for features in (np.ones((6, 4), np.float32), np.zeros((6, 4), np.float32)):
        for metric in ("euclidean", "cosine"):
            partition = hier(threshold=0.5, metric=metric)
            fitted = partition.fit(features)
            assert len(fitted["prototypes"]) == 1
            assert np.isfinite(fitted["prototypes"]).all()
            assert partition.trie_keys(fitted, ["x"], features[:1]) == ["0"]


def test_a_fitted_partition_survives_its_artifact() -> None:
    fitted = hier(clusters=3).fit(points(9))
    again = from_bytes(to_bytes(fitted))
    np.testing.assert_array_equal(again["prototypes"], fitted["prototypes"])
    np.testing.assert_array_equal(again["sample_clusters"], fitted["sample_clusters"])


@pytest.mark.parametrize(("method", "clusters"), [("random", 5), ("single", None)])
def test_hashed_partitions_look_at_ids_only(method: str, clusters: int | None) -> None:
    partition = partition_of(parse({"partition": {"method": method, "clusters": clusters}}))
    assert partition.sample(IDS) == []
    assert not partition.needs_features
    nothing = np.zeros((0, 0), np.float32)
    fitted = partition.fit(nothing)
    numbers = roots(partition, fitted, IDS, nothing)
    assert set(numbers) == set(range(clusters or 1))
    np.testing.assert_array_equal(roots(partition, fitted, IDS[10:], nothing), numbers[10:])
    assert partition.router(fitted, ["0", "2"])(points(1, count=3), NO_PIXELS).tolist() == [[0, 1]] * 3


def test_an_image_may_draw_one_cluster_by_its_pixels() -> None:
    random = {"method": "random", "clusters": 5}
    partition = partition_of(parse({"partition": random, "aggregation": {"route": "one"}}))
    paths, pixels = ["0", "1", "2", "3", "4"], points(1, count=200)[:, :, None, None]
    router = partition.router(partition.fit(NO_PIXELS), paths)
    routes = router(points(2, count=200), pixels)
    assert routes.shape == (200, 1)
    assert np.bincount(routes.ravel(), minlength=5).min() > 20, "every cluster has its part"
    np.testing.assert_array_equal(router(points(3, count=200), pixels), routes, err_msg="features do not matter")
    np.testing.assert_array_equal(router(points(2, count=9), pixels[4:13]), routes[4:13])
    without = partition.router(partition.fit(NO_PIXELS), ["4", "3", "1", "0"])(points(2, count=200), pixels)
    stayed = routes.ravel() != 2
    moved = np.array(["4", "3", "1", "0"])[without.ravel()]
    np.testing.assert_array_equal(moved[stayed], np.array(paths)[routes.ravel()][stayed], err_msg="and only those")
    other_seed = partition_of(parse({"seed": 1, "partition": random, "aggregation": {"route": "one"}}))
    assert (other_seed.router({}, paths)(points(2, count=200), pixels) != routes).any()


def test_only_hashed_clusters_are_drawn() -> None:
    with pytest.raises(ConfigError, match=r"requires partition\.method 'random'"):
        parse({"aggregation": {"route": "one"}})


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


# --- balanced cuts ------------------------------------------------------------------------------------------


@given(seed=seeds, clusters=st.integers(1, 12), share=st.sampled_from([None, 0.1, 0.3]))
@settings(examples(fast=13, explore=40))
def test_no_cluster_of_the_sample_holds_more_than_its_share(seed: int, clusters: int, share: float | None) -> None:
    numbers = hier(clusters=clusters, max_share=share).fit(points(seed))["sample_clusters"]
    sizes = np.bincount(numbers)
    assert len(sizes) >= clusters
    assert sizes.max() <= (1 if share is None else Fraction(repr(share))) * 40
    if share is None:
        assert len(sizes) == clusters


@given(seed=seeds, share=st.floats(0.03, 1))
@settings(examples(fast=13, explore=40))
def test_a_wanted_expected_share_gives_the_fewest_clusters_that_keep_it(seed: int, share: float) -> None:
    numbers = hier(expected_share=share).fit(points(seed))["sample_clusters"]
    count = len(np.bincount(numbers))

    def found(labels: NDArray[np.int64]) -> Fraction:
        return Fraction(int(np.square(np.bincount(labels)).sum()), 40**2)

    assert found(numbers) <= Fraction(repr(share))
    if count > 1:
        assert found(hier(clusters=count - 1).fit(points(seed))["sample_clusters"]) > Fraction(repr(share))


@pytest.mark.parametrize(("count", "share"), [(20, 0.05), (8, 0.125), (10, 0.1), (40, 0.025), (3, 1 / 3)])
def test_an_expected_share_is_compared_as_the_decimal_number_that_was_written(count: int, share: float) -> None:
    """Pairs of points: with a cluster for each pair, sum n_k^2 / N^2 is 1 / pairs, exactly at the limit."""
    features = np.repeat(np.eye(count, dtype=np.float32) * 100, 2, axis=0)
    features[1::2] += 0.01
    found = hier(expected_share=share).fit(features)["sample_clusters"]
    expected = count if Fraction(1, count) <= Fraction(repr(share)) else count + 1
    assert len(np.unique(found)) >= expected
    assert expected_share(found) <= Fraction(repr(share))
    if expected == count:
        np.testing.assert_array_equal(found, np.repeat(np.arange(count), 2))


def test_an_expected_share_is_exact_where_floats_are_not() -> None:
    labels = np.repeat(np.arange(20), 2)
    assert np.square(np.bincount(labels) / 40).sum() > 0.05, "as floats the sum lies above the limit"
    assert expected_share(labels) == Fraction(1, 20) == Fraction("0.05")


@pytest.mark.parametrize(
    ("share", "count", "largest"), [(0.29, 100, 29), (0.1, 40, 4), (0.3, 40, 12), (0.01, 40, 1)]
)
def test_a_largest_share_is_rounded_down_from_the_decimal_number(share: float, count: int, largest: int) -> None:
    """As a float, 0.29 * 100 is 28.999999999999996."""
    group = np.random.default_rng(0).standard_normal((largest, 3)).astype(np.float32)
    rest = 1000 * np.arange(1, count - largest + 1, dtype=np.float32)[:, None] + np.zeros(3, np.float32)
    numbers = hier(clusters=2, max_share=share).fit(np.concatenate([group, rest]))["sample_clusters"]
    assert np.bincount(numbers).max() == largest


# --- class tree -------------------------------------------------------------------------------------------

VECTORS = points(99, count=30, dimension=5)
TREE = partition_of(parse({"partition": {"method": "class_tree", "max_records": 4}}))


def test_the_tree_is_that_of_scikit_learn() -> None:
    centred = VECTORS.astype(np.float64) - VECTORS.astype(np.float64).mean(axis=0)
    unit = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    halves = AgglomerativeClustering(n_clusters=2, linkage="ward").fit_predict(unit)
    means = [unit[halves == side].mean(axis=0) for side in (0, 1)]
    direction = TREE.fit(VECTORS)["directions"][0]
    expected = np.subtract(*(mean / np.linalg.norm(mean) for mean in means))
    assert min(np.abs(direction - expected).max(), np.abs(direction + expected).max()) < 1e-6


def test_every_descent_ends_at_a_class_and_goes_on_by_hash() -> None:
    fitted = TREE.fit(VECTORS)
    assert fitted["directions"].shape == (29, 5)
    assert (fitted["children"] == -1).sum() == 30
    trie_keys = TREE.trie_keys(fitted, IDS[:30], VECTORS)
    assert len({trie_key[2:-32] for trie_key in trie_keys}) > 20, "class vectors descend differently"
    twice = TREE.trie_keys(fitted, ["a", "b"], np.repeat(VECTORS[:1], 2, axis=0))
    assert twice[0][:-32] == twice[1][:-32]
    assert twice[0] != twice[1]


@given(seed=seeds)
@settings(examples(fast=8, explore=25))
def test_a_trie_key_does_not_depend_on_the_other_records(seed: int) -> None:
    fitted, features = TREE.fit(VECTORS), points(seed, count=20)
    together = TREE.trie_keys(fitted, IDS[:20], features)
    alone = [TREE.trie_keys(fitted, [i], features[n : n + 1])[0] for n, i in enumerate(IDS[:20])]
    assert together == alone


@given(seed=seeds, limit=st.integers(1, 12))
@settings(examples(fast=8, explore=25))
def test_an_image_goes_to_the_cluster_of_records_with_its_features(seed: int, limit: int) -> None:
    fitted, features = TREE.fit(VECTORS), points(seed, count=60)
    groups = group(dict(zip(IDS, TREE.trie_keys(fitted, IDS[:60], features), strict=False)), limit)
    paths = list(groups)
    routes = TREE.router(fitted, paths)(features, NO_PIXELS)
    for number, record_id in enumerate(IDS[:60]):
        chosen = [paths[position] for position in routes[number] if position >= 0]
        assert any(record_id in groups[path] for path in chosen)
    alone = np.concatenate([TREE.router(fitted, paths)(features[n : n + 1], NO_PIXELS)[:, :1] for n in range(60)])
    np.testing.assert_array_equal(alone, routes[:, :1])


def test_a_side_without_cluster_leads_to_the_other_side() -> None:
    fitted, features = TREE.fit(VECTORS), points(5, count=50)
    bits = [trie_key[2:] for trie_key in TREE.trie_keys(fitted, IDS[:50], features)]
    only = "0/" + bits[0][:3]
    assert (TREE.router(fitted, [only])(features, NO_PIXELS) == 0).all()


def test_parts_that_are_divided_by_hash_vote_together() -> None:
    partition = hier(clusters=3, max_records=5)
    fitted = partition.fit(points(1))
    trie_keys = partition.trie_keys(fitted, IDS, points(2, count=80))
    groups = group(dict(zip(IDS, trie_keys, strict=True)), 5)
    assert max(map(len, groups.values())) <= 5
    paths = list(groups)
    routes = partition.router(fitted, paths)(points(3, count=30), NO_PIXELS)
    for row in routes:
        roots_ = {paths[position].partition("/")[0] for position in row if position >= 0}
        assert len(roots_) == 1
        assert sum(position >= 0 for position in row) == sum(path.split("/")[0] in roots_ for path in paths)


def test_public_class_vectors_leave_no_sample() -> None:
    partition = hier(clusters=4, fitted="public", metric="cosine")
    assert partition.sample(IDS) == []
    fitted = partition.fit(VECTORS)
    assert fitted["sample_clusters"].size == 0
    np.testing.assert_allclose(np.linalg.norm(fitted["prototypes"], axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"method": "class_tree"}, "requires max_records"),
        ({"method": "class_tree", "max_records": 5, "clusters": 3}, "requires max_records"),
        ({"method": "class_tree", "max_records": 5, "fitted": "private"}, "must be 'public'"),
        ({"method": "random", "clusters": 3, "max_share": 0.1}, "requires method 'hier_cluster'"),
        ({"method": "random", "clusters": 3, "fitted": "public"}, "fitted on nothing"),
        ({"clusters": 3, "expected_share": 0.1}, "exactly one"),
    ],
)
def test_settings_that_do_not_fit_together(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse({"partition": settings_})
