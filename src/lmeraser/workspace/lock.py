"""The writer's lock: one process at a time changes a workspace.

The lock is a file lock of the operating system, which a killed process loses. A second file names the holder, as a
hint for those who wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lmeraser.core.atomic_files import PRIVATE, open_private, storage_errors
from lmeraser.errors import LockedError, StorageError
from lmeraser.storage.engines import COPY_TO_WRITE
from lmeraser.workspace.layout import Layout

if TYPE_CHECKING:
    from filelock import BaseFileLock


class WriterLock:
    """The lock of one workspace; may be acquired again by the thread that holds it.

    Args:
        layout: of the workspace.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._opened: BaseFileLock | None = None
        self._opening = threading.Lock()

    @contextlib.contextmanager
    def held(self, command: str, *, wait: float) -> Iterator[bool]:
        """Hold the lock while the body runs.

        Args:
            command: what it is held for, shown to others who wait.
            wait: how many seconds to wait for another holder.

        Yields:
            Whether it was not held by this thread before.

        Raises:
            LockedError: another process holds it and did not release it in time; says which.
            StorageError: the folder cannot be written to.
        """
        from filelock import Timeout

        if self._layout.root.is_dir() and not os.access(self._layout.root, os.W_OK):
            raise StorageError(
                "The workspace can only be read here",
                got=f"{self._layout.root} is on a read-only disk, or this user may not write to it",
                next_step=COPY_TO_WRITE,
            )
        lock = self._file_lock
        with storage_errors(self._layout.root):
            try:
                lock.acquire(timeout=wait)
            except Timeout as error:
                raise LockedError(
                    "Another process is writing to the workspace",
                    got=self._describe_holder(),
                    next_step="wait for it to finish, or give a longer --wait",
                ) from error
        outermost = lock.lock_counter == 1
        try:
            if outermost:
                self._write_holder(command)
            yield outermost
        finally:
            if outermost:
                with contextlib.suppress(OSError):
                    self._layout.lock_holder.unlink()
            lock.release()

    @property
    def _file_lock(self) -> BaseFileLock:
        """The file lock; its library is loaded by those who write."""
        from filelock import FileLock

        with self._opening:
            if self._opened is None:
                self._opened = FileLock(self._layout.lock, mode=PRIVATE)
            return self._opened

    def _write_holder(self, command: str) -> None:
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
        with contextlib.suppress(OSError), open_private(self._layout.lock_holder, "wb") as file:  # only a hint
            file.write(json.dumps(holder).encode())

    def _describe_holder(self) -> str:
        try:
            holder = json.loads(self._layout.lock_holder.read_bytes())
            return f"'{holder['command']}', process {holder['pid']} on {holder['host']}"
        except (OSError, ValueError, KeyError):
            return ""
