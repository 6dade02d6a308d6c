"""F after a deletion, on the parts of the partition that it touched; the rest is as in the served model.

The same stages as in `derive`, and the same result, because

- the partition's inputs are the sample alone, so while no sampled record changes it stays the served one;
- a change under one path of the partition leaves the clusters under others alone, as long as the path's parent
  holds more than the limit and so stays divided (`grouping`);
- the sums of the global head are always those of the records that are there (`counted`).

So a request costs what it touches, however many records there are. Whatever this rests on, an audit does not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from functools import partial

from lmeraser.data.records import Records
from lmeraser.models.manifest import Cluster, Model, StageResult
from lmeraser.models.partitions.trie import group_below, in_order, lies_under, regions
from lmeraser.pipeline.derive import (
    Derivation,
    Inputs,
    PipelineContext,
    check_counts,
    solve_global_head,
    tune_clusters,
)


def derive_incremental(
    served: Model, places: Iterable[str], inputs: Inputs, records: Records, tools: PipelineContext
) -> Derivation:
    """F on the records as they are now.

    Args:
        served: F on the records as they were.
        places: those of the records that changed.
        inputs: settings, classes and backbone, which are those of the served model; its records are not read.
        records: as they are now; all of them have places and, where codes are needed, codes.
        tools: as for `derive`.
    """
    stage_counts: Counter[str] = Counter()
    global_head = _global_head(inputs, records, tools, stage_counts)
    started, limit = time.perf_counter(), inputs.config.partition.max_records
    known = {cluster.path for cluster in served.clusters}
    paths = regions(places, known, limit, partial(records.count_under, served.partition.key))
    if inputs.config.constituent.kind == "none" and limit is None:
        fresh = _counted(served, paths, records)
        stage_counts.update(tuned=0, tuned_records=0)
    else:
        fresh = list(_tuned(served, paths, inputs, records, tools, stage_counts))
    kept = [cluster for cluster in served.clusters if not any(lies_under(cluster.path, path) for path in paths)]
    clusters = sorted([*kept, *fresh], key=lambda cluster: in_order(cluster.path))
    numbered = (cluster.model_copy(update={"number": number}) for number, cluster in enumerate(clusters))
    seconds = time.perf_counter() - started
    return Derivation(served.partition, tuple(numbered), global_head, dict(stage_counts), seconds)


def _global_head(
    inputs: Inputs, records: Records, tools: PipelineContext, stage_counts: Counter[str]
) -> StageResult | None:
    total = records.count()
    if not inputs.config.needs_statistics or inputs.config.global_head.weight == 0 or not total:
        return None
    sums = tools.counts.sums()
    assert sums is not None
    check_counts(sum(sums.records_by_class) == total)
    return solve_global_head(sums, inputs, tools, stage_counts)


def _counted(served: Model, paths: Iterable[str], records: Records) -> list[Cluster]:
    """Clusters of which nothing but their size is needed."""
    sizes = {path: records.count_under(served.partition.key, path) for path in paths}
    return [Cluster(number=0, path=path, records=size, constituent=None) for path, size in sizes.items() if size]


def _tuned(
    served: Model,
    paths: Iterable[str],
    inputs: Inputs,
    records: Records,
    tools: PipelineContext,
    stage_counts: Counter[str],
) -> tuple[Cluster, ...]:
    """The clusters under these paths; numbers stand in for the final ones."""
    groups: dict[str, list[str]] = {}
    for path in paths:
        places = records.trie_keys_under(served.partition.key, path)
        groups |= group_below(path, places, inputs.config.partition.max_records)
    mine = replace(inputs, records=records.refs(i for ids in groups.values() for i in ids))
    return tune_clusters(mine, dict(enumerate(groups.items())), tools, stage_counts)
