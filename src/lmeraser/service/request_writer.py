"""Acceptance and cancellation of requests: durable before they are acknowledged.

One thread collects the waiting changes, applies them in one database transaction, which is flushed to disk, and
resolves their futures. Changes that arrive at the same time thus share one flush. A change that is refused writes
nothing and does not affect the others. A prediction that begins later reads the quarantine from the database
(`model_holder`). Knows nothing about HTTP.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from lmeraser.errors import InputError
from lmeraser.workspace.workspace import Workspace

T = TypeVar("T")

_MAX_CHANGES = 32  # in one transaction, which blocks other writers while it lasts


@dataclass(frozen=True)
class _Change:
    apply: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)


class RequestWriter:
    """Applies changes to requests, in a thread of its own.

    Args:
        workspace: holds the requests.
        on_commit: called after each transaction.
    """

    def __init__(self, workspace: Workspace, on_commit: Callable[[], None]) -> None:
        self._workspace = workspace
        self._on_commit = on_commit
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="request-writer", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of changes waiting."""
        return self._changes.qsize()

    def start(self) -> None:
        """Start applying changes."""
        self._thread.start()

    def stop(self) -> None:
        """Apply the waiting changes, then stop."""
        self._changes.put(None)
        self._thread.join()

    def submit(self, change: Callable[[Connection], T]) -> Future[T]:
        """Apply a change within a transaction; it may raise `InputError` before it writes."""
        submitted = _Change(change)
        self._changes.put(submitted)
        return submitted.future

    def _run(self) -> None:
        running = True
        while running:
            changes, running = self._next_changes()
            if changes:
                self._commit(changes)

    def _next_changes(self) -> tuple[list[_Change], bool]:
        """The waiting changes, at least one; whether there may be more later."""
        changes = list[_Change]()
        change = self._changes.get()
        while change is not None:
            if change.future.set_running_or_notify_cancel():
                changes.append(change)
            if len(changes) == _MAX_CHANGES or self._changes.empty():
                return changes, True
            change = self._changes.get()
        return changes, False

    def _commit(self, changes: Sequence[_Change]) -> None:
        resolutions: list[Callable[[], None]] = []
        try:
            with self._workspace.request_transaction("serve") as connection:
                resolutions = [_apply(change, connection) for change in changes]
        except Exception as error:
            for change in changes:
                change.future.set_exception(error)
            return
        for resolve in resolutions:
            resolve()
        self._on_commit()


def _apply(change: _Change, connection: Connection) -> Callable[[], None]:
    """Apply a change; a function that resolves its future, for after the commit."""
    try:
        result = change.apply(connection)
    except InputError as error:
        refusal = error
        return lambda: change.future.set_exception(refusal)
    return lambda: change.future.set_result(result)
