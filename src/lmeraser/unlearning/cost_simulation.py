"""The cost of requests on the partition that a workspace would have, before any training, sample hits included.

The partition is derived from features (stored ones, else the images are embedded). Then some records of the
clustering sample are taken away, one at a time, and the partition is derived again without them; they stand for
the others. Reads a workspace and changes nothing.
"""

from __future__ import annotations

from dataclasses import replace

from lmeraser.errors import InputError
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.cost import Cost, cost_of
from lmeraser.pipeline.derive import ClusterAssignment, Inputs, Pipeline, PipelineContext
from lmeraser.unlearning.context import temporary_context, training_inputs
from lmeraser.workspace.session import Session


def simulate(session: Session, *, hits: int = 8) -> Cost:
    """The cost of requests on the partition of the workspace's records and settings.

    Args:
        session: the workspace, which is only read, and what computes features that are not stored.
        hits: how many hits of the sample to simulate.

    Raises:
        InputError: there are no records.
    """
    workspace = session.workspace
    inputs = training_inputs(workspace, session.executors.for_training().backbone)
    if not inputs.records:
        raise InputError(
            "No records to simulate requests on",
            got="the workspace holds none",
            next_step="add records with 'lmeraser add SOURCE'",
        )
    context = temporary_context(session, features=workspace.records.derived)
    assignment = Pipeline(inputs, context).assign_clusters()
    sample = partition_of(inputs.config).sample([record.id for record in inputs.records])
    simulated = sample[:hits]
    tuned_by_hit = []
    for done, record_id in enumerate(simulated):
        session.progress("simulating sample hits", done, len(simulated))
        tuned_by_hit.append(_records_tuned_again(inputs, context, assignment, record_id))
    sizes = {path: len(members) for path, members in assignment.groups.items()}
    constituent = inputs.config.constituent
    return cost_of(
        sizes,
        inputs.config.partition.max_records,
        sampled=len(sample),
        hits=tuned_by_hit,
        tuned=constituent.kind != "none",
        together=constituent.together,
    )


def _records_tuned_again(
    inputs: Inputs, context: PipelineContext, before: ClusterAssignment, record_id: str
) -> int:
    """Number of records in clusters that change when this sampled record goes."""
    retained = [record for record in inputs.records if record.id != record_id]
    after = Pipeline(replace(inputs, records=retained), context).assign_clusters()
    unchanged = {tuple(members) for members in before.groups.values()}
    return sum(len(members) for members in after.groups.values() if tuple(members) not in unchanged)
