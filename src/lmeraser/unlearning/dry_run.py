"""The dry run of a deletion: what would go, what would be tuned again, how long it would take.

Reads the workspace and changes nothing. A request that misses the clustering sample is answered from the places
of the records. After a sample hit the partition is derived for real, from stored features, so that the answer
is exact; only then are numerical modules imported, and the backbone only if a feature is missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.models.manifest import Model
from lmeraser.models.partitions.trie import affected_paths, group, group_below, is_under
from lmeraser.unlearning.plan import Plan, plan
from lmeraser.workspace.freshness import current_model
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.selection import resolve
from lmeraser.workspace.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lmeraser.config.schema import View
    from lmeraser.pipeline.executors.base import Executor, Fetch, TuneResult, TuneTask, Vector


def dry_run(
    workspace: Workspace,
    executor: Callable[[], Executor],
    selector: Selector,
    *,
    progress: Progress = silent,
) -> Plan:
    """What `unlearn` would do with the same selector.

    Raises:
        UnknownRecordError: names that this workspace never held, all of them listed.
        NoModelError: there is no model, or it is not up to date.
    """
    selection = resolve(workspace.records, selector)
    model = current_model(workspace)
    removed = set(selection.ids)
    hit = workspace.records.any_sampled(model.partition.key, removed)
    before: Mapping[str, int]
    after: Mapping[str, int]
    if not model.tuned:
        before, after, gone = {}, {}, removed
    elif hit:
        before, gone = model.cluster_numbers(workspace.records.trie_keys(model.partition.key)), removed
        after = _divide_again(workspace, model, removed, executor, progress)
    elif model.together:
        before, gone = model.cluster_numbers(workspace.records.trie_keys(model.partition.key)), removed
        after = _grouped_without(workspace, model, removed)
    else:
        before, after, gone = _touched(workspace, model, removed)
    return plan(
        model,
        before,
        after,
        gone,
        retained=model.records - len(removed),
        sample_hit=hit,
        already_deleted=len(selection.already_deleted),
        speed=workspace.calibration.speed(workspace.config),
    )


def _touched(
    workspace: Workspace, model: Model, removed: set[str]
) -> tuple[dict[str, int], dict[str, int], set[str]]:
    """Clusters before and after, and what goes, by numbers of records, under the paths that a request touches."""
    records, key, limit = workspace.records, model.partition.key, workspace.config.partition.max_records
    known = {cluster.path for cluster in model.clusters}
    going = records.trie_keys(key, sorted(removed)).values()

    def left(path: str) -> int:
        return records.count_under(key, path) - sum(is_under(place, path) for place in going)

    gone, before, after = records.numbers(removed), dict[str, int](), list[list[str]]()
    for path in affected_paths(going, known, limit, left):
        places = records.numbered(key, path)
        before |= model.cluster_numbers(places)
        after += group_below(path, {n: place for n, place in places.items() if n not in gone}, limit).values()
    return before, {n: number for number, members in enumerate(after) for n in members}, gone


def _grouped_without(workspace: Workspace, model: Model, removed: set[str]) -> dict[str, int]:
    """Clusters of all other records, where the partition stays."""
    places = workspace.records.trie_keys(model.partition.key)
    left = {i: place for i, place in places.items() if i not in removed}
    groups = group(left, workspace.config.partition.max_records)
    return {i: number for number, members in enumerate(groups.values()) for i in members}


def _divide_again(
    workspace: Workspace,
    model: Model,
    removed: set[str],
    executor: Callable[[], Executor],
    progress: Progress,
) -> Mapping[str, int]:
    from lmeraser.pipeline.caches import InMemoryStatistics, ReadOnlyCache
    from lmeraser.pipeline.derive import Inputs, Pipeline, PipelineContext
    from lmeraser.storage.artifacts import MemoryStore

    retained = [record for record in workspace.records.index() if record.id not in removed]
    inputs = Inputs(retained, workspace.config, len(model.classes), model.backbone)
    lazy = _Borrowed(model.partition.fingerprint, model.backbone, executor)
    tools = PipelineContext(
        store=MemoryStore(),
        cache=ReadOnlyCache(workspace.records),
        statistics=InMemoryStatistics(),
        executor=lambda: lazy,
        fetch=workspace.records.images,
        secret=workspace.secret,
        progress=progress,
    )
    return Pipeline(inputs, tools).assign_clusters().numbers()


class _Borrowed:
    """An executor that knows its digests from the model and loads the real one only to embed."""

    def __init__(self, fingerprint: Digest, backbone: Digest, real: Callable[[], Executor]) -> None:
        self.fingerprint = fingerprint
        self.backbone = backbone
        self._real = real

    def describe(self) -> Mapping[str, Any]:
        return self._real().describe()

    def class_vectors(self) -> NDArray[np.float32]:
        return self._real().class_vectors()

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ("clean",)
    ) -> Iterator[tuple[str, Vector]]:
        return self._real().embed(ids, fetch, progress, views)

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        return self._real().tune(tasks, fetch, progress)
