"""Clusters of trie keys: a partition of the records, stable under deletions, whatever order they come in."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lmeraser.models.partitions.trie import find_path, group, group_below, is_under, parent, sort_key

_bits = st.text("01", min_size=12, max_size=12)
trie_key_maps = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=3), st.builds(lambda h, b: f"{h}/{b}", st.integers(0, 2), _bits)
)
_limits = st.none() | st.integers(1, 6)


@given(trie_key_maps, _limits)
def test_every_record_is_in_one_cluster_whose_path_its_trie_key_begins_with(
    trie_keys: dict[str, str], limit: int | None
) -> None:
    groups = group(trie_keys, limit)
    members = [record_id for ids in groups.values() for record_id in ids]
    assert sorted(members) == sorted(trie_keys)
    for path, ids in groups.items():
        assert ids == sorted(ids)
        assert all(find_path(trie_keys[i], groups) == path for i in ids)
        assert all(trie_keys[i].startswith(path) for i in ids)


@given(trie_key_maps, st.integers(1, 6))
def test_a_cluster_is_split_exactly_where_it_would_be_too_large(trie_keys: dict[str, str], limit: int) -> None:
    for path, ids in group(trie_keys, limit).items():
        root, _, bits = path.partition("/")
        assert len(ids) <= limit or len(bits) == 12
        if bits:
            parent = [p for p in trie_keys.values() if p.startswith(f"{root}/{bits[:-1]}")]
            assert len(parent) > limit


@given(trie_key_maps, _limits, st.randoms())
def test_the_order_of_records_does_not_matter(
    trie_keys: dict[str, str], limit: int | None, random: object
) -> None:
    items = list(trie_keys.items())
    random.shuffle(items)  # type: ignore[attr-defined]
    assert list(group(dict(items), limit).items()) == list(group(trie_keys, limit).items())


@given(trie_key_maps, st.integers(1, 6), st.data())
def test_a_deletion_changes_its_own_cluster_and_at_most_joins_it_with_its_neighbours(
    trie_keys: dict[str, str], limit: int, data: st.DataObject
) -> None:
    if not trie_keys:
        return
    gone = data.draw(st.sampled_from(sorted(trie_keys)))
    before = group(trie_keys, limit)
    after = group({i: trie_key for i, trie_key in trie_keys.items() if i != gone}, limit)
    changed = {path for path, ids in after.items() if before.get(path) != ids}
    own = find_path(trie_keys[gone], before)
    assert own is not None
    assert all(trie_keys[gone].startswith(path) for path in changed), "only clusters on the record's own descent"
    assert sum(len(after[path]) for path in changed) <= max(limit, len(before[own]))


@given(trie_key_maps)
def test_without_a_limit_clusters_are_roots(trie_keys: dict[str, str]) -> None:
    assert set(group(trie_keys)) == {trie_key.partition("/")[0] for trie_key in trie_keys.values()}


def test_roots_are_in_the_order_of_numbers() -> None:
    assert list(group({"a": "10", "b": "9", "c": "2"})) == ["2", "9", "10"]


def test_trie_keys_without_bits_are_not_split() -> None:
    assert group({"a": "1", "b": "1", "c": "1"}, 2) == {"1": ["a", "b", "c"]}


def test_a_trie_key_without_cluster_has_no_path() -> None:
    assert find_path("3/0101", {"3/1", "2/0"}) is None
    assert find_path("3/0101", {"3/01", "2/0"}) == "3/01"
    assert find_path("3", {"3"}) == "3"


@given(trie_key_maps, _limits)
def test_what_lies_under_a_path_can_be_grouped_alone(trie_keys: dict[str, str], limit: int | None) -> None:
    groups = group(trie_keys, limit)
    for path in groups:
        ancestors: list[str] = [path]
        while (above := parent(ancestors[-1])) is not None:
            ancestors.append(above)
        for ancestor in ancestors:
            mine = {i: trie_key for i, trie_key in trie_keys.items() if is_under(trie_key, ancestor)}
            expected = {p: ids for p, ids in groups.items() if is_under(p, ancestor)}
            assert group_below(ancestor, mine, limit) == expected


@given(trie_key_maps, _limits)
def test_paths_sort_as_they_are_grouped(trie_keys: dict[str, str], limit: int | None) -> None:
    paths = list(group(trie_keys, limit))
    assert sorted(paths, key=sort_key) == paths


def test_a_path_lies_under_what_it_begins_with() -> None:
    assert is_under("1/01", "1")
    assert is_under("1/01", "1/0")
    assert is_under("1/01", "1/01")
    assert not is_under("12/01", "1")
    assert not is_under("1/0", "1/01")
    assert (parent("1/01"), parent("1/0"), parent("1")) == ("1/0", "1", None)
