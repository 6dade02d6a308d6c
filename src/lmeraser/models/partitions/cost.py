"""The cost of deletion requests on a partition: how many records one request, or a batch of them, tunes again.

One definition for every report (status, plan, evaluation, figures, pages, the demo): a request names one record,
drawn uniformly.

- If the record is outside the clustering sample, its cluster is tuned without it; if the cluster's parent in the
  trie thereby falls to ``max_records`` records, the clusters under the parent merge, and the merged cluster is
  tuned.
- If it is in the sample, the partition is fitted again, and nearly all clusters change: it counts as tuning all
  other records. So `Cost.expected_share`, the percentiles and the maximum include sample hits and are never too
  low. What a hit costs on this partition can be simulated (`unlearning.cost_simulation`); `Cost.simulated_share`
  is the expected share with that.

Pure functions of the clusters' sizes; probabilities are added up as integers, so no percentile depends on
rounding.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

_BATCHES = (1, 10, 100)

CostCounts = Counter[tuple[int, int]]  # how many clusters have so many records, and so many that are tuned again


@dataclass(frozen=True)
class Cost:
    """The cost of deletion requests for uniformly drawn records.

    Attributes:
        records: number of records in the partition.
        clusters: number of clusters with members.
        largest_cluster: number of records in the largest cluster.
        expected_share: expected share of the records that one request tunes again; a sample hit counts as all.
        ordinary_share: the same for requests that miss the sample.
        sample_hit_probability: probability that one request hits the sample.
        sample_hit_share: mean share of the records that a sample hit tunes again; None if none was simulated.
        simulated_share: expected share with the simulated cost of hits; None if none was simulated though there
            is a sample.
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
    simulated_share: float | None
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


def cost_counts(sizes: Mapping[str, int], limit: int | None) -> CostCounts:
    """Number of clusters by their records and by the records that are tuned again if a member is deleted.

    Args:
        sizes: number of records of every cluster, by path.
        limit: the most records that a cluster holds; None: no limit.
    """
    costs = ordinary_costs(sizes, limit)
    return Counter((size, costs[path]) for path, size in sizes.items())


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
        hits: number of records tuned again by each simulated sample hit; empty: none was simulated.
        tuned: whether clusters have constituents; without, no request tunes anything.
        together: whether all clusters are tuned together; then every request tunes all of them.
    """
    counts = cost_counts(sizes, limit)
    return cost_of_counts(counts, sampled=sampled, hits=hits, tuned=tuned, together=together)


def cost_of_counts(
    counts: CostCounts,
    *,
    sampled: int = 0,
    hits: Sequence[int] = (),
    tuned: bool = True,
    together: bool = False,
) -> Cost:
    """As `cost_of`, from what `cost_counts` gives; takes no longer for more clusters."""
    total = sum(size * number for (size, _), number in counts.items())
    if total == 0:
        return Cost(0, 0, 0, 0.0, 0.0, 0.0, None, 0.0, 0, 0, 0, 0, dict.fromkeys(_BATCHES, 0.0))
    at_hit = total - 1 if tuned else 0
    sizes = Counter[int]()
    costs = Counter[int]()  # number of records by the cost of a request for one of them
    for (size, cost), number in sorted(counts.items()):
        sizes[size] += number
        costs[(at_hit if together else cost) if tuned else 0] += size * number
    weighted = [(cost, (total - sampled) * records) for cost, records in costs.items()]
    weighted = [(cost, weight) for cost, weight in [*weighted, (at_hit, sampled * total)] if weight]
    ordinary_share = sum(cost * records for cost, records in costs.items()) / total**2
    hit_probability = sampled / total
    hit_share = None
    if hits:
        hit_share = at_hit / total if together or not tuned else sum(hits) / len(hits) / total
    simulated = ordinary_share if not sampled else None
    if hit_share is not None:
        simulated = (1 - hit_probability) * ordinary_share + hit_probability * hit_share
    units = {total: 1} if together else sizes
    return Cost(
        records=total,
        clusters=sum(sizes.values()),
        largest_cluster=max(sizes),
        expected_share=sum(cost * weight for cost, weight in weighted) / total**3,
        ordinary_share=ordinary_share,
        sample_hit_probability=hit_probability,
        sample_hit_share=hit_share,
        simulated_share=simulated,
        hits_simulated=len(hits),
        p50=_percentile(weighted, 50),
        p95=_percentile(weighted, 95),
        max=max(cost for cost, _ in weighted),
        batches={n: _batch_share(units if tuned else {}, hit_probability, n) for n in _BATCHES},
    )


def _prefixes(path: str) -> list[str]:
    """The paths of a cluster and of all nodes above it, the shortest first."""
    root, _, bits = path.partition("/")
    return [f"{root}/{bits[:length]}" for length in range(len(bits) + 1)]


def _percentile(weighted: Sequence[tuple[int, int]], percent: int) -> int:
    """The smallest cost that at least ``percent`` per cent of the requests do not exceed."""
    whole = sum(weight for _, weight in weighted)
    cumulative = 0
    for cost, weight in sorted(weighted):
        cumulative += weight
        if 100 * cumulative >= percent * whole:
            return cost
    return max(cost for cost, _ in weighted)


def _batch_share(sizes: Mapping[int, int], hit_probability: float, count: int) -> float:
    """Expected share tuned again by ``count`` requests: the clusters they hit; everything after a sample hit.

    Args:
        sizes: number of clusters by their records; empty: nothing is tuned.
        hit_probability: that one request hits the sample.
        count: of requests.
    """
    if not sizes:
        return 0.0
    total = sum(size * number for size, number in sizes.items())
    affected = sum(number * size / total * (1 - (1 - size / total) ** count) for size, number in sizes.items())
    missed = (1 - hit_probability) ** count
    return missed * affected + (1 - missed)
