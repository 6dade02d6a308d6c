"""Unlearning: delete the records, derive F on what is left, remove every byte that came from them.

Steps, each of which may be interrupted; running `unlearn` or `train` again continues:
1. preflight: the request names known records, and the backbone loads; nothing has changed so far;
2. delete the records, with their features and clusters, in one transaction, and suppress their ids;
3. derive F on the retained records (`train`): clusters whose members did not change are found in the store;
4. publish the new generation and purge what the old one used.

Between 2 and 4 the old generation is still served; `status` says that it is out of date.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from lmeraser.deletion import Selection, select
from lmeraser.executors.base import Executor
from lmeraser.files import storage_errors
from lmeraser.hashing import Digest
from lmeraser.progress import Progress, silent
from lmeraser.train import TrainReport, train
from lmeraser.workspace import Workspace


@dataclass(frozen=True)
class UnlearnReport:
    """What an unlearning did.

    Attributes:
        selection: the records that were deleted.
        before: digest of the model before, if there was one.
        training: the derivation on the retained records; None before the first training.
        seconds: from the request to the new generation and the end of the purge.
    """

    selection: Selection
    before: Digest | None
    training: TrainReport | None
    seconds: float

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "records_deleted": len(self.selection.ids),
            "already_deleted": len(self.selection.already_deleted),
            "model_digest_before": self.before,
            **(self.training.to_json() if self.training else {}),
            "seconds": round(self.seconds, 3),
        }


def unlearn(
    workspace: Workspace,
    executor: Callable[[], Executor],
    *,
    ids: Iterable[str] = (),
    subjects: Iterable[str] = (),
    progress: Progress = silent,
) -> UnlearnReport:
    """Forget records exactly: the next model is the one that training without them gives.

    Args:
        workspace: where they are.
        executor: gives the executor.
        ids: record ids.
        subjects: people whose records all go.
        progress: told how far it is.

    Raises:
        UnknownRecordError: names that this workspace never held; nothing was deleted.
        BackboneError: the backbone cannot be loaded; nothing was deleted.
    """
    started = time.perf_counter()
    with workspace.writing("unlearn"):
        selection = select(workspace.records, ids=ids, subjects=subjects)
        served = workspace.generations.current()
        if served is not None:
            executor()
        if selection.ids:
            workspace.records.delete(selection.ids, subjects=selection.subjects)
        if served is None:
            _forget_unfinished(workspace)
            return UnlearnReport(selection, None, None, time.perf_counter() - started)
        report = train(workspace, executor, progress=progress)
    return UnlearnReport(selection, served.model_digest, report, time.perf_counter() - started)


def _forget_unfinished(workspace: Workspace) -> None:
    """Before the first generation: drop what an interrupted training may have derived from the records."""
    with storage_errors(workspace.root):
        workspace.store.sweep(artifacts=set(), keys=set())
    workspace.records.compact()
