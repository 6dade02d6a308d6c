"""Unlearning: delete the records, derive F on what is left, remove every byte that came from them, certify it.

Steps, each of which may be interrupted; running `unlearn` or `train` again continues:
1. preflight: the requests name known records, and the backbone loads; nothing has changed so far;
2. in one transaction: accept the request, delete the records of all that are carried out, with their features,
   keys and clusters, suppress their names, and note it for the ledger; what is accepted later stays pending;
3. derive F on the retained records (`train`): clusters whose members did not change are found in the store;
   publish the new generation and purge what the old one used;
4. audit, if a request asked for it;
5. for every request in progress: sign and write its certificate, then note that it is completed.

Between 2 and 3 the old generation is still served, without the clusters that held the records (quarantine).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Connection

from lmeraser.core.atomic_files import storage_errors, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.errors import InputError
from lmeraser.evidence.certificate import issue, render
from lmeraser.pipeline.executors.base import Executor
from lmeraser.unlearning.certify import statement
from lmeraser.unlearning.train import TrainReport, train
from lmeraser.workspace.purge import forget
from lmeraser.workspace.requests.draft import RequestDraft
from lmeraser.workspace.requests.selection import Selection
from lmeraser.workspace.requests.state import Request, State
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class CompletionReport:
    """What bringing the model up to date and completing requests did.

    Attributes:
        training: the derivation on the retained records; None before the first training.
        requests: those that were in progress, as they are now.
    """

    training: TrainReport | None
    requests: tuple[Request, ...]


@dataclass(frozen=True)
class UnlearnReport:
    """What an unlearning did.

    Attributes:
        selection: the records that were deleted.
        before: digest of the model before, if there was one.
        training: the derivation on the retained records; None before the first training.
        requests: the requests that were carried out, as they are now.
        certificates: files that were written.
        seconds: from the request to the new generation and the end of the purge.
    """

    selection: Selection
    before: Digest | None
    training: TrainReport | None
    seconds: float
    requests: tuple[Request, ...] = ()
    certificates: tuple[str, ...] = field(default=())

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "requests": {request.id: request.state for request in self.requests},
            "records_deleted": len(self.selection.ids),
            "already_deleted": len(self.selection.already_deleted),
            "model_digest_before": self.before,
            **(self.training.to_json() if self.training else {}),
            "certificates": list(self.certificates),
            "seconds": round(self.seconds, 3),
        }


def unlearn(
    workspace: Workspace,
    executor: Callable[[], Executor],
    wish: RequestDraft | None = None,
    *,
    only: Sequence[str] = (),
    audit: bool = False,
    failed: bool = True,
    progress: Progress = silent,
) -> UnlearnReport:
    """Forget records exactly: the next model is the one that training without them gives.

    Args:
        workspace: where they are.
        executor: gives the executor.
        wish: a request to accept and carry out; None: those that were accepted before.
        only: ids of accepted requests to carry out; none: all that are open.
        audit: audit the model before the requests are completed.
        failed: whether requests whose audit failed are open, too.
        progress: told how far it is.

    Raises:
        UnknownRecordError: names that this workspace never held; nothing was deleted.
        BackboneError: the backbone cannot be loaded; nothing was deleted.
        InputError: there is nothing to carry out.
    """
    started = time.perf_counter()
    with workspace.writing("unlearn"):
        if wish is None:
            workspace.requests.prepare(_chosen(workspace, only, failed))
        served = workspace.generations.current()
        if served is not None:
            executor()
        now = workspace.clock()
        with workspace.write_transaction() as connection:
            if wish is not None:
                chosen = [_not_cancelled(workspace.requests.accept(wish, now=now, connection=connection))]
            else:  # again: some may have been accepted or cancelled meanwhile
                chosen = _chosen(workspace, only, failed, connection)
            begun = [request for request in chosen if request.state in ("pending", "failed")]
            selection = workspace.requests.begin(connection, begun, served, now=now, audit=audit)
        settled = complete_pending(workspace, executor, progress=progress)
        chosen = [workspace.requests.require(request.id) for request in chosen]
    return UnlearnReport(
        selection=selection,
        before=served.model_digest if served else None,
        training=settled.training,
        seconds=time.perf_counter() - started,
        requests=tuple(chosen),
        certificates=tuple(str(_path(workspace, r)) for r in chosen if r.state == "completed"),
    )


def complete_pending(
    workspace: Workspace,
    executor: Callable[[], Executor],
    *,
    first: bool = False,
    rederive: bool = False,
    progress: Progress = silent,
) -> CompletionReport:
    """Bring the model up to date, then complete every request in progress (steps 3 to 5).

    Args:
        workspace: where they are.
        executor: gives the executor.
        first: train even if nothing was trained before.
        rederive: run stages again whose results were made in another environment.
        progress: told how far it is.
    """
    with workspace.writing("train"):
        if first or workspace.generations.current() is not None:
            training = train(workspace, executor, everything=first, rederive=rederive, progress=progress)
        else:
            training = None
            _forget_unfinished(workspace)
        under_way = workspace.requests.all("in_progress")
        audit = _audit(workspace, executor, under_way, progress) if training else None
        done = tuple(_conclude(workspace, executor, request, audit) for request in under_way)
    return CompletionReport(training, done)


def _chosen(
    workspace: Workspace, only: Sequence[str], failed: bool, connection: Connection | None = None
) -> list[Request]:
    requests = workspace.requests
    states: tuple[State, ...] = ("pending", "in_progress", *(("failed",) if failed else ()))
    chosen = [requests.require(name, connection) for name in only] or requests.all(*states, connection=connection)
    if not chosen:
        raise InputError(
            "A deletion names records or subjects, or carries out requests that were accepted before.",
            got="no name, and no request is open",
            next_step="give --id, --subject or --ids-file",
        )
    return [_not_cancelled(request) for request in chosen]


def _not_cancelled(request: Request) -> Request:
    if request.state == "cancelled":
        raise InputError(
            "A cancelled request is not carried out.",
            got=f"{request.id}; nothing was deleted",
            next_step="make a new request with another id, or none",
        )
    return request


def _audit(
    workspace: Workspace, executor: Callable[[], Executor], requests: Sequence[Request], progress: Progress
) -> dict[str, object] | None:
    from lmeraser.unlearning.audit import audit

    if not any(request.audit for request in requests):
        return None
    return audit(workspace, executor, progress=progress).to_json()


def _conclude(
    workspace: Workspace, executor: Callable[[], Executor], request: Request, audit: dict[str, object] | None
) -> Request:
    """Complete a request with a certificate, or note that its audit failed."""
    now, model = workspace.clock(), workspace.generations.current()
    if audit is not None and not audit["identical"]:
        return workspace.requests.fail(request, "the audit found a difference", now=now)
    facts = statement(
        request,
        model,
        environment=executor().describe() if model and model.fingerprints == (executor().fingerprint,) else None,
        audit=audit,
        head=workspace.ledger.head,
        rewritten=not workspace.database.compaction_due,
        now=now,
    )
    envelope = issue(facts, workspace.signing_key)
    write_atomic(_path(workspace, request), envelope.to_bytes())
    write_atomic(_path(workspace, request).with_suffix(".txt"), render(facts).encode())
    completed = workspace.requests.complete(request, Digest.of(envelope.payload), now=now)
    workspace.ledger.flush()
    return completed


def _path(workspace: Workspace, request: Request) -> Path:
    return workspace.certificates / f"{request.id}.json"


def _forget_unfinished(workspace: Workspace) -> None:
    """Before the first generation: drop what an interrupted training may have derived from the records."""
    with storage_errors(workspace.root):
        workspace.store.sweep(artifacts=set(), keys=set())
    workspace.records.changes.forget(until=workspace.records.changes.revision)
    forget(workspace.database)
