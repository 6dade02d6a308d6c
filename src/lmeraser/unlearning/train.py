"""Bring the served generation up to date with the records and settings: derive F, publish, purge.

Steps, each of which may be interrupted and run again:
1. derive: every finished stage is kept, so a second run continues;
2. publish the new generation in one atomic step, unless it is the served one;
3. purge what only older generations used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.errors import NoModelError
from lmeraser.evidence.entries import GenerationPublished, events_of
from lmeraser.models.manifest import Model
from lmeraser.pipeline.derive import Derivation, Inputs, Pipeline, PipelineContext, embedding_key
from lmeraser.pipeline.executors.base import Executor
from lmeraser.pipeline.incremental import derive_incremental
from lmeraser.workspace.freshness import same_settings
from lmeraser.workspace.purge import purge
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class TrainReport:
    """What a training did.

    Attributes:
        model: the generation that is served now.
        changed: whether it is a new one.
        ran: how often each stage ran.
        tuning_seconds: time spent on tuning.
        purged: number of files removed.
    """

    model: Model
    changed: bool
    stage_counts: dict[str, int]
    tuning_seconds: float
    purged: int

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "generation": self.model.generation,
            "model_digest": self.model.model_digest,
            "changed": self.changed,
            "records": self.model.records,
            "clusters": len(self.model.clusters),
            "ran": self.stage_counts,
            "tuning_seconds": round(self.tuning_seconds, 3),
            "purged": self.purged,
        }


def inputs_of(workspace: Workspace, backbone: Digest) -> Inputs:
    """What F is a function of, as the workspace holds it now.

    Raises:
        NoModelError: no record was ever added.
    """
    classes = workspace.records.classes
    if not classes:
        raise NoModelError(
            "Training needs records and their classes.",
            got="an empty workspace",
            next_step="add records with 'lmeraser add SOURCE'",
        )
    return Inputs(workspace.records.index(), workspace.config, len(classes), backbone)


def train(
    workspace: Workspace,
    executor: Callable[[], Executor],
    *,
    everything: bool = True,
    rederive: bool = False,
    progress: Progress = silent,
) -> TrainReport:
    """Derive the model of the workspace's records and serve it.

    Args:
        workspace: what to derive from.
        executor: gives the executor.
        everything: look at every record, and run a stage again whose artifact is gone; else only at what changed
            since the served generation, where that is known.
        rederive: run stages again whose results were made in another environment.
        progress: told how far it is.
    """
    with workspace.writing("train"):
        if rederive:
            workspace.records.clear_derived()
        workspace.fix_artifact_location()
        revision = workspace.records.changes.revision
        tools = PipelineContext(
            store=workspace.store,
            cache=workspace.records.derived,
            statistics=workspace.records.statistics,
            executor=executor,
            fetch=workspace.records.images,
            secret=workspace.secret,
            progress=progress,
            rederive=rederive,
        )
        derivation = None if everything else _derive_touched(workspace, tools)
        if derivation is None:
            derivation = Pipeline(inputs_of(workspace, executor().backbone), tools).derive()
        model, changed = _publish(workspace, executor(), derivation, revision)
        progress("purging", 0, None)
        purged = purge(workspace)
    return TrainReport(model, changed, dict(derivation.stage_counts), derivation.tuning_seconds, len(purged))


def _derive_touched(workspace: Workspace, tools: PipelineContext) -> Derivation | None:
    """F on what changed since the served generation; None where that is not known, or settings changed."""
    served, records, executor = workspace.generations.current(), workspace.records, tools.executor()
    if served is None or not same_settings(workspace, served) or served.classes != records.classes:
        return None
    if workspace.config.constituent.together:  # whatever is touched, everything is tuned again
        return None
    places = records.changes.trie_keys(served.partition.key, since=served.revision)
    if places is None or served.backbone != executor.backbone:
        return None
    config = workspace.config
    key = embedding_key(config, executor.backbone, executor.fingerprint)
    if config.needs_statistics and records.statistics.total(key=key) != records.count():
        return None
    inputs = Inputs((), config, len(served.classes), executor.backbone)
    return derive_incremental(Pipeline(inputs, tools), served, places, records)


def _publish(
    workspace: Workspace, executor: Executor, derivation: Derivation, revision: int
) -> tuple[Model, bool]:
    served, config = workspace.generations.current(), workspace.config
    codes = embedding_key(config, executor.backbone, executor.fingerprint) if derivation.global_head else None
    epochs = derivation.stage_counts["tuned_records"] * config.tuning.epochs_run
    workspace.calibration.note(config, epochs, derivation.tuning_seconds)
    last, parent = (served.generation, served.model_digest) if served is not None else _told(workspace)
    model = Model(
        generation=last + 1,
        parent=parent,
        settings=config.model_settings(),
        classes=workspace.records.classes,
        backbone=executor.backbone,
        backbone_name=config.backbone.name,
        partition=derivation.partition,
        global_head=derivation.global_head,
        clusters=derivation.clusters,
        code_key=codes,
        revision=revision,
    )
    if served is not None and _same(served, model):
        return served, False
    workspace.generations.publish(model)
    workspace.recover()
    return model, True


def _told(workspace: Workspace) -> tuple[int, Digest | None]:
    """The last generation that the ledger tells of, where none is served (any more): numbers only move forward."""
    told = [event for _, event in events_of(workspace.ledger.entries(), GenerationPublished)]
    return (told[-1].generation, told[-1].model) if told else (-1, None)


def _same(served: Model, model: Model) -> bool:
    """Whether nothing but the number and the parent differ."""
    ignored = {"generation", "parent"}
    return served.model_dump(exclude=ignored) == model.model_dump(exclude=ignored)
