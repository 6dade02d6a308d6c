"""The clusters of a model: in a list, or in the pages in which a manifest of many clusters keeps them.

A manifest of few clusters lists them itself. One of many names *pages* (`cluster_page`): files under their own
digests, each with a run of clusters. A generation that differs from the one before in one cluster then shares all
pages but one with it, so a deletion writes a page and the list of pages, not a hundred thousand clusters.

Rules:
- clusters are sorted by `partitions.trie.sort_key`, and a cluster's number is its place among all of them;
- where pages end is a function of the clusters that are there, and says nothing about those that were;
- the digest of a model in pages is that of the same model in one list.

Knows nothing about files; `workspace.registry` keeps pages on disk.
"""

from __future__ import annotations

import bisect
import itertools
from collections import Counter, deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

from lmeraser.core.digests import Digest
from lmeraser.models.cluster import Cluster
from lmeraser.models.cluster_page import Page, compact, ends_page, in_model, in_runs
from lmeraser.models.partitions.cost import CostCounts, cost_counts
from lmeraser.models.partitions.trie import is_under, parent, sort_key

MOST_IN_A_LIST = 512  # clusters; with more of them a manifest is in pages


class Clusters(Sequence[Cluster]):
    """The clusters of a model, in a list or in pages (`arranged`); a cluster's number is its place.

    Attributes:
        pages: those of the clusters, in their order; none of a list.
    """

    pages: tuple[Page, ...] = ()

    @property
    def records(self) -> int:
        """Number of members of all clusters."""
        return sum(cluster.records for cluster in self)

    @property
    def fingerprints(self) -> set[Digest]:
        """Fingerprints of the environments in which their parts were computed."""
        return {each.fingerprint for cluster in self for each in cluster.results}

    @cached_property
    def numbers(self) -> Mapping[str, int]:
        """The number of each cluster, by its path."""
        return {cluster.path: cluster.number for cluster in self}

    def numbered(self, numbers: Iterable[int]) -> Iterator[Cluster]:
        """The clusters with some numbers, given in ascending order."""
        return (self[number] for number in numbers)

    def outside(self, pages: Container[Digest]) -> Iterator[Cluster]:
        """The clusters that are in none of some pages."""
        return iter(self)

    def model_parts(self) -> Iterator[bytes]:
        """What the model's digest covers of the clusters, in pieces: a list in canonical JSON."""
        yield compact([in_model(cluster) for cluster in self])

    def costs(self, limit: int | None) -> CostCounts:
        """What `partitions.cost.cost_counts` gives for these clusters.

        Args:
            limit: the most records that a cluster holds; None: no limit.
        """
        return cost_counts({cluster.path: cluster.records for cluster in self}, limit)

    def replaced(self, paths: Iterable[str], changed: Iterable[Cluster], *, limit: int | None = None) -> Clusters:
        """Other clusters under some paths; pages without any of them are those of before.

        Args:
            paths: none lies under another.
            changed: all clusters that are under these paths then, in any order and with any numbers.
            limit: the most records that a cluster holds; None: no limit.
        """
        return ClusterPages.of(self).replaced(paths, changed, limit=limit)


class ClusterList(tuple[Cluster, ...], Clusters):
    """The clusters of a model in a list."""


class ClusterPages(Clusters):
    """The clusters of a model in pages, of which each is parsed when it is needed.

    Args:
        pages: those of the clusters, in their order.
        costs: what `costs` gives for a limit, and this limit; None: not counted yet.
    """

    def __init__(self, pages: Iterable[Page], costs: tuple[int | None, CostCounts] | None = None) -> None:
        self.pages = tuple(pages)
        self._costs = costs

    @classmethod
    def of(cls, clusters: Iterable[Cluster]) -> ClusterPages:
        """These clusters in pages; they are sorted, and numbered from 0 on."""
        return cls(map(Page.of, in_runs(clusters)))

    @cached_property
    def _starts(self) -> list[int]:
        """Number of the first cluster of each page, and the number of clusters."""
        return [0, *itertools.accumulate(page.entry.clusters for page in self.pages)]

    @cached_property
    def _last(self) -> list[tuple[int, str]]:
        return [sort_key(page.entry.last) for page in self.pages]

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[Cluster]:
        return self.outside(())

    @overload
    def __getitem__(self, index: int) -> Cluster: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Cluster]: ...

    def __getitem__(self, index: int | slice) -> Cluster | Sequence[Cluster]:
        numbers = range(len(self))[index]
        return next(self.numbered([numbers])) if isinstance(numbers, int) else tuple(self)[index]

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, ClusterPages):
            return NotImplemented
        return [page.digest for page in self.pages] == [page.digest for page in other.pages]

    @property
    def records(self) -> int:
        """As the manifest tells of each page."""
        return sum(page.entry.records for page in self.pages)

    @property
    def fingerprints(self) -> set[Digest]:
        """As the manifest tells of each page."""
        return {fingerprint for page in self.pages for fingerprint in page.entry.fingerprints}

    @property
    def numbers(self) -> Mapping[str, int]:
        """A page is parsed when one of its paths is looked up."""
        return _Numbers(self.pages, self._starts, self._last)

    def numbered(self, numbers: Iterable[int]) -> Iterator[Cluster]:
        """Each of their pages is parsed once."""
        for page, group in itertools.groupby(
            numbers, key=lambda number: bisect.bisect_right(self._starts, number)
        ):
            first = self._starts[page - 1]
            yield from self.pages[page - 1].clusters(first, [number - first for number in group])

    def outside(self, pages: Container[Digest]) -> Iterator[Cluster]:
        """Those pages are not parsed."""
        for page, first in zip(self.pages, self._starts, strict=False):
            if page.digest not in pages:
                yield from page.clusters(first)

    def model_parts(self) -> Iterator[bytes]:
        """Each page begins with its part; none is parsed."""
        yield b"["
        for place, page in enumerate(self.pages):
            if place:
                yield b","
            yield page.model_part
        yield b"]"

    def costs(self, limit: int | None) -> CostCounts:
        """Counted once; a generation goes on from what was counted of the one before."""
        if self._costs is None or self._costs[0] != limit:
            self._costs = limit, super().costs(limit)
        return self._costs[1]

    def _sizes_under(self, path: str) -> Iterator[tuple[str, int]]:
        """Path and number of records of the clusters under a path."""
        start = sort_key(path)
        for page in (self.pages[number] for number in self._pages_under(path)):
            rows = itertools.islice(page.rows.items(), bisect.bisect_left(page.sort_keys, start), None)
            for each, (_, size) in rows:
                if not is_under(each, path):
                    break
                yield each, size

    def replaced(self, paths: Iterable[str], changed: Iterable[Cluster], *, limit: int | None = None) -> Clusters:
        """Makes the pages anew that have, or would have, clusters under these paths."""
        paths = tuple(paths)
        after = self._replaced(paths, changed)
        if self._costs is not None and self._costs[0] == limit:
            after._costs = limit, _recounted(self._costs[1], self, after, paths, limit)
        return arranged(after)

    def _replaced(self, paths: Iterable[str], changed: Iterable[Cluster]) -> ClusterPages:
        gone = frozenset(paths)
        touched = set().union(*map(self._pages_under, gone))
        waiting = deque(sorted(changed, key=lambda cluster: sort_key(cluster.path)))
        pages = list[Page]()
        opened = list[Cluster]()  # behind the last page that is complete
        for number, page in enumerate(self.pages):
            if number not in touched and not opened:
                pages.append(page)
                continue
            clusters = [cluster for cluster in page.clusters() if gone.isdisjoint(_with_ancestors(cluster.path))]
            while waiting and sort_key(waiting[0].path) <= self._last[number]:
                clusters.append(waiting.popleft())
            runs = list(in_runs([*opened, *sorted(clusters, key=lambda cluster: sort_key(cluster.path))]))
            opened = [] if not runs or ends_page(runs[-1][-1].path) else runs.pop()
            pages += map(Page.of, runs)
        return ClusterPages([*pages, *map(Page.of, in_runs([*opened, *waiting]))])

    def _pages_under(self, path: str) -> range:
        """Numbers of the pages that have, or would have, clusters under a path."""
        root, bits = sort_key(path)
        stop = (root, f"{bits}2") if bits else (root + 1, "")  # "2" follows the bits
        last = len(self.pages) - 1
        first = min(bisect.bisect_left(self._last, (root, bits)), last)
        return range(max(first, 0), min(bisect.bisect_left(self._last, stop), last) + 1)


class _Numbers(Mapping[str, int]):
    """Numbers of clusters in pages, by path; a page is parsed when one of its paths is looked up.

    Args:
        pages: those of the clusters.
        starts: number of the first cluster of each page, and the number of clusters.
        last: `sort_key` of the last path of each page.
    """

    def __init__(self, pages: Sequence[Page], starts: Sequence[int], last: Sequence[tuple[int, str]]) -> None:
        self._pages = pages
        self._starts = starts
        self._last = last

    def __getitem__(self, path: str) -> int:
        page = bisect.bisect_left(self._last, sort_key(path))
        if page == len(self._pages):
            raise KeyError(path)
        return self._starts[page] + self._pages[page].rows[path][0]

    def __iter__(self) -> Iterator[str]:
        return itertools.chain.from_iterable(page.rows for page in self._pages)

    def __len__(self) -> int:
        return self._starts[-1]


def arranged(clusters: Sequence[Cluster]) -> Clusters:
    """Clusters as a manifest keeps them: in a list if there are few of them, else in pages."""
    if len(clusters) <= MOST_IN_A_LIST:
        return ClusterList(clusters)
    return clusters if isinstance(clusters, ClusterPages) else ClusterPages.of(clusters)


def _recounted(
    counts: CostCounts, before: ClusterPages, after: ClusterPages, paths: Iterable[str], limit: int | None
) -> CostCounts:
    """The costs after a change under some paths.

    A cluster's cost depends on its own size, and on the one ancestor that holds a record more than the limit
    (`partitions.cost`). So it may change under a changed path, and under those of the path's ancestors that held
    no more than that before or hold no more now; clusters under others are not looked at.
    """
    anchors = {_anchor(before, after, path, limit) for path in paths}
    counts = counts.copy()
    for anchor in anchors:
        if anchors.isdisjoint(itertools.islice(_with_ancestors(anchor), 1, None)):
            counts.subtract(cost_counts(dict(before._sizes_under(anchor)), limit))
            counts.update(cost_counts(dict(after._sizes_under(anchor)), limit))
    return Counter({cell: number for cell, number in counts.items() if number})


def _anchor(before: ClusterPages, after: ClusterPages, path: str, limit: int | None) -> str:
    """The highest ancestor of a path under which costs may have changed, or the path."""
    while limit is not None and (above := parent(path)) is not None:
        if all(_exceeds(pages._sizes_under(above), limit + 1) for pages in (before, after)):
            break
        path = above
    return path


def _exceeds(sizes: Iterable[tuple[str, int]], bound: int) -> bool:
    """Whether the sum of sizes exceeds a bound; looks at no more of them than that takes."""
    return any(total > bound for total in itertools.accumulate(size for _, size in sizes))


def _with_ancestors(path: str) -> Iterator[str]:
    above: str | None = path
    while above is not None:
        yield above
        above = parent(above)
