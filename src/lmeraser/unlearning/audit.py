"""Audit: derive F on the retained records from nothing and compare every digest with the served model.

This checks the claim of exactness by brute force. It starts from an empty store and an empty memory, embeds every
image again and tunes every cluster again (or some clusters drawn at random); it also reads every served artifact
and checks its bytes. Inside one environment fingerprint every digest must be equal; a model that was made in
another environment is equal in distribution only, and the report says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.errors import CorruptError, InputError, StorageError
from lmeraser.models.manifest import Cluster, Model, StageResult
from lmeraser.pipeline.caches import InMemoryStatistics, ReadOnlyCache
from lmeraser.pipeline.derive import (
    ClusterAssignment,
    Inputs,
    Pipeline,
    PipelineContext,
)
from lmeraser.pipeline.executors.base import Executor
from lmeraser.storage.artifacts import BlobStore, MemoryStore
from lmeraser.unlearning.train import inputs_of
from lmeraser.workspace.freshness import current_model
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class AuditReport:
    """What an audit found.

    Attributes:
        identical: whether every compared digest is equal.
        differences: what differs, one line each.
        same_environment: whether the model was made, all of it, in this environment.
        model_digest: of the served model.
        records: retained records that were derived from.
        clusters_checked: clusters that were tuned again.
        clusters: clusters of the served model.
    """

    identical: bool
    differences: tuple[str, ...]
    same_environment: bool
    model_digest: Digest
    records: int
    clusters_checked: int
    clusters: int

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def audit(
    workspace: Workspace,
    executor: Callable[[], Executor],
    *,
    clusters: int | None = None,
    progress: Progress = silent,
) -> AuditReport:
    """Compare the served model with F on the retained records.

    Args:
        workspace: what to audit; it is only read.
        executor: gives the executor.
        clusters: tune only so many clusters again, drawn at random; None: all, as where they are tuned together.
        progress: told how far it is.

    Raises:
        NoModelError: there is no model, or records or settings changed since it was derived.
        InputError: ``clusters`` is not positive.
    """
    if clusters is not None and clusters < 1:
        raise InputError("An audit checks at least one cluster.", got=f"--clusters {clusters}")
    model = current_model(workspace)
    inputs = inputs_of(workspace, executor().backbone)
    tools = PipelineContext(
        store=MemoryStore(),
        cache=ReadOnlyCache(),
        statistics=InMemoryStatistics(),
        executor=executor,
        fetch=workspace.records.images,
        secret=workspace.secret,
        progress=progress,
    )
    pipeline = Pipeline(inputs, tools)
    head = pipeline.fit_global_head()
    division = pipeline.assign_clusters()
    numbered = division.numbered()
    chosen = _draw(list(numbered), None if inputs.config.constituent.together else clusters)
    derived = pipeline.tune_clusters({number: numbered[number] for number in chosen})
    differences = [
        *_damaged(model, workspace.store),
        *_compare(model, inputs, division, head, derived, partial=len(chosen) < len(numbered)),
    ]
    return AuditReport(
        identical=not differences,
        differences=tuple(differences),
        same_environment=model.fingerprints == (executor().fingerprint,),
        model_digest=model.model_digest,
        records=len(inputs.records),
        clusters_checked=len(chosen),
        clusters=len(model.clusters),
    )


def _draw(numbers: list[int], count: int | None) -> list[int]:
    if count is None or count >= len(numbers):
        return numbers
    # The one place with true randomness: nobody can prepare the clusters that will be looked at.
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
    inputs: Inputs,
    division: ClusterAssignment,
    head: StageResult | None,
    derived: Sequence[Cluster],
    *,
    partial: bool,
) -> list[str]:
    found = []
    if model.backbone != inputs.backbone:
        found.append(f"backbone: served {model.backbone.short}, derived {inputs.backbone.short}")
    stages = {"partition": division.partition, "global head": head}
    found += [_difference(name, model.stages.get(name), stages[name]) for name in stages]
    served = {cluster.number: cluster for cluster in model.clusters}
    numbers = set(division.numbered())
    found += [f"cluster {n}: served but not derived" for n in sorted(served.keys() - numbers)]
    found += [f"cluster {n}: derived but not served" for n in sorted(numbers - served.keys())]
    for cluster in derived:
        other = served.get(cluster.number)
        if other is not None and other.path != cluster.path:
            found.append(f"cluster {cluster.number}: served for {other.path}, derived for {cluster.path}")
        if other is not None:
            found.append(_difference(f"cluster {cluster.number}", other.constituent, cluster.constituent))
            if [c.artifact for c in other.checkpoints] != [c.artifact for c in cluster.checkpoints]:
                found.append(f"cluster {cluster.number}: other checkpoints served than derived")
    found = [line for line in found if line]
    if not partial and not found:
        update = {"clusters": tuple(derived), "partition": division.partition, "global_head": head}
        again = model.model_copy(update=update)
        if again.model_digest != model.model_digest:
            found.append(f"model: served {model.model_digest.short}, derived {again.model_digest.short}")
    return found


def _difference(name: str, served: StageResult | None, derived: StageResult | None) -> str:
    """A line about two results of one stage; empty if they are the same."""
    before, after = (result.artifact.short if result else "none" for result in (served, derived))
    same = (served and served.artifact) == (derived and derived.artifact)
    return "" if same else f"{name}: served {before}, derived {after}"
