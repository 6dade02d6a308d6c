"""Incremental derivation: run the training function only on the parts of the partition that a change affects.

The stages and the result are those of `Pipeline.derive`, because

- the partition's inputs are the sample alone, so it stays the served one while no sampled record changes;
- a change under one path of the partition leaves the clusters under others alone, as long as the path's parent
  holds more than the limit and so stays divided (`trie`);
- the sufficient statistics always cover the records that are there (`data.statistics`).

So the cost of a request depends on the clusters that it affects, not on the number of records. An audit relies on
none of this: it always derives everything.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from functools import partial

from lmeraser.models.cluster import Cluster, StageResult
from lmeraser.models.manifest import Model
from lmeraser.models.partitions.trie import affected_paths, group_below
from lmeraser.pipeline.caches import PartitionedRecords
from lmeraser.pipeline.derive import Derivation, Pipeline, require_matching_statistics


def derive_incremental(
    pipeline: Pipeline, served: Model, trie_keys: Iterable[str], records: PartitionedRecords
) -> Derivation:
    """Derive the model of the records as they are now from the served model and what has changed since.

    Args:
        pipeline: with the settings, classes and backbone of the served model; its records are not read.
        served: the model of the records as they were.
        trie_keys: those of the records that changed.
        records: as they are now; all of them have trie keys and, where the settings need statistics, are included
            in them.
    """
    config = pipeline.inputs.config
    global_head = _global_head(pipeline, records)
    started = time.perf_counter()
    limit = config.partition.max_records
    count_under = partial(records.derived.count_under, served.partition.key)
    paths = affected_paths(trie_keys, served.clusters.numbers, limit, count_under)
    if config.constituent.kind == "none" and limit is None:
        changed = _resized(served, paths, records)
        pipeline.stage_counts.update(tuned=0, tuned_records=0)
    else:
        changed = _retuned(pipeline, served, paths, records)
    clusters = served.clusters.replaced(paths, changed, limit=limit)
    seconds = time.perf_counter() - started
    return Derivation(served.partition, clusters, global_head, dict(pipeline.stage_counts), seconds)


def _global_head(pipeline: Pipeline, records: PartitionedRecords) -> StageResult | None:
    config = pipeline.inputs.config
    total = records.count()
    if not config.needs_statistics or config.global_head.weight == 0 or not total:
        return None
    statistics = pipeline.context.statistics.current()
    assert statistics is not None
    require_matching_statistics(sum(statistics.records_by_class) == total)
    return pipeline.solve_global_head(statistics)


def _resized(served: Model, paths: Sequence[str], records: PartitionedRecords) -> Sequence[Cluster]:
    """The clusters at these paths where nothing is tuned and none is divided: only their sizes change.

    A single one has as many records less as there are less of all, which need not be counted one by one.
    """
    if len(paths) == 1:
        before = served.clusters[served.clusters.numbers[paths[0]]].records
        sizes = {paths[0]: before - (served.records - records.count())}
    else:
        sizes = {path: records.derived.count_under(served.partition.key, path) for path in paths}
    return [Cluster(number=0, path=path, records=size, constituent=None) for path, size in sizes.items() if size]


def _retuned(
    pipeline: Pipeline, served: Model, paths: Iterable[str], records: PartitionedRecords
) -> Sequence[Cluster]:
    """The clusters under these paths, with provisional numbers."""
    limit = pipeline.inputs.config.partition.max_records
    groups: dict[str, list[str]] = {}
    for path in paths:
        trie_keys = records.derived.trie_keys_under(served.partition.key, path)
        groups |= group_below(path, trie_keys, limit)
    members = records.refs(record_id for ids in groups.values() for record_id in ids)
    return pipeline.restricted_to(members).tune_clusters(dict(enumerate(groups.items())))
