"""From places to clusters: places with the same head are one cluster, divided while it would be too large.

A record's place is a text, ``HEAD`` or ``HEAD/BITS``; it depends on the record alone. A cluster is a path:
``HEAD`` or ``HEAD/`` and the leading bits that its members share. With a limit, a cluster that would hold more
records is divided by the next bit, as a trie is; so the clusters are a function of the set of places, whatever
order they came in. When a record goes, its own cluster changes, and, if what its parent holds sinks to the
limit, the clusters that the parent was divided into become one. Pure functions.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence


def group(places: Mapping[str, str], limit: int | None = None) -> dict[str, list[str]]:
    """Members of each cluster by its path; paths by head and bits, members sorted.

    Args:
        places: of each record.
        limit: the most records that a cluster holds, as long as there are bits to divide it by; None: no limit.
    """
    heads: dict[str, list[tuple[str, str]]] = {}
    for record_id, place in places.items():
        head, _, bits = place.partition("/")
        heads.setdefault(head, []).append((bits, record_id))
    groups: dict[str, list[str]] = {}
    for head in sorted(heads, key=int):
        groups |= _named(head, _divided("", heads[head], limit))
    return groups


def group_below(path: str, places: Mapping[str, str], limit: int | None = None) -> dict[str, list[str]]:
    """As `group` for the records whose places lie under one path, where `group` comes to this path at all."""
    head, _, prefix = path.partition("/")
    members = [(place.partition("/")[2], record_id) for record_id, place in places.items()]
    return _named(head, _divided(prefix, members, limit)) if members else {}


def parent(path: str) -> str | None:
    """The path one bit shorter; None for a head."""
    head, _, bits = path.partition("/")
    if not bits:
        return None
    return f"{head}/{bits[:-1]}" if len(bits) > 1 else head


def lies_under(path: str, other: str) -> bool:
    """Whether a path is another one or begins with it."""
    return path == other or path.startswith(other if "/" in other else f"{other}/")


def in_order(path: str) -> tuple[int, str]:
    """Sorts paths as `group` does: by head, then by bits; no path is the beginning of another."""
    head, _, bits = path.partition("/")
    return int(head), bits


def path_of(place: str, paths: Container[str]) -> str | None:
    """The path of the cluster that a place lies in, if it is among ``paths``."""
    head, _, bits = place.partition("/")
    if head in paths:
        return head
    candidates = (f"{head}/{bits[:length]}" for length in range(1, len(bits) + 1))
    return next((path for path in candidates if path in paths), None)


def regions(
    places: Iterable[str], known: Container[str], limit: int | None, count: Callable[[str], int]
) -> list[str]:
    """Paths under which all clusters that may differ lie: none lies under another.

    Args:
        places: of the records that changed.
        known: paths of the clusters before the change.
        limit: as for `group`.
        count: how many records there are under a path after the change.
    """
    touched = {path for place in places if (path := path_of(place, known)) is not None}
    return sorted({_widened(path, limit, count) for path in touched})


def _widened(path: str, limit: int | None, count: Callable[[str], int]) -> str:
    """The path, or the highest above it that holds no more than the limit and so is one cluster now."""
    while (above := parent(path)) is not None and limit is not None:
        if count(above) > limit:
            break
        path = above
    return path


def _named(head: str, parts: Iterable[tuple[str, list[str]]]) -> dict[str, list[str]]:
    return {f"{head}/{bits}" if bits else head: sorted(members) for bits, members in parts}


def _divided(prefix: str, members: Sequence[tuple[str, str]], limit: int | None) -> list[tuple[str, list[str]]]:
    depth = len(prefix)
    if limit is None or len(members) <= limit or any(len(bits) <= depth for bits, _ in members):
        return [(prefix, [record_id for _, record_id in members])]
    parts = []
    for bit in "01":
        if chosen := [(bits, record_id) for bits, record_id in members if bits[depth] == bit]:
            parts += _divided(prefix + bit, chosen, limit)
    return parts
