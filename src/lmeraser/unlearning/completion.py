"""Complete the deletion requests in progress: bring the model up to date, audit it if asked to, certify.

These are steps 3 to 5 of an unlearning (`unlearn`); training and rectification end with them, too.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from lmeraser.core.atomic_files import storage_errors, write_all_atomic
from lmeraser.core.digests import Digest
from lmeraser.evidence.certificate import issue
from lmeraser.evidence.presentation import render
from lmeraser.pipeline.early_head import EarlyHead
from lmeraser.unlearning.certify import Replaced, compare, statement
from lmeraser.unlearning.update import TrainReport, update_model
from lmeraser.workspace.certificate_forms import certificate_path
from lmeraser.workspace.purge import compact_deleted, erase_deleted, sweep_generations
from lmeraser.workspace.requests.state import ModelSnapshot, Request
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace

_TOGETHER = 100  # requests that are completed in one transaction, which blocks others that accept some


@dataclass(frozen=True)
class CompletionReport:
    """What bringing the model up to date and completing requests did.

    Attributes:
        training: the derivation on the retained records; None before the first training.
        requests: those that were in progress, as they are now.
    """

    training: TrainReport | None
    requests: tuple[Request, ...]


def complete_pending(session: Session, *, full: bool = False) -> CompletionReport:
    """Bring the model up to date, then complete every request in progress.

    Args:
        session: the workspace, and what runs the stages.
        full: train even if no model is served, and consider every record.
    """
    with session.workspace.writing("train"):
        return update_and_complete(session, full=full)


def update_and_complete(
    session: Session, *, full: bool = False, early_head: EarlyHead | None = None, tidy: bool | None = None
) -> CompletionReport:
    """As `complete_pending`, for callers that hold the writer's lock; the other arguments as of `update_model`."""
    if full or session.workspace.generations.current() is not None:
        training = update_model(session, full=full, early_head=early_head, tidy=tidy)
        return CompletionReport(training, complete_requests(session))
    _drop_unfinished_training(session.workspace)
    return CompletionReport(None, complete_requests(session))


def complete_requests(session: Session) -> tuple[Request, ...]:
    """Audit the served model if a request in progress asks for it, then complete those requests.

    The caller holds the writer's lock and has brought the model up to date.

    Returns:
        The requests that were in progress, as they are now.
    """
    workspace = session.workspace
    requests = workspace.requests.all("in_progress")
    audit_report = _audit(session, requests)
    if audit_report is not None and not audit_report["identical"]:
        now, reason = workspace.clock(), "the audit found a difference"
        completed = [workspace.request_changes.fail(request, reason, now=now) for request in requests]
    else:
        completed = _complete(session, requests, audit_report)
    if completed:  # traces of what the requests named went only now
        if any(request.before is not None and not request.before.artifacts for request in requests):
            sweep_generations(workspace)
        compact_deleted(workspace.database)
    return tuple(completed)


def _replaced(workspace: Workspace, snapshot: ModelSnapshot | None) -> Replaced:
    """What differs between the model of a snapshot and the served one."""
    before = None
    if snapshot is not None and not snapshot.artifacts:
        before = workspace.generations.earlier(snapshot.generation, snapshot.public_digest)
    return compare(snapshot, before, workspace.generations.current())


def _audit(session: Session, requests: Sequence[Request]) -> dict[str, object] | None:
    if session.workspace.generations.current() is None or not any(request.audit for request in requests):
        return None
    from lmeraser.unlearning.audit import audit

    return audit(session, independent=True).to_json()


def _complete(
    session: Session, requests: Sequence[Request], audit_report: dict[str, object] | None
) -> list[Request]:
    """Complete requests with certificates, some of them at a time.

    While the certificates of some are written and flushed, those of the next ones are made.
    """
    workspace = session.workspace
    certify = _certifier(session, audit_report)
    completed = list[Request]()
    being_written = deque[tuple[_Certified, Future[None]]]()
    with ThreadPoolExecutor(1) as thread:
        for start in range(0, len(requests), _TOGETHER):
            certified = certify(requests[start : start + _TOGETHER])
            being_written.append((certified, thread.submit(write_all_atomic, certified.files)))
            if len(being_written) > 1:
                completed += _finish(workspace, *being_written.popleft())
        while being_written:
            completed += _finish(workspace, *being_written.popleft())
    return completed


@dataclass(frozen=True)
class _Certified:
    """Requests for which certificates are made.

    Attributes:
        digests: of the payload of each certificate.
        files: contents of the certificates' files.
        now: time of completion.
    """

    digests: list[tuple[Request, Digest]]
    files: dict[Path, bytes]
    now: datetime


def _finish(workspace: Workspace, certified: _Certified, written: Future[None]) -> list[Request]:
    """Note that requests are completed, once their certificates are on the disk."""
    written.result()
    with workspace.write_transaction() as connection:
        return workspace.request_changes.complete(connection, certified.digests, now=certified.now)


def _certifier(
    session: Session, audit_report: dict[str, object] | None
) -> Callable[[Sequence[Request]], _Certified]:
    """Makes certificates for requests; what is the same in all of them is looked up once."""
    workspace = session.workspace
    model = workspace.generations.current()
    environment = None
    if model is not None:
        executor = session.executors.for_training()
        environment = executor.describe() if model.fingerprints == (executor.fingerprint,) else None
    head = workspace.ledger.head
    copies = workspace.exports.recalled(head)
    rewritten = not workspace.database.compaction_due
    replaced = functools.cache(functools.partial(_replaced, workspace))

    def certify(requests: Sequence[Request]) -> _Certified:
        certified = _Certified([], {}, workspace.clock())
        receipts = workspace.receipts.of_all([request.id for request in requests])
        for request in requests:
            facts = statement(
                request,
                model,
                environment=environment,
                audit=audit_report,
                head=head,
                rewritten=rewritten,
                now=certified.now,
                # Snapshots for many requests are of one model, and differ in the clusters that held their records.
                replaced=replaced(request.before and replace(request.before, clusters=())),
                controller=workspace.config.requests.controller or None,
                receipts=receipts.get(request.id, ()),
                copies_outside=copies,
            )
            envelope = issue(facts, workspace.signing_key)
            path = certificate_path(workspace, request)
            certified.files[path] = envelope.to_bytes()
            certified.files[path.with_suffix(".txt")] = render(facts).encode()
            certified.digests.append((request, Digest.of(envelope.payload)))
        return certified

    return certify


def _drop_unfinished_training(workspace: Workspace) -> None:
    """Before the first generation: remove what an interrupted training may have derived from the records."""
    with storage_errors(workspace.root):
        workspace.store.sweep(artifacts=set(), keys=set())
    workspace.records.changes.discard(until=workspace.records.changes.revision)
    erase_deleted(workspace.database)
