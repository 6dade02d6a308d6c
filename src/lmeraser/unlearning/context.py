"""The training function's inputs and context for a workspace, with its caches or with temporary ones."""

from __future__ import annotations

from lmeraser.core.digests import Digest
from lmeraser.errors import NoModelError
from lmeraser.pipeline.caches import FeatureCache, InMemoryStatistics, ReadOnlyCache
from lmeraser.pipeline.derive import Inputs, PipelineContext
from lmeraser.pipeline.early_head import EarlyHead
from lmeraser.pipeline.executors.base import Executor
from lmeraser.storage.artifacts import MemoryStore
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace


def training_inputs(workspace: Workspace, backbone: Digest) -> Inputs:
    """Everything that determines the model, as the workspace holds it now.

    Raises:
        NoModelError: no record was ever added.
    """
    classes = workspace.records.classes
    if not classes:
        raise NoModelError(
            "No records to train on",
            got="the workspace is empty",
            next_step="add records with 'lmeraser add SOURCE'",
        )
    return Inputs(workspace.records.index(), workspace.config, len(classes), backbone)


def cached_context(
    session: Session, *, rederive: bool = False, early_head: EarlyHead | None = None
) -> PipelineContext:
    """A context whose results are kept in the workspace.

    Args:
        session: the workspace, and what runs the stages.
        rederive: run stages again whose results were made in another environment.
        early_head: solves for the global head of statistics that were just stored.
    """
    workspace = session.workspace
    return PipelineContext(
        store=workspace.store,
        cache=workspace.records.derived,
        statistics=workspace.records.statistics,
        executor=session.executors.for_training,
        fetch=workspace.records.payloads,
        secret=workspace.secret,
        progress=session.progress,
        rederive=rederive,
        early_head=early_head,
    )


def temporary_context(
    session: Session, *, features: FeatureCache | None = None, executor: Executor | None = None
) -> PipelineContext:
    """A context that starts empty and writes nothing to the workspace.

    Args:
        session: the workspace, which is only read, and what runs the stages.
        features: where features may be read from; None: every image is embedded again.
        executor: runs the stages; None: that for training.
    """
    workspace = session.workspace
    return PipelineContext(
        store=MemoryStore(),
        cache=ReadOnlyCache(features),
        statistics=InMemoryStatistics(),
        executor=session.executors.for_training if executor is None else lambda: executor,
        fetch=workspace.records.payloads,
        secret=workspace.secret,
        progress=session.progress,
    )
