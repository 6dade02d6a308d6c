"""Accepting and cancelling requests: durable before they are answered.

One thread takes all changes that wait, makes them in one transaction of the database, which is flushed to the
disk, and answers. So changes that come at the same time share the flush. One that is refused changes nothing and
does not disturb the others. A prediction that begins later finds what it leaves out in the database (`state`).
Follows `requests`; knows nothing about HTTP.
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

_TOGETHER = 32  # changes in one transaction, while which others wait who want to write


@dataclass(frozen=True)
class _Change:
    make: Callable[[Connection], Any]
    made: Future[Any] = field(default_factory=Future)


class RequestWriter:
    """Makes changes of requests, in a thread of its own.

    Args:
        workspace: where the requests are.
        then: called after every round of changes.
    """

    def __init__(self, workspace: Workspace, then: Callable[[], None]) -> None:
        self._workspace, self._then = workspace, then
        self._changes: queue.SimpleQueue[_Change | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    @property
    def waiting(self) -> int:
        """Changes that wait."""
        return self._changes.qsize()

    def start(self) -> None:
        """Begin to take changes."""
        self._thread.start()

    def stop(self) -> None:
        """Make what waits, then end."""
        self._changes.put(None)
        self._thread.join()

    def make(self, change: Callable[[Connection], T]) -> Future[T]:
        """Make a change in the transaction that it is handed; an `InputError` it raises before it writes."""
        one = _Change(change)
        self._changes.put(one)
        return one.made

    def _run(self) -> None:
        going = True
        while going:
            changes, going = self._taken()
            if changes:
                self._round(changes)

    def _taken(self) -> tuple[list[_Change], bool]:
        changes, change = list[_Change](), self._changes.get()
        while change is not None:
            if change.made.set_running_or_notify_cancel():
                changes.append(change)
            if len(changes) == _TOGETHER or self._changes.empty():
                return changes, True
            change = self._changes.get()
        return changes, False

    def _round(self, changes: Sequence[_Change]) -> None:
        answers: list[Callable[[], None]] = []
        try:
            with self._workspace.request_transaction("serve") as connection:
                answers = [_made(change, connection) for change in changes]
        except Exception as error:
            for change in changes:
                change.made.set_exception(error)
            return
        for answer in answers:
            answer()
        self._then()


def _made(change: _Change, connection: Connection) -> Callable[[], None]:
    """Make a change; how to answer it later."""
    try:
        result = change.make(connection)
    except InputError as error:
        refusal = error
        return lambda: change.made.set_exception(refusal)
    return lambda: change.made.set_result(result)
