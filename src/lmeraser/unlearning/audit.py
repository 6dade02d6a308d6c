"""Audit: derive the model of the retained records from nothing and compare every digest with the served model.

This checks the claim of exactness by brute force. It starts with an empty store and empty caches, embeds every
image again and tunes every cluster again (or some clusters drawn at random); it also reads every served artifact
and checks its bytes, and compares every payload with the digest that was recorded when its record was added.
Within one environment fingerprint every digest must be equal. A model that was made in another environment is
equal in distribution only, and the report says so.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, InputError, StorageError, VerificationError
from lmeraser.evidence.dsse import Envelope
from lmeraser.evidence.verification_result import verification_result
from lmeraser.models.manifest import Cluster, Model, StageResult
from lmeraser.pipeline.derive import ClusterAssignment, Pipeline
from lmeraser.pipeline.executors.base import Executor
from lmeraser.pipeline.executors.provider import RanOn
from lmeraser.storage.artifacts import BlobStore
from lmeraser.unlearning.context import temporary_context, training_inputs
from lmeraser.workspace.freshness import current_model
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        identical: whether every compared digest is equal.
        differences: one line each.
        same_environment: whether the whole model was made in this environment.
        model_digest: of the served model.
        records: number of retained records.
        clusters_checked: clusters that were tuned again.
        clusters: clusters of the served model.
        ran_on: what derived the model again: this process, the pool of workers that runs trainings, or workers
            that were started for the audit.
    """

    identical: bool
    differences: tuple[str, ...]
    same_environment: bool
    model_digest: Digest
    records: int
    clusters_checked: int
    clusters: int
    ran_on: RanOn = "asking process"

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def audit(session: Session, *, clusters: int | None = None, independent: bool = False) -> AuditReport:
    """Compare the served model with one that is derived from the retained records alone.

    Args:
        session: the workspace, which is only read, and what runs the stages.
        clusters: tune only this many clusters again, drawn at random; None: all of them. Where clusters are tuned
            together, all are checked anyway.
        independent: do not ask the workers that may have derived the served model: a worker that answered wrongly
            then would answer wrongly again.

    Raises:
        NoModelError: there is no model, or records or settings changed since it was derived.
        InputError: ``clusters`` is not positive.
    """
    if clusters is not None and clusters < 1:
        raise InputError("Number of clusters is too small", got=f"--clusters {clusters} (at least 1)")
    workspace = session.workspace
    model = current_model(workspace)
    executor: Executor
    executor, ran_on = session.executors.for_audit() if independent else session.executors.for_training_named()
    inputs = training_inputs(workspace, executor.backbone)
    if exchanged := workspace.records.mismatched([record.id for record in inputs.records]):
        # What is derived from these payloads would say nothing about the records.
        return AuditReport(
            identical=False,
            differences=(
                f"payloads: {len(exchanged)} are missing or not those that were added with their records",
            ),
            same_environment=model.fingerprints == (executor.fingerprint,),
            model_digest=model.model_digest,
            records=len(inputs.records),
            clusters_checked=0,
            clusters=len(model.clusters),
            ran_on=ran_on,
        )
    pipeline = Pipeline(inputs, temporary_context(session, executor=executor))
    global_head = pipeline.fit_global_head()
    assignment = pipeline.assign_clusters()
    numbered = assignment.numbered()
    chosen = _draw(list(numbered), None if inputs.config.constituent.together else clusters)
    derived = pipeline.tune_clusters({number: numbered[number] for number in chosen})
    differences = [
        *_damaged(model, workspace.store),
        *_compare(model, inputs.backbone, assignment, global_head, derived, partial=len(chosen) < len(numbered)),
    ]
    return AuditReport(
        identical=not differences,
        differences=tuple(differences),
        same_environment=model.fingerprints == (executor.fingerprint,),
        model_digest=model.model_digest,
        records=len(inputs.records),
        clusters_checked=len(chosen),
        clusters=len(model.clusters),
        ran_on=ran_on,
    )


def sign_result(workspace: Workspace, report: AuditReport) -> Envelope:
    """What an audit verified, signed, as in-toto's Simple Verification Result (`evidence.verification_result`).

    Args:
        workspace: that was audited.
        report: of an audit that found no difference.

    Raises:
        VerificationError: the audit found a difference, or another generation is served by now.
    """
    model = workspace.generations.require()
    if not report.identical or model.model_digest != report.model_digest:
        raise VerificationError(
            "Result of an audit cannot be signed",
            got="it found differences" if not report.identical else "another generation is served by now",
            next_step="run the audit again",
        )
    result = verification_result(
        model.public_digest,
        model.generation,
        complete=report.clusters_checked == report.clusters,
        independent=report.ran_on != "pool",
        now=workspace.clock(),
    )
    return result.sign(workspace.signing_key)


def _draw(numbers: list[int], count: int | None) -> list[int]:
    if count is None or count >= len(numbers):
        return numbers
    # The one use of true randomness: the clusters that will be checked must not be predictable.
    return sorted(random.SystemRandom().sample(numbers, count))


def _damaged(model: Model, store: BlobStore) -> list[str]:
    damaged = []
    for name, result in model.stages.items():
        try:
            store.read(result.artifact)
        except (CorruptError, StorageError, OSError) as error:
            damaged.append(f"{name}: stored bytes of {result.artifact.short}: {error}".splitlines()[0])
    return damaged


def _compare(
    model: Model,
    backbone: Digest,
    assignment: ClusterAssignment,
    global_head: StageResult | None,
    derived: Sequence[Cluster],
    *,
    partial: bool,
) -> list[str]:
    lines = []
    if model.backbone != backbone:
        lines.append(f"backbone: served {model.backbone.short}, derived {backbone.short}")
    stages = {"partition": assignment.partition, "global head": global_head}
    lines += [_difference(name, model.stages.get(name), stages[name]) for name in stages]
    served = {cluster.number: cluster for cluster in model.clusters}
    numbers = set(assignment.numbered())
    lines += [f"cluster {n}: served but not derived" for n in sorted(served.keys() - numbers)]
    lines += [f"cluster {n}: derived but not served" for n in sorted(numbers - served.keys())]
    for cluster in derived:
        if cluster.number in served:
            lines += _cluster_differences(served[cluster.number], cluster)
    differences = [line for line in lines if line]
    if not partial and not differences:
        update = {"clusters": tuple(derived), "partition": assignment.partition, "global_head": global_head}
        again = model.model_copy(update=update)
        if again.model_digest != model.model_digest:
            differences.append(f"model: served {model.model_digest.short}, derived {again.model_digest.short}")
    return differences


def _cluster_differences(served: Cluster, derived: Cluster) -> list[str]:
    name = f"cluster {derived.number}"
    lines = []
    if served.path != derived.path:
        lines.append(f"{name}: served for {served.path}, derived for {derived.path}")
    lines.append(_difference(name, served.constituent, derived.constituent))
    if [c.artifact for c in served.checkpoints] != [c.artifact for c in derived.checkpoints]:
        lines.append(f"{name}: other checkpoints served than derived")
    return lines


def _difference(name: str, served: StageResult | None, derived: StageResult | None) -> str:
    """A line about two results of one stage; empty if they are the same."""
    if (served and served.artifact) == (derived and derived.artifact):
        return ""
    served_digest = served.artifact.short if served else "none"
    derived_digest = derived.artifact.short if derived else "none"
    return f"{name}: served {served_digest}, derived {derived_digest}"
