"""Audit: derive the model of the retained records from nothing and compare every digest with the served model.

This checks the claim of exactness by brute force. It starts with an empty store and empty caches, embeds every
image again and tunes every cluster again (or some clusters drawn at random); it also reads every served artifact
and checks its bytes, and compares every payload with the digest that was recorded when its record was added.
Within one environment fingerprint every digest must be equal. A model that was made in another environment is
equal in distribution only, and the report says so.

An audit of some clusters still embeds and assigns every record, because only that shows which records a cluster
has. A *spot check* does not: it takes the members of each drawn cluster from the database, compares their payloads
with the recorded digests, embeds them again, checks that the served partition puts each of them there, and tunes
the cluster again. So its time depends on the records of the drawn clusters alone. It does not check the global
head, the fit of the partition, other clusters, or whether another record belongs into a drawn one; it is never
signed, and no certificate has one.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.tensors import from_bytes
from lmeraser.errors import CorruptError, InputError, StorageError, VerificationError
from lmeraser.evidence.dsse import Envelope
from lmeraser.evidence.verification_result import verification_result
from lmeraser.models.manifest import Cluster, Model, StageResult
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.trie import is_under
from lmeraser.pipeline.derive import ClusterAssignment, Inputs, Pipeline
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
        records_checked: in a spot check, number of the records of the drawn clusters; None: all were.
    """

    identical: bool
    differences: tuple[str, ...]
    same_environment: bool
    model_digest: Digest
    records: int
    clusters_checked: int
    clusters: int
    ran_on: RanOn = "asking process"
    records_checked: int | None = None

    @property
    def spot_check(self) -> bool:
        """Whether only the drawn clusters were looked at."""
        return self.records_checked is not None

    def to_json(self) -> dict[str, object]:
        """The report as JSON values; a spot check has one more."""
        values = asdict(self)
        return values if self.spot_check else {name: values[name] for name in values if name != "records_checked"}


def audit(
    session: Session, *, clusters: int | None = None, independent: bool = False, spot_check: bool = False
) -> AuditReport:
    """Compare the served model with one that is derived from the retained records alone.

    Args:
        session: the workspace, which is only read, and what runs the stages.
        clusters: tune only this many clusters again, drawn at random; None: all of them. Where clusters are tuned
            together, all are checked anyway.
        independent: do not ask the workers that may have derived the served model: a worker that answered wrongly
            then would answer wrongly again.
        spot_check: look at nothing but the drawn clusters and their records.

    Raises:
        NoModelError: there is no model, or records or settings changed since it was derived.
        InputError: ``clusters`` is not positive, or a spot check is not possible.
    """
    if clusters is not None and clusters < 1:
        raise InputError("Number of clusters is too small", got=f"--clusters {clusters} (at least 1)")
    workspace = session.workspace
    model = current_model(workspace)
    executor: Executor
    executor, ran_on = session.executors.for_audit() if independent else session.executors.for_training_named()
    if spot_check:
        return _spot_check(session, model, executor, clusters, ran_on)
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
        *_damaged(model.stages, workspace.store),
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
    refusals = {
        "it found differences": not report.identical,
        "another generation is served by now": model.model_digest != report.model_digest,
        "it was a spot check": report.spot_check,
    }
    for refusal, refused in refusals.items():
        if refused:
            raise VerificationError(
                "Result of an audit cannot be signed",
                got=refusal,
                next_step="run the audit again" + (" without --spot-check" if report.spot_check else ""),
            )
    result = verification_result(
        model.public_digest,
        model.generation,
        complete=report.clusters_checked == report.clusters,
        independent=report.ran_on != "pool",
        now=workspace.clock(),
    )
    return result.sign(workspace.signing_key)


def _spot_check(
    session: Session, model: Model, executor: Executor, count: int | None, ran_on: RanOn
) -> AuditReport:
    workspace = session.workspace
    config = workspace.config
    if count is None or config.constituent.together:
        raise InputError(
            "Spot check is not possible",
            got="no number of clusters was given" if count is None else "all clusters are tuned together",
            next_step="give --clusters N" if count is None else "run the audit without --spot-check",
        )
    derived = workspace.records.derived
    served = list(model.clusters.numbered(_draw(range(len(model.clusters)), count)))
    members = {
        cluster.number: sorted(derived.trie_keys_under(model.partition.key, cluster.path)) for cluster in served
    }
    ids = [record_id for each in members.values() for record_id in each]
    inputs = Inputs(workspace.records.refs(ids), config, len(model.classes), model.backbone)
    differences: Iterable[str]
    if exchanged := workspace.records.mismatched(ids):
        differences = [f"payloads: {len(exchanged)} are missing or not those that were added with their records"]
    elif executor.backbone != model.backbone:
        differences = [f"backbone: served {model.backbone.short}, derived {executor.backbone.short}"]
    else:
        pipeline = Pipeline(inputs, temporary_context(session, executor=executor))
        differences = _differences_of_drawn(workspace, model, pipeline, served, members)
    differences = tuple(differences)
    return AuditReport(
        identical=not differences,
        differences=differences,
        same_environment=model.fingerprints == (executor.fingerprint,),
        model_digest=model.model_digest,
        records=model.records,
        clusters_checked=len(served),
        clusters=len(model.clusters),
        ran_on=ran_on,
        records_checked=len(ids),
    )


def _differences_of_drawn(
    workspace: Workspace,
    model: Model,
    pipeline: Pipeline,
    served: Sequence[Cluster],
    members: Mapping[int, Sequence[str]],
) -> Iterator[str]:
    """What differs between drawn clusters and the same ones derived again, one line each."""
    results = {
        f"cluster {one.number}, part {part}": each for one in served for part, each in enumerate(one.results)
    }
    if damaged := _damaged({"partition": model.partition, **results}, workspace.store):
        yield from damaged
        return
    config = pipeline.inputs.config
    if config.needs_statistics:
        pipeline.complete_statistics()
    fitted = from_bytes(workspace.store.read(model.partition.artifact))
    stored_sample = workspace.records.derived.sampled(model.partition.key) if _samples(config) else []
    sample = partition_of(config).sample(stored_sample)
    ids = [record_id for each in members.values() for record_id in each]
    try:
        trie_keys = pipeline.trie_keys(fitted, model.partition.key, sample, ids)
    except ValueError:  # from the partition's own comparison of the sample with what it was fitted on
        yield f"partition: not fitted on the {len(sample)} records that are stored as its sample"
        return
    for cluster in served:
        strangers = sum(not is_under(trie_keys[record_id], cluster.path) for record_id in members[cluster.number])
        if strangers or len(members[cluster.number]) != cluster.records:
            yield (
                f"cluster {cluster.number}: served for {cluster.records} records, "
                f"{len(members[cluster.number])} are stored there, {strangers} of which belong elsewhere"
            )
    derived = pipeline.tune_clusters({one.number: (one.path, members[one.number]) for one in served})
    for cluster, again in zip(served, derived, strict=True):
        yield from filter(None, _cluster_differences(cluster, again))


def _samples(config: Config) -> bool:
    """Whether the partition is fitted on records; finding these reads every trie key."""
    return config.partition.sampled(1) > 0


def _draw(numbers: Sequence[int], count: int | None) -> list[int]:
    if count is None or count >= len(numbers):
        return list(numbers)
    # The one use of true randomness: the clusters that will be checked must not be predictable.
    return sorted(random.SystemRandom().sample(numbers, count))


def _damaged(stages: Mapping[str, StageResult], store: BlobStore) -> list[str]:
    damaged = []
    for name, result in stages.items():
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
