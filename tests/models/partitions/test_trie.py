"""Clusters of places: a partition of the records, stable under deletions, whatever order they come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmeraser.models.partitions.trie import group, group_below, in_order, lies_under, parent, path_of

_bits = st.text("01", min_size=12, max_size=12)
_trie_keys = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.builds(lambda h, b: f"{h}/{b}", st.integers(0, 2), _bits)
)
_limits = st.none() | st.integers(1, 6)


@given(_trie_keys, _limits)
def test_every_record_is_in_one_cluster_whose_path_its_place_begins_with(
    places: dict[str, str], limit: int | None
) -> None:
    groups = group(places, limit)
    members = [record_id for ids in groups.values() for record_id in ids]
    assert sorted(members) == sorted(places)
    for path, ids in groups.items():
        assert ids == sorted(ids)
        assert all(path_of(places[i], groups) == path for i in ids)
        assert all(places[i].startswith(path) for i in ids)


@given(_trie_keys, st.integers(1, 6))
def test_a_cluster_is_divided_exactly_where_it_would_be_too_large(places: dict[str, str], limit: int) -> None:
    for path, ids in group(places, limit).items():
        head, _, bits = path.partition("/")
        assert len(ids) <= limit or len(bits) == 12
        if bits:
            parent = [p for p in places.values() if p.startswith(f"{head}/{bits[:-1]}")]
            assert len(parent) > limit


@given(_trie_keys, _limits, st.randoms())
def test_the_order_of_records_does_not_matter(places: dict[str, str], limit: int | None, random: object) -> None:
    items = list(places.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert list(group(dict(items), limit).items()) == list(group(places, limit).items())


@given(_trie_keys, st.integers(1, 6), st.data())
def test_a_deletion_changes_its_own_cluster_and_at_most_joins_it_with_its_neighbours(
    places: dict[str, str], limit: int, data: st.DataObject
) -> None:
    if not places:
        return
    gone = data.draw(st.sampled_from(sorted(places)))
    before = group(places, limit)
    after = group({i: place for i, place in places.items() if i != gone}, limit)
    changed = {path for path, ids in after.items() if before.get(path) != ids}
    own = path_of(places[gone], before)
    assert own is not None
    assert all(places[gone].startswith(path) for path in changed), "only clusters on the way of the record"
    assert sum(len(after[path]) for path in changed) <= max(limit, len(before[own]))


@given(_trie_keys)
def test_without_a_limit_clusters_are_heads(places: dict[str, str]) -> None:
    assert set(group(places)) == {place.partition("/")[0] for place in places.values()}


def test_heads_are_in_the_order_of_numbers() -> None:
    assert list(group({"a": "10", "b": "9", "c": "2"})) == ["2", "9", "10"]


def test_places_without_bits_are_not_divided() -> None:
    assert group({"a": "1", "b": "1", "c": "1"}, 2) == {"1": ["a", "b", "c"]}


def test_a_place_without_cluster_has_no_path() -> None:
    assert path_of("3/0101", {"3/1", "2/0"}) is None
    assert path_of("3/0101", {"3/01", "2/0"}) == "3/01"
    assert path_of("3", {"3"}) == "3"


@given(_trie_keys, _limits)
def test_what_lies_under_a_path_can_be_grouped_alone(places: dict[str, str], limit: int | None) -> None:
    groups = group(places, limit)
    for path in groups:
        ways: list[str] = [path]
        while (above := parent(ways[-1])) is not None:
            ways.append(above)
        for way in ways:
            mine = {i: place for i, place in places.items() if lies_under(place, way)}
            expected = {p: ids for p, ids in groups.items() if lies_under(p, way)}
            assert group_below(way, mine, limit) == expected


@given(_trie_keys, _limits)
def test_paths_sort_as_they_are_grouped(places: dict[str, str], limit: int | None) -> None:
    paths = list(group(places, limit))
    assert sorted(paths, key=in_order) == paths


def test_a_path_lies_under_what_it_begins_with() -> None:
    assert lies_under("1/01", "1")
    assert lies_under("1/01", "1/0")
    assert lies_under("1/01", "1/01")
    assert not lies_under("12/01", "1")
    assert not lies_under("1/0", "1/01")
    assert (parent("1/01"), parent("1/0"), parent("1")) == ("1/0", "1", None)
