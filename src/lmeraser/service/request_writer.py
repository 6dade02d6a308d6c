"""Acceptance and cancellation of requests: durable before they are acknowledged.

One thread collects the waiting changes, applies them in one database transaction, which is flushed to disk, and
resolves their futures. Changes that arrive at the same time thus share one flush. Callers take turns, so that one
who sends many changes holds up nobody but itself, and a transaction takes no further change after a short time. A
change that is refused writes nothing and does not affect the others. A prediction that begins later reads the
quarantine from the database (`model_holder`). Knows nothing about HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from lmeraser.errors import InputError
from lmeraser.workspace.workspace import Workspace

T = TypeVar("T")

_MAX_CHANGES = 32  # in one transaction, which blocks other writers while it lasts
_MAX_SECONDS = 0.05


@dataclass(frozen=True)
class _Change:
    apply: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)


class RequestWriter:
    """Applies changes to requests, in a thread of its own.

    Args:
        workspace: holds the requests.
        on_commit: called after each transaction.
        seconds: after which a transaction takes no further change.
    """

    def __init__(
        self, workspace: Workspace, on_commit: Callable[[], None], *, seconds: float = _MAX_SECONDS
    ) -> None:
        self._seconds = seconds
        self._workspace = workspace
        self._on_commit = on_commit
        self._changes: dict[str, deque[_Change]] = {}  # that wait, by their caller; whose turn is next comes first
        self._changed = threading.Condition()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="request-writer", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of changes waiting."""
        with self._changed:
            return sum(map(len, self._changes.values()))

    def start(self) -> None:
        """Start applying changes."""
        self._thread.start()

    def stop(self) -> None:
        """Apply the waiting changes, then stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, change: Callable[[Connection], T], caller: str = "") -> Future[T]:
        """Apply a change within a transaction.

        Args:
            change: may raise `InputError` before it writes.
            caller: who takes turns with the others.
        """
        submitted = _Change(change)
        with self._changed:
            self._changes.setdefault(caller, deque()).append(submitted)
            self._changed.notify()
        return submitted.future

    def _run(self) -> None:
        while self._wait_for_changes():
            self._commit()

    def _wait_for_changes(self) -> bool:
        """Whether there are changes; not: stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes or self._stopping)
            return bool(self._changes)

    def _next_change(self) -> _Change | None:
        """A waiting change of the caller whose turn it is, who is the last one then."""
        with self._changed:
            while self._changes:
                caller = next(iter(self._changes))
                waiting = self._changes.pop(caller)
                change = waiting.popleft()
                if waiting:
                    self._changes[caller] = waiting
                if change.future.set_running_or_notify_cancel():
                    return change
        return None

    def _commit(self) -> None:
        changes = list[_Change]()
        resolutions = list[Callable[[], None]]()
        try:
            with self._workspace.request_transaction("serve") as connection:
                until = time.monotonic() + self._seconds
                while len(changes) < _MAX_CHANGES and (change := self._next_change()) is not None:
                    changes.append(change)
                    resolutions.append(_apply(change, connection))
                    if time.monotonic() >= until:
                        break
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
