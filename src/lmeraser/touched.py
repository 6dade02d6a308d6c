"""F after a deletion, on the parts of the partition that it touched; the rest is as in the served model.

The same stages as in `derive`, and the same result, because

- the partition's inputs are the sample alone, so while no sampled record changes it stays the served one;
- clusters are made head by head (`grouping`), so a head that no change touched has the clusters it had;
- the sums of the global head are always those of the records that are there (`counted`).

So a request costs what it touches, however many records there are. Whatever this rests on, an audit does not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

from lmeraser.derive import Derivation, Inputs, Tools, check_counts, solve_global_head, tune_clusters
from lmeraser.grouping import group, in_order
from lmeraser.model import Cluster, Model, StageResult
from lmeraser.records import Records


def derive_touched(
    served: Model, heads: Iterable[str], inputs: Inputs, records: Records, tools: Tools
) -> Derivation:
    """F on the records as they are now.

    Args:
        served: F on the records as they were.
        heads: those of the partition under which records changed.
        inputs: settings, classes and backbone, which are those of the served model; its records are not read.
        records: as they are now; all of them have places and, where codes are needed, codes.
        tools: as for `derive`.
    """
    ran: Counter[str] = Counter()
    global_head = _global_head(inputs, records, tools, ran)
    changed, started = sorted(set(heads)), time.perf_counter()
    if inputs.config.constituent.kind == "none" and inputs.config.partition.max_records is None:
        fresh = _counted(served, changed, records)
        ran.update(tuned=0, tuned_records=0)
    else:
        fresh = list(_tuned(served, changed, inputs, records, tools, ran))
    kept = [cluster for cluster in served.clusters if _head(cluster) not in changed]
    clusters = sorted([*kept, *fresh], key=lambda cluster: in_order(cluster.path))
    numbered = (cluster.model_copy(update={"number": number}) for number, cluster in enumerate(clusters))
    seconds = time.perf_counter() - started
    return Derivation(served.partition, tuple(numbered), global_head, dict(ran), seconds)


def _global_head(inputs: Inputs, records: Records, tools: Tools, ran: Counter[str]) -> StageResult | None:
    total = records.count()
    if not inputs.config.needs_codes or inputs.config.global_head.weight == 0 or not total:
        return None
    sums = tools.counts.sums()
    assert sums is not None
    check_counts(sum(sums.records_by_class) == total)
    return solve_global_head(sums, inputs, tools, ran)


def _counted(served: Model, heads: Iterable[str], records: Records) -> list[Cluster]:
    """Clusters of which nothing but their size is needed."""
    sizes = {head: records.count_under_head(served.partition.key, head) for head in heads}
    return [Cluster(number=0, path=head, records=size, constituent=None) for head, size in sizes.items() if size]


def _tuned(
    served: Model, heads: Iterable[str], inputs: Inputs, records: Records, tools: Tools, ran: Counter[str]
) -> tuple[Cluster, ...]:
    """The clusters under these heads; numbers stand in for the final ones."""
    key = served.partition.key
    places = {i: place for head in heads for i, place in records.under_head(key, head).items()}
    groups = group(places, inputs.config.partition.max_records)
    mine = replace(inputs, records=records.refs(places))
    return tune_clusters(mine, dict(enumerate(groups.items())), tools, ran)


def _head(cluster: Cluster) -> str:
    return cluster.path.partition("/")[0]
