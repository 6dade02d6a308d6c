"""The cost of requests on the partition that a workspace would have: before any training, sample hits included.

The partition is derived from features (stored ones, else the images are embedded), then some records of the
clustering sample are taken away, one at a time, and it is derived again for real; they stand for the others.
Reads a workspace and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from lmeraser.core.progress import Progress, silent
from lmeraser.errors import InputError
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.cost import Cost, cost_of
from lmeraser.pipeline.caches import InMemoryStatistics, ReadOnlyCache
from lmeraser.pipeline.derive import ClusterAssignment, Inputs, Pipeline, PipelineContext
from lmeraser.pipeline.executors.base import Executor
from lmeraser.storage.artifacts import MemoryStore
from lmeraser.unlearning.train import inputs_of
from lmeraser.workspace.workspace import Workspace


def simulate(
    workspace: Workspace, executor: Callable[[], Executor], *, hits: int = 8, progress: Progress = silent
) -> Cost:
    """The cost of requests on the partition that the workspace's records and settings give.

    Args:
        workspace: only read.
        executor: gives the executor; computes features that are not stored.
        hits: how many hits of the sample to simulate.
        progress: told how far it is.

    Raises:
        InputError: there are no records.
    """
    inputs = inputs_of(workspace, executor().backbone)
    if not inputs.records:
        raise InputError("A cost is that of a request on some records.", got="no records", next_step="add some")
    tools = PipelineContext(
        store=MemoryStore(),
        cache=ReadOnlyCache(workspace.records),
        statistics=InMemoryStatistics(),
        executor=executor,
        fetch=workspace.records.images,
        secret=workspace.secret,
        progress=progress,
    )
    division = Pipeline(inputs, tools).assign_clusters()
    sample = partition_of(inputs.config).sample([record.id for record in inputs.records])
    found = []
    for done, record_id in enumerate(sample[:hits]):
        progress("simulating sample hits", done, min(hits, len(sample)))
        found.append(_hit(inputs, tools, division, record_id))
    sizes = {path: len(members) for path, members in division.groups.items()}
    kind, limit = inputs.config.constituent, inputs.config.partition.max_records
    tuned = {"tuned": kind.kind != "none", "together": kind.together}
    return cost_of(sizes, limit, sampled=len(sample), hits=found, **tuned)


def _hit(inputs: Inputs, tools: PipelineContext, before: ClusterAssignment, record_id: str) -> int:
    """Records tuned again when this sampled one goes."""
    retained = [record for record in inputs.records if record.id != record_id]
    after = Pipeline(replace(inputs, records=retained), tools).assign_clusters()
    kept = {tuple(members) for members in before.groups.values()}
    return sum(len(members) for members in after.groups.values() if tuple(members) not in kept)
