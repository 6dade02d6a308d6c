"""The served model as a predictor, in this process or on the workers that ``[compute]`` names."""

from __future__ import annotations

from lmeraser.inference.distributed import ModelPackage, PooledPredictor
from lmeraser.inference.predictor import BatchPredictor, Predictor
from lmeraser.inference.quarantine import with_served
from lmeraser.pipeline.executors.pool import PooledExecutor
from lmeraser.workspace.session import Session


def served_predictor(session: Session) -> Predictor:
    """The served model in this process; it does not follow later generations.

    Raises:
        NoModelError: there is nothing to predict with.
        CorruptError: an artifact is missing or damaged.
    """
    store = session.workspace.store
    return with_served(
        session.workspace,
        lambda model, quarantine: Predictor(model, store, session.executors.local_for_model(model), quarantine),
    )


def distributed_predictor(session: Session) -> BatchPredictor:
    """The served model where ``[compute]`` says: on workers or in this process. Raises as `served_predictor`."""
    store = session.workspace.store
    executor = session.executors.for_model(session.workspace.generations.require())
    if not isinstance(executor, PooledExecutor):
        return served_predictor(session)
    package = with_served(session.workspace, lambda model, quarantine: ModelPackage.of(model, quarantine, store))
    return PooledPredictor(package, executor)
