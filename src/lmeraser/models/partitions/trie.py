"""Clusters as the leaves of binary tries over the records' trie keys.

A partition gives each record a trie key, ``ROOT`` or ``ROOT/BITS`` (``"7"``, ``"7/0110..."``). ROOT is a number,
such as that of the nearest prototype; BITS is a string of ``0`` and ``1``, such as the record's hash. All records
with the same root belong to one trie:

- without a limit on the records of a cluster, each root is one cluster, and the bits are not used;
- with a limit, a cluster that exceeds it is split by the next bit, again and again, until no cluster exceeds the
  limit or there are no bits left.

A cluster is named by its path: the root and the leading bits that its members share, for instance ``7/01``.
Clusters are therefore a function of the set of trie keys, whatever order the records came in. If a record is
deleted, its own cluster changes; and if the number of records under a parent node thereby falls to the limit, the
clusters below that parent are merged into one. No other cluster changes. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence


def group(trie_keys: Mapping[str, str], limit: int | None = None) -> dict[str, list[str]]:
    """Members of each cluster by its path; ordered by root and bits, members sorted.

    Args:
        trie_keys: of each record id.
        limit: the most records that a cluster holds, as long as there are bits to split it by; None: no limit.
    """
    roots: dict[str, list[tuple[str, str]]] = {}
    for record_id, trie_key in trie_keys.items():
        root, _, bits = trie_key.partition("/")
        roots.setdefault(root, []).append((bits, record_id))
    clusters: dict[str, list[str]] = {}
    for root in sorted(roots, key=int):
        clusters |= _by_path(root, _split("", roots[root], limit))
    return clusters


def group_below(path: str, trie_keys: Mapping[str, str], limit: int | None = None) -> dict[str, list[str]]:
    """As `group`, for the records under one path alone.

    The path has to be that of a cluster or of a node that `group` splits; then the result is the part of `group`
    that lies under it.
    """
    root, _, prefix = path.partition("/")
    members = [(trie_key.partition("/")[2], record_id) for record_id, trie_key in trie_keys.items()]
    return _by_path(root, _split(prefix, members, limit)) if members else {}


def parent(path: str) -> str | None:
    """The path with one bit less; None for a root."""
    root, _, bits = path.partition("/")
    if not bits:
        return None
    return f"{root}/{bits[:-1]}" if len(bits) > 1 else root


def is_under(path: str, ancestor: str) -> bool:
    """Whether a path or trie key is ``ancestor`` itself or lies under it."""
    return path == ancestor or path.startswith(ancestor if "/" in ancestor else f"{ancestor}/")


def sort_key(path: str) -> tuple[int, str]:
    """Sorts the paths of clusters as `group` does: by root, then by bits."""
    root, _, bits = path.partition("/")
    return int(root), bits


def find_path(trie_key: str, paths: Container[str]) -> str | None:
    """The path among ``paths`` of the cluster that a trie key lies in; None if there is none."""
    root, _, bits = trie_key.partition("/")
    if root in paths:
        return root
    candidates = (f"{root}/{bits[:length]}" for length in range(1, len(bits) + 1))
    return next((path for path in candidates if path in paths), None)


def affected_paths(
    trie_keys: Iterable[str], known: Container[str], limit: int | None, count: Callable[[str], int]
) -> list[str]:
    """Paths that cover all clusters that may differ after a deletion; none lies under another.

    Args:
        trie_keys: of the records that changed.
        known: paths of the clusters before the change.
        limit: as for `group`.
        count: gives the number of records under a path after the change.
    """
    changed = {path for trie_key in trie_keys if (path := find_path(trie_key, known)) is not None}
    return sorted({_merged(path, limit, count) for path in changed})


def _merged(path: str, limit: int | None, count: Callable[[str], int]) -> str:
    """The path, or its highest ancestor that holds no more records than the limit and so is one cluster now."""
    while (above := parent(path)) is not None and limit is not None:
        if count(above) > limit:
            break
        path = above
    return path


def _by_path(root: str, parts: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    return {f"{root}/{bits}" if bits else root: sorted(members) for bits, members in parts}


def _split(prefix: str, members: Sequence[tuple[str, str]], limit: int | None) -> list[tuple[str, list[str]]]:
    """Bits and record ids of each cluster under a prefix; ``members`` are pairs of bits and record id."""
    depth = len(prefix)
    if limit is None or len(members) <= limit or any(len(bits) <= depth for bits, _ in members):
        return [(prefix, [record_id for _, record_id in members])]
    parts = []
    for bit in "01":
        if chosen := [(bits, record_id) for bits, record_id in members if bits[depth] == bit]:
            parts += _split(prefix + bit, chosen, limit)
    return parts
