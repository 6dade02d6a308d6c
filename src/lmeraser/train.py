"""Bring the served generation up to date with the records and settings: derive F, publish, purge.

Steps, each of which may be interrupted and run again:
1. derive: every finished stage is kept, so a second run continues;
2. publish the new generation in one atomic step, unless it is the served one;
3. purge what only older generations used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lmeraser.derive import Derivation, Inputs, Tools, code_key, derive
from lmeraser.errors import NoModelError
from lmeraser.executors.base import Executor
from lmeraser.hashing import Digest
from lmeraser.model import Model
from lmeraser.progress import Progress, silent
from lmeraser.purge import purge
from lmeraser.workspace import Workspace


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
    ran: dict[str, int]
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
            "ran": self.ran,
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
    rederive: bool = False,
    progress: Progress = silent,
) -> TrainReport:
    """Derive the model of the workspace's records and serve it.

    Args:
        workspace: what to derive from.
        executor: gives the executor.
        rederive: run stages again whose results were made in another environment.
        progress: told how far it is.
    """
    with workspace.writing("train"):
        if rederive:
            workspace.records.forget_derived()
        backbone = executor().backbone
        inputs = inputs_of(workspace, backbone)
        revision = workspace.records.revision
        tools = Tools(
            store=workspace.store,
            memory=workspace.records,
            counts=workspace.records.counted,
            executor=executor,
            fetch=workspace.records.images,
            secret=workspace.secret,
            progress=progress,
            rederive=rederive,
        )
        derivation = derive(inputs, tools)
        codes = code_key(inputs.config, backbone, executor().fingerprint) if derivation.global_head else None
        model, changed = _publish(workspace, inputs, derivation, revision, codes)
        progress("purging", 0, None)
        purged = purge(workspace)
    return TrainReport(model, changed, dict(derivation.ran), derivation.tuning_seconds, len(purged))


def _publish(
    workspace: Workspace, inputs: Inputs, derivation: Derivation, revision: int, codes: Digest | None
) -> tuple[Model, bool]:
    served = workspace.generations.current()
    tuned = derivation.ran["tuned_records"] * inputs.config.tuning.epochs
    measured = tuned / derivation.tuning_seconds if tuned and derivation.tuning_seconds else None
    model = Model(
        generation=0 if served is None else served.generation + 1,
        parent=None if served is None else served.model_digest,
        settings=inputs.config.model_settings(),
        classes=workspace.records.classes,
        backbone=inputs.backbone,
        backbone_name=inputs.config.backbone.name,
        partition=derivation.partition,
        global_head=derivation.global_head,
        clusters=derivation.clusters,
        code_key=codes,
        revision=revision,
        epoch_records_per_second=measured or (served.epoch_records_per_second if served else None),
    )
    if served is not None and _same(served, model):
        return served, False
    workspace.generations.publish(model)
    workspace.catch_up()
    return model, True


def _same(served: Model, model: Model) -> bool:
    """Whether nothing but the number, the parent and the measured speed differ."""
    ignored = {"generation", "parent", "epoch_records_per_second"}
    return served.model_dump(exclude=ignored) == model.model_dump(exclude=ignored)
