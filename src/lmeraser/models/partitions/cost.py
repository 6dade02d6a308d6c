"""The cost of deletion requests on a partition: how many records one request, or a batch of them, tunes again.

A request for a record outside the clustering sample tunes that record's cluster without it; if the cluster's
parent in the trie thereby falls to ``max_records`` records, the clusters under the parent merge and the merged
cluster is tuned. A request for a sampled record fits the partition again; what that costs is simulated
(`unlearning.cost_simulation`). Pure functions of the clusters' sizes; probabilities are added up as integers, so
no percentile depends on rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

_BATCHES = (1, 10, 100)


@dataclass(frozen=True)
class Cost:
    """The cost of deletion requests for uniformly drawn records.

    Attributes:
        records: number of records in the partition.
        clusters: number of clusters with members.
        largest_cluster: number of records in the largest cluster.
        expected_share: expected share of the records that one request tunes again, sample hits included.
        ordinary_share: the same for requests that miss the sample.
        sample_hit_probability: probability that one request hits the sample.
        sample_hit_share: mean share of the records that a sample hit tunes again; None if none was simulated.
        hits_simulated: number of simulated sample hits.
        p50: median of the number of records that one request tunes again.
        p95: 95th percentile of that number.
        max: maximum of that number.
        batches: expected share that a batch of requests tunes again, by the number of requests in it.
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
    """Number of records tuned again if one member of a cluster is deleted, by the cluster's path.

    Args:
        sizes: number of records of every cluster, by path.
        limit: the most records that a cluster holds; None: no limit.
    """
    records_below: Counter[str] = Counter()  # by every prefix of a path
    clusters_below: Counter[str] = Counter()
    for path, size in sizes.items():
        for prefix in _prefixes(path):
            records_below[prefix] += size
            clusters_below[prefix] += 1
    costs = {}
    for path, size in sizes.items():
        ancestors = _prefixes(path)[:-1]
        merged = next(
            (prefix for prefix in ancestors if limit is not None and records_below[prefix] == limit + 1), None
        )
        if merged is None:
            costs[path] = size - 1
        elif size == 1 and clusters_below[merged] == 2:  # the other cluster keeps its members
            costs[path] = 0
        else:
            costs[path] = records_below[merged] - 1
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
    """The cost of deletion requests for uniformly drawn records.

    Args:
        sizes: number of records of every cluster, by path.
        limit: the most records that a cluster holds; None: no limit.
        sampled: number of records that the partition is fitted on.
        hits: number of records tuned again by each simulated sample hit.
        tuned: whether clusters have constituents; without, no request tunes anything.
        together: whether all clusters are tuned together; then every request tunes all of them.
    """
    total = sum(sizes.values())
    costs = ordinary_costs(sizes, limit) if tuned else dict.fromkeys(sizes, 0)
    if together:
        costs = dict.fromkeys(sizes, total - 1)
        hits = [total - 1] * len(hits)
    units = {"": total} if together else sizes
    weighted = _weighted_costs(sizes, costs, sampled, hits)
    weight = sum(weight for _, weight in weighted)
    hit_probability = sampled / total if hits else 0.0
    hit_share = sum(hits) / len(hits) / total if hits else None
    return Cost(
        records=total,
        clusters=len(sizes),
        largest_cluster=max(sizes.values()),
        expected_share=sum(cost * part for cost, part in weighted) / (weight * total),
        ordinary_share=sum(costs[path] * size for path, size in sizes.items()) / total**2,
        sample_hit_probability=hit_probability,
        sample_hit_share=hit_share,
        hits_simulated=len(hits),
        p50=_percentile(weighted, 50),
        p95=_percentile(weighted, 95),
        max=max(cost for cost, _ in weighted),
        batches={n: _batch_share(units if tuned else {}, hit_probability, hit_share, n) for n in _BATCHES},
    )


def _prefixes(path: str) -> list[str]:
    """The paths of a cluster and of all nodes above it, the shortest first."""
    root, _, bits = path.partition("/")
    return [f"{root}/{bits[:length]}" for length in range(len(bits) + 1)]


def _weighted_costs(
    sizes: Mapping[str, int], costs: Mapping[str, int], sampled: int, hits: Sequence[int]
) -> list[tuple[int, int]]:
    """Costs with their probabilities, as integers over a common denominator.

    With N records and n of them sampled, a request hits the sample with probability n / N and then has one of the
    simulated costs; it misses with (N - n) / N and then hits a cluster of k records with k / N. All of it is
    multiplied by N * N * len(hits).
    """
    total = sum(sizes.values())
    if not hits:
        return [(costs[path], size) for path, size in sizes.items()]
    missed = [(costs[path], (total - sampled) * size * len(hits)) for path, size in sizes.items()]
    return missed + [(hit, sampled * total) for hit in hits]


def _percentile(weighted: Sequence[tuple[int, int]], percent: int) -> int:
    """The smallest cost that at least ``percent`` per cent of the requests do not exceed."""
    whole = sum(weight for _, weight in weighted)
    cumulative = 0
    for cost, weight in sorted(weighted):
        cumulative += weight
        if 100 * cumulative >= percent * whole:
            return cost
    return max(cost for cost, _ in weighted)


def _batch_share(sizes: Mapping[str, int], hit_probability: float, hit_share: float | None, count: int) -> float:
    """Expected share tuned again by ``count`` requests: the clusters they hit, or the cost of a sample hit."""
    total = sum(sizes.values())
    affected = sum(size / total * (1 - (1 - size / total) ** count) for size in sizes.values())
    missed = (1 - hit_probability) ** count
    return missed * affected + (1 - missed) * max(affected, hit_share or 0.0)
