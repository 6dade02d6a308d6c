"""Training: derive the model of all records and serve it, then complete the deletion requests in progress."""

from __future__ import annotations

from lmeraser.unlearning.completion import complete_requests
from lmeraser.unlearning.update import TrainReport, update_model
from lmeraser.workspace.session import Session


def train(session: Session, *, rederive: bool = False) -> TrainReport:
    """Derive the model of the workspace's records and serve it.

    Args:
        session: the workspace, and what runs the stages.
        rederive: run stages again whose results were made in another environment.
    """
    with session.workspace.writing("train"):
        report = update_model(session, rederive=rederive)
        complete_requests(session)
    return report
