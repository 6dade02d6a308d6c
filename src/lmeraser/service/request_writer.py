"""Acceptance and cancellation of requests: durable before they are acknowledged.

One thread collects the waiting changes, applies them in one database transaction, which is flushed to disk, and
resolves their futures. Changes that arrive at the same time thus share one flush, but a transaction takes no
further change after a short time on the CPU (not of the clock: on a machine that is full everything takes longer,
and a flush for each change would keep all of them waiting). Whose changes have taken the least CPU time is served
first, so that whoever sends many changes, or large ones, holds up nobody but itself. A change that is refused
writes nothing and does not affect the others. A prediction that begins later reads the quarantine anew
(`model_holder`).

What transactions leave to do (`Workspace.settle_requests`) is done in a thread of its own, which rests after that.
It writes to the database as well, so the next acceptance would wait for it, and for what it waits for. Entries are
safe in the ledger's outbox meanwhile. Knows nothing about HTTP.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any, TypeVar

from sqlalchemy import Connection

from lmeraser.errors import InputError, LmeraserError
from lmeraser.workspace.workspace import Workspace

T = TypeVar("T")

_MAX_CHANGES = 32  # in one transaction, which blocks other writers while it lasts
_MAX_SECONDS = 0.01  # of CPU time; what is answered together waits for the last of it
_REST_SECONDS = 0.25  # after what transactions left to do was done

log = logging.getLogger("lmeraser.service")


@dataclass(frozen=True)
class _Change:
    apply: Callable[[Connection], Any]
    future: Future[Any] = field(default_factory=Future)


class RequestWriter:
    """Applies changes to requests, in threads of its own.

    Args:
        workspace: holds the requests.
        on_commit: called after each transaction.
        seconds: of CPU time after which a transaction takes no further change.
    """

    def __init__(
        self, workspace: Workspace, on_commit: Callable[[], None], *, seconds: float = _MAX_SECONDS
    ) -> None:
        self._seconds = seconds
        self._workspace = workspace
        self._on_commit = on_commit
        self._changes: dict[str, deque[_Change]] = {}  # that wait, by their caller
        # Start-time fair queueing: a change starts when the caller's last one ended, in a time of its own that
        # passes while its changes use the CPU; one who did nothing for a while has saved no time up.
        self._starts: dict[str, float] = {}
        self._serving = 0.0  # start of the change that was applied last
        self._changed = threading.Condition()
        self._stopping = False
        self._unsettled = threading.Event()
        self._ended = threading.Event()  # nothing more will be unsettled
        self._thread = threading.Thread(target=self._run, name="request-writer", daemon=True)
        self._settling = threading.Thread(target=self._settle, name="request-settler", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of changes waiting."""
        with self._changed:
            return sum(map(len, self._changes.values()))

    def start(self) -> None:
        """Start applying changes."""
        self._thread.start()
        self._settling.start()

    def stop(self) -> None:
        """Apply the waiting changes, then stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()
        self._ended.set()
        self._unsettled.set()
        self._settling.join()

    def submit(self, change: Callable[[Connection], T], caller: str = "") -> Future[T]:
        """Apply a change within a transaction.

        Args:
            change: may raise `InputError` before it writes.
            caller: who takes turns with the others.
        """
        submitted = _Change(change)
        with self._changed:
            if caller not in self._changes:
                self._changes[caller] = deque()
                self._starts[caller] = max(self._serving, self._starts.get(caller, 0.0))
            self._changes[caller].append(submitted)
            self._changed.notify()
        return submitted.future

    def _run(self) -> None:
        while self._wait_for_changes():
            self._commit()
            self._unsettled.set()

    def _settle(self) -> None:
        while not self._ended.wait(_REST_SECONDS) or self._unsettled.is_set():
            self._unsettled.wait()
            self._unsettled.clear()
            try:
                self._workspace.settle_requests("serve")
            except LmeraserError as error:  # the next one, or the next writer, does it
                log.error("cannot settle requests: %s", error.message)

    def _wait_for_changes(self) -> bool:
        """Whether there are changes; not: stop."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes or self._stopping)
            return bool(self._changes)

    def _next_change(self) -> tuple[str, _Change] | None:
        """A waiting change, and its caller: the one whose changes took the least time so far."""
        with self._changed:
            while self._changes:
                caller = min(self._changes, key=self._starts.__getitem__)
                waiting = self._changes[caller]
                change = waiting.popleft()
                if not waiting:
                    del self._changes[caller]
                if change.future.set_running_or_notify_cancel():
                    self._serving = self._starts[caller]
                    return caller, change
        return None

    def _account(self, caller: str, seconds: float) -> None:
        """Note the CPU time of a caller's change; those who wait for nothing and are behind are forgotten."""
        with self._changed:
            self._starts[caller] += seconds
            self._starts = {
                name: start
                for name, start in self._starts.items()
                if name in self._changes or start > self._serving
            }

    def _commit(self) -> None:
        changes = list[_Change]()
        resolutions = list[Callable[[], None]]()
        try:
            with self._workspace.database.transaction() as connection:
                used = time.thread_time()  # waiting for the CPU or the disk is not the caller's doing
                until = used + self._seconds
                while len(changes) < _MAX_CHANGES and (next_change := self._next_change()) is not None:
                    caller, change = next_change
                    changes.append(change)
                    resolutions.append(_apply(change, connection))
                    before, used = used, time.thread_time()
                    self._account(caller, used - before)
                    if used >= until:
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
