"""Bring the served generation up to date with the records and settings: derive, publish, purge.

Steps, each of which may be interrupted and run again:
1. derive the model: every finished stage is cached, so a second run continues;
2. publish the new generation in one atomic step, unless it equals the served one;
3. purge what only older generations used; after a deletion, look only for what the served one has lost; the
   transaction that ends this also records the generation in the ledger, as the next writer does after a crash.

The caller holds the writer's lock.
"""

from __future__ import annotations

import contextlib
import secrets
from dataclasses import dataclass

from lmeraser.core.digests import Digest
from lmeraser.errors import StorageError
from lmeraser.evidence.entries import GenerationPublished, events_of
from lmeraser.models.manifest import Model
from lmeraser.pipeline.derive import Derivation, Inputs, Pipeline, PipelineContext, embedding_key
from lmeraser.pipeline.early_head import EarlyHead
from lmeraser.pipeline.executors.base import Executor
from lmeraser.pipeline.incremental import derive_incremental
from lmeraser.unlearning.context import cached_context, training_inputs
from lmeraser.workspace.purge import compact_deleted, purge, purge_replaced, take_tidy
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace

_NONCE_BYTES = 32


@dataclass(frozen=True)
class TrainReport:
    """What a training did.

    Attributes:
        model: the generation that is served now.
        changed: whether it is a new one.
        stage_counts: how often each stage ran.
        tuning_seconds: time spent on tuning.
        purged: number of files removed.
    """

    model: Model
    changed: bool
    stage_counts: dict[str, int]
    tuning_seconds: float
    purged: int

    def to_json(self) -> dict[str, object]:
        """The report as JSON values; ``ran`` is the deprecated name of ``stage_counts``."""
        return {
            "generation": self.model.generation,
            "model_digest": self.model.model_digest,
            "changed": self.changed,
            "records": self.model.records,
            "clusters": len(self.model.clusters),
            "stage_counts": self.stage_counts,
            "ran": self.stage_counts,
            "tuning_seconds": round(self.tuning_seconds, 3),
            "purged": self.purged,
        }


def update_model(
    session: Session,
    *,
    full: bool = True,
    rederive: bool = False,
    early_head: EarlyHead | None = None,
    tidy: bool | None = None,
) -> TrainReport:
    """Derive the model of the workspace's records and serve it.

    Args:
        session: the workspace, and what runs the stages.
        full: consider every record, and run a stage again whose artifact is gone; else only what changed since the
            served generation, if that is known.
        rederive: run stages again whose results were made in another environment.
        early_head: solves for the global head of statistics that were just stored.
        tidy: what `take_tidy` told the caller; None: it was not asked yet.
    """
    workspace = session.workspace
    if rederive:
        workspace.records.clear_derived()
    workspace.fix_artifact_location()
    revision = workspace.records.changes.revision
    executor = session.executors.for_training()
    context = cached_context(session, rederive=rederive, early_head=early_head)
    served = workspace.generations.current()
    tidy = take_tidy(workspace, served) if tidy is None else tidy
    derivation = None if full else _derive_changes(workspace, executor, context)
    replaced = served if tidy and derivation is not None else None
    if derivation is None:
        inputs = training_inputs(workspace, executor.backbone)
        with workspace.records.unchanged(inputs.records):
            derivation = Pipeline(inputs, context).derive()
    model, changed = _publish(workspace, executor, derivation, revision)
    session.progress("purging", 0, None)
    purged = purge(workspace) if replaced is None else purge_replaced(workspace, replaced)
    return TrainReport(model, changed, dict(derivation.stage_counts), derivation.tuning_seconds, len(purged))


def _derive_changes(workspace: Workspace, executor: Executor, context: PipelineContext) -> Derivation | None:
    """The model, from what changed since the served generation; None if that is unknown or settings changed."""
    config = workspace.config
    records = workspace.records
    served = workspace.generations.current()
    if served is None or not served.matches(config) or served.classes != records.classes:
        return None
    if config.constituent.together:  # any change tunes everything again
        return None
    trie_keys = records.changes.trie_keys(served.partition.key, since=served.revision)
    if trie_keys is None or served.backbone != executor.backbone:
        return None
    key = embedding_key(config, executor.backbone, executor.fingerprint)
    if config.needs_statistics and records.statistics.total(key=key) != records.count():
        return None
    if context.early_head is not None:
        # Beside the solution of the next head. What is purged after it are rows of small tables; if it fails, the
        # purge does it again.
        with contextlib.suppress(StorageError):
            compact_deleted(workspace.database)
    inputs = Inputs((), config, len(served.classes), executor.backbone)
    return derive_incremental(Pipeline(inputs, context), served, trie_keys, records)


def _publish(
    workspace: Workspace, executor: Executor, derivation: Derivation, revision: int
) -> tuple[Model, bool]:
    """Serve what was derived; the served generation, and whether it is a new one."""
    config = workspace.config
    served = workspace.generations.current()
    records_tuned = derivation.stage_counts["tuned_records"] * config.tuning.epochs_run
    workspace.calibration.note(config, records_tuned, derivation.tuning_seconds)
    last, previous = _last_published(workspace, served)
    statistics_key = None
    if derivation.global_head is not None:
        statistics_key = embedding_key(config, executor.backbone, executor.fingerprint)
    model = Model(
        generation=last + 1,
        settings=config.model_settings(),
        classes=workspace.records.classes,
        backbone=executor.backbone,
        backbone_name=config.backbone.name,
        partition=derivation.partition,
        global_head=derivation.global_head,
        clusters=derivation.clusters,
        embedding_key=statistics_key,
        revision=revision,
        previous=previous,
        nonce=secrets.token_hex(_NONCE_BYTES),
    )
    if served is not None and _same(served, model):
        return served, False
    workspace.generations.publish(model)
    return model, True


def _last_published(workspace: Workspace, served: Model | None) -> tuple[int, Digest | None]:
    """Number and public digest of the served generation, else of the last on record: numbers only grow."""
    if served is not None:
        return served.generation, served.public_digest
    published = [event for _, event in events_of(workspace.ledger.entries(), GenerationPublished)]
    return (published[-1].generation, published[-1].public_digest) if published else (-1, None)


def _same(served: Model, model: Model) -> bool:
    """Whether two generations differ in nothing but their numbers, predecessors and nonces."""
    compared = Model.model_fields.keys() - {"format", "generation", "parent", "previous", "nonce"}
    return all(getattr(served, name) == getattr(model, name) for name in compared)
