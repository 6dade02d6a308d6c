"""Clusters in pages: the same clusters and the same digest as in a list, whatever was replaced before."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from make_evidence import OLD

from conftest import examples
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError
from lmeraser.models import cluster_page
from lmeraser.models import clusters as module
from lmeraser.models.cluster import Cluster, StageResult
from lmeraser.models.cluster_page import Page, PageEntry
from lmeraser.models.clusters import ClusterList, ClusterPages, arranged
from lmeraser.models.manifest import Model, OwnParts
from lmeraser.models.partitions.cost import cost_counts
from lmeraser.models.partitions.trie import group, is_under, sort_key

ENVIRONMENTS = [Digest.of(b"here"), Digest.of(b"there")]


@pytest.fixture(autouse=True)
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages of three clusters or so, and none in a list."""
    monkeypatch.setattr(cluster_page, "_PAGE", 3)
    monkeypatch.setattr(module, "MOST_IN_A_LIST", 0)


def result(what: str, environment: int = 0) -> StageResult:
    named = Digest.of(what.encode())
    return StageResult(key=Digest.of(named.encode()), artifact=named, fingerprint=ENVIRONMENTS[environment])


def numbered(found: dict[str, list[str]]) -> ClusterList:
    """Clusters as a derivation makes them; some without a constituent, some with checkpoints."""
    return ClusterList(
        Cluster(
            number=number,
            path=path,
            records=len(ids),
            constituent=result(repr(ids), number % 2) if len(ids) % 5 else None,
            checkpoints=tuple(result(f"{ids} {level}") for level in range(len(ids) % 3)) if len(ids) % 5 else (),
        )
        for number, (path, ids) in enumerate(found.items())
    )


KEYS = st.dictionaries(
    st.integers(0, 200).map("r{:03d}".format),
    st.tuples(st.integers(0, 12), st.text("01", min_size=6, max_size=6)).map(lambda key: f"{key[0]}/{key[1]}"),
    max_size=60,
)


@settings(examples(fast=25, explore=300))
@given(KEYS, KEYS, st.integers(1, 4))
def test_pages_after_any_change_are_those_of_the_clusters_that_are_there(
    before: dict[str, str], after: dict[str, str], limit: int
) -> None:
    old, new = (numbered(group(keys, limit)) for keys in (before, after))
    pages, fresh = ClusterPages.of(old), arranged(new)
    assert tuple(pages) == old
    assert (len(pages), pages.records, pages.fingerprints) == (len(old), len(before), old.fingerprints)
    assert dict(pages.numbers) == dict(old.numbers)
    assert not {"13", "3/", "3/0000000"} & set(pages.numbers)
    assert pages[:3] == old[:3]
    assert tuple(pages.numbered(range(0, len(old), 2))) == tuple(old.numbered(range(0, len(old), 2))) == old[::2]
    for cluster in old:
        assert pages.numbers[cluster.path] == cluster.number
        assert pages[cluster.number] == cluster
        assert cluster in pages
    changed = {one.path for one in (*old, *new)} - {
        one.path
        for one in old
        for other in new
        if one.model_copy(update={"number": 0}) == other.model_copy(update={"number": 0})
    }
    paths = [path for path in changed if not any(is_under(path, other) and path != other for other in changed)]
    under = [one for one in new if any(is_under(one.path, path) for path in paths)]
    pages.costs(limit)
    replaced = pages.replaced(paths, sorted(under, key=lambda one: one.records), limit=limit)
    assert (
        replaced.costs(limit) == fresh.costs(limit) == cost_counts({one.path: one.records for one in new}, limit)
    )
    assert old.replaced(paths, under, limit=limit) == replaced == fresh
    assert tuple(replaced) == new
    kept = {page.digest for page in pages.pages}
    assert all(page in pages.pages for page in replaced.pages if page.digest in kept), "reused as they are"


@settings(examples(fast=25, explore=300))
@given(KEYS, KEYS)
def test_what_a_generation_has_of_its_own_is_what_sets_say(before: dict[str, str], after: dict[str, str]) -> None:
    first, second = (OLD.model_copy(update={"clusters": numbered(group(keys, 2))}) for keys in (before, after))
    paged, other = (one.model_copy(update={"clusters": ClusterPages.of(one.clusters)}) for one in (first, second))
    assert paged.model_digest == first.model_digest
    assert (paged.records, paged.tuned, paged.together) == (first.records, first.tuned, first.together)
    assert (paged.fingerprints, paged.stages) == (first.fingerprints, first.stages)
    assert paged.cluster_numbers(after) == first.cluster_numbers(after)
    assert paged.cluster_numbers(dict.fromkeys("a", "3/010101")) == first.cluster_numbers({"a": "3/010101"})
    theirs = second.stages.values()
    expected = {one.artifact for one in first.stages.values()} - {one.artifact for one in theirs}
    keys = {one.key for one in first.stages.values()} - {one.key for one in theirs}
    ours = [one.artifact for each in first.clusters for one in each.results]
    for one, two in ((first, second), (paged, other), (paged, second), (first, other)):
        own = OwnParts(one, two)
        assert (own.artifacts, own.keys) == (expected, keys)
        assert own.results == sum(artifact in expected for artifact in ours)


def page(data: bytes) -> Page:
    entry = PageEntry(digest=Digest.of(data), last="0", clusters=1, records=1, fingerprints=())
    return Page(entry, data)


@pytest.mark.parametrize(
    "change",
    [
        (b'"records":[4]', b'"records":[5]'),
        (b'"keys":[', b'"keys":[null,'),
        (b'"environments":[0]', b'"environments":[7]'),
    ],
)
def test_a_page_that_is_not_what_its_manifest_says_is_damaged(change: tuple[bytes, bytes]) -> None:
    cluster = Cluster(number=0, path="0", records=4, constituent=result("a"))
    good = Page.of([cluster])
    assert good.clusters(0) == Page(good.entry, good.data).clusters(0) == (cluster,)
    assert change[0] in good.data
    with pytest.raises(CorruptError, match="Page"):
        Page(good.entry, good.data.replace(*change)).clusters()
    for data in (b"", b"{}", b"[]", good.data[2:], good.data.replace(b"records", b"others")):
        with pytest.raises(CorruptError, match="Page"):
            page(data)


def test_a_model_of_many_clusters_is_in_pages_and_one_of_few_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_IN_A_LIST", 3)
    found = numbered({f"{root}": ["a"] for root in range(5)})

    def model(clusters: Sequence[Cluster]) -> Model:
        return Model.model_validate({**OLD.model_dump(by_alias=True), "clusters": clusters})

    assert [len(model(found[:count]).pages) > 0 for count in (0, 3, 4, 5)] == [False, False, True, True]
    assert model(found).model_digest == OLD.model_copy(update={"clusters": found}).model_digest
    assert sorted(found, key=lambda one: sort_key(one.path)) == list(model(found).clusters)
