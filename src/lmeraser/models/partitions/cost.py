"""What requests cost on a partition: records tuned again by one uniform request, and by batches of them.

A request that misses the sample tunes its cluster again, without the record; where the cluster's parent sinks to
``max_records`` by it, the parent is one cluster again and is tuned. A request that hits the clustering sample
derives the partition again; what that costs, `simulation` finds out. Pure functions of the clusters' sizes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

_BATCHES = (1, 10, 100)


@dataclass(frozen=True)
class Cost:
    """The cost of uniform requests.

    Attributes:
        records: in the partition.
        clusters: with members.
        largest_cluster: records in the largest.
        expected_share: of the records, tuned again by one request; sample hits included.
        ordinary_share: the same, of requests that miss the sample.
        sample_hit_probability: of one request.
        sample_hit_share: of the records, tuned again by one that hits; None if none can.
        hits_simulated: from how many that was found.
        p50: median of the records tuned again by one request.
        p95: 95th percentile.
        max: the most.
        batches: expected share of a batch, by its number of requests.
    """

    records: int
    clusters: int
    largest_cluster: int
    expected_share: float
    ordinary_share: float
    sample_hit_probability: float
    sample_hit_share: float | None
    hits_simulated: int
    p50: int
    p95: int
    max: int
    batches: Mapping[int, float]

    def to_json(self) -> dict[str, object]:
        """The cost as JSON values."""
        return asdict(self)


def ordinary_costs(sizes: Mapping[str, int], limit: int | None) -> dict[str, int]:
    """Records tuned again when one member of a cluster goes, by the cluster's path.

    Args:
        sizes: of all clusters, by path.
        limit: the most records that a cluster holds.
    """
    below: Counter[str] = Counter()  # records, and clusters, under every prefix of a path
    parts: Counter[str] = Counter()
    for path, size in sizes.items():
        for prefix in _prefixes(path):
            below[prefix] += size
            parts[prefix] += 1
    costs = {}
    for path, size in sizes.items():
        parents = _prefixes(path)[:-1]
        joined = next((prefix for prefix in parents if limit is not None and below[prefix] == limit + 1), None)
        if joined is None:
            costs[path] = size - 1
        else:  # of two clusters, one of which held this record alone, the other one stays what it was
            costs[path] = 0 if size == 1 and parts[joined] == 2 else below[joined] - 1
    return costs


def cost_of(
    sizes: Mapping[str, int],
    limit: int | None,
    *,
    sampled: int = 0,
    hits: Sequence[int] = (),
    tuned: bool = True,
    together: bool = False,
) -> Cost:
    """The cost of uniform requests.

    Args:
        sizes: of all clusters, by path.
        limit: the most records that a cluster holds.
        sampled: how many records shape the partition.
        hits: records tuned again by each simulated hit.
        tuned: whether clusters have constituents; without, no request costs anything.
        together: whether all clusters are tuned together; then every request costs all.
    """
    total = sum(sizes.values())
    costs = ordinary_costs(sizes, limit) if tuned else dict.fromkeys(sizes, 0)
    if together:
        costs, hits = dict.fromkeys(sizes, total - 1), [total - 1] * len(hits)
    units = {"": total} if together else sizes
    chance = sampled / total if hits else 0.0
    weighted = [(costs[path], (1 - chance) * size / total) for path, size in sizes.items()]
    weighted += [(hit, chance / len(hits)) for hit in hits]
    ordinary = sum(costs[path] * size for path, size in sizes.items()) / total**2
    hit_share = sum(hits) / len(hits) / total if hits else None
    return Cost(
        records=total,
        clusters=len(sizes),
        largest_cluster=max(sizes.values()),
        expected_share=sum(cost * weight for cost, weight in weighted) / total,
        ordinary_share=ordinary,
        sample_hit_probability=chance,
        sample_hit_share=hit_share,
        hits_simulated=len(hits),
        p50=_percentile(weighted, 0.5),
        p95=_percentile(weighted, 0.95),
        max=max(cost for cost, _ in weighted),
        batches={count: _batch_share(units if tuned else {}, chance, hit_share, count) for count in _BATCHES},
    )


def _prefixes(path: str) -> list[str]:
    """The paths of a cluster and of all that it was divided from, the shortest first."""
    head, _, bits = path.partition("/")
    return [f"{head}/{bits[:length]}" for length in range(len(bits) + 1)]


def _percentile(weighted: Sequence[tuple[int, float]], share: float) -> int:
    reached = 0.0
    for cost, weight in sorted(weighted):
        reached += weight
        if reached >= share - 1e-12:
            return cost
    return max(cost for cost, _ in weighted)


def _batch_share(sizes: Mapping[str, int], chance: float, hit_share: float | None, count: int) -> float:
    """Share tuned again by so many requests at once: every touched cluster, or what a hit of the sample costs."""
    total = sum(sizes.values())
    touched = sum(size / total * (1 - (1 - size / total) ** count) for size in sizes.values())
    missed = (1 - chance) ** count
    return missed * touched + (1 - missed) * max(touched, hit_share or 0.0)
