"""A workspace: the folder that holds private records, artifacts and generations. Every path comes from here.

    lmeraser.toml    settings                        records.db   private records (SQLite)
    workspace.json   format of this folder           artifacts/   tensors by digest
    secret.key       key of keyed digests, 0600      memo/        which inputs gave which artifact
    lock             held by the one writer          generations/ manifests and the served one

One writer at a time, any number of readers. Knows nothing about what commands do with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from lmeraser import config as settings
from lmeraser.config import Config
from lmeraser.errors import CorruptError, FormatError, InputError, LockedError, WorkspaceError
from lmeraser.files import storage_errors, write_atomic
from lmeraser.generations import Generations
from lmeraser.records import Records
from lmeraser.store import FileStore

FORMAT = 1
_PRIVATE = 0o600
_SECRET_BYTES = 32


class Workspace:
    """An existing workspace; made by `create`, opened by the constructor.

    Args:
        root: the folder.
        wait: how many seconds a writer waits for another one to finish.

    Raises:
        WorkspaceError: there is no workspace in the folder.
        FormatError: it was written by a newer version.
    """

    def __init__(self, root: str | os.PathLike[str], *, wait: float = 10.0) -> None:
        self.root = Path(root)
        self._wait = wait
        self._lock = FileLock(self.root / "lock")
        _check_format(self.root)

    @classmethod
    def create(
        cls, root: str | os.PathLike[str], config: Config, *, classes: Sequence[str] = (), wait: float = 10.0
    ) -> Workspace:
        """Make a workspace in an empty or missing folder.

        Raises:
            InputError: the folder holds something already, or the classes are not a list of different names.
        """
        folder = Path(root)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            what = "a workspace" if (folder / "workspace.json").exists() else "other files"
            raise InputError(
                "A workspace is made in an empty or missing folder.",
                got=f"{folder} holds {what}",
                next_step="choose another folder with -w, or use the workspace that is there",
            )
        if len(set(classes)) != len(classes) or not all(classes):
            raise InputError("The classes are a list of different, non-empty names.", got=repr(list(classes)))
        write_atomic(folder / "lmeraser.toml", settings.to_toml(config).encode())
        write_atomic(folder / "secret.key", secrets.token_hex(_SECRET_BYTES).encode(), mode=_PRIVATE)
        # Written last: a folder in which 'init' was interrupted is not yet a workspace.
        write_atomic(folder / "workspace.json", json.dumps({"format": FORMAT}).encode())
        workspace = cls(folder, wait=wait)
        if classes:
            workspace.records.set_classes(classes)
        return workspace

    @cached_property
    def config(self) -> Config:
        """The settings in lmeraser.toml."""
        return settings.read(self.root / "lmeraser.toml")

    @cached_property
    def secret(self) -> bytes:
        """The key of keyed digests; never leaves the workspace."""
        try:
            secret = bytes.fromhex((self.root / "secret.key").read_text(encoding="ascii"))
            if len(secret) != _SECRET_BYTES:
                raise ValueError(f"secret.key holds {len(secret)} bytes")
            return secret
        except (OSError, ValueError) as error:
            raise CorruptError(
                f"A workspace has its secret.key of {_SECRET_BYTES} bytes.",
                got=str(error),
                next_step="restore the file from where the workspace came from",
            ) from error

    @cached_property
    def records(self) -> Records:
        """The private records."""
        with storage_errors(self.root):
            return Records(self.root / "records.db", secret=self.secret)

    @property
    def store(self) -> FileStore:
        """Artifacts and memo."""
        return FileStore(self.root)

    @property
    def generations(self) -> Generations:
        """Manifests and the served one."""
        return Generations(self.root)

    @contextlib.contextmanager
    def writing(self, command: str) -> Iterator[None]:
        """Be the one writer while the body runs; may be nested within one process.

        Raises:
            LockedError: another process is writing and did not finish in time; says who.
        """
        holder = self.root / "lock.holder"
        with storage_errors(self.root):
            try:
                self._lock.acquire(timeout=self._wait)
            except Timeout as error:
                raise LockedError(
                    "One process at a time changes a workspace.",
                    got=_describe(holder),
                    next_step="wait for it to finish, or give a longer --wait",
                ) from error
        try:
            if self._lock.lock_counter == 1:
                who = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
                write_atomic(holder, json.dumps(who).encode())
            yield
        finally:
            if self._lock.lock_counter == 1:
                holder.unlink(missing_ok=True)
            self._lock.release()

    def close(self) -> None:
        """Release the database."""
        if "records" in self.__dict__:
            self.records.close()


def _check_format(root: Path) -> None:
    path = root / "workspace.json"
    if not path.is_file():
        raise WorkspaceError(
            "The folder is a workspace.",
            got=f"no workspace.json in {root.resolve()}",
            next_step="make one with 'lmeraser -w DIR init', or name an existing one with -w DIR",
        )
    try:
        value: Any = json.loads(path.read_bytes())
        found = int(value["format"])
    except (OSError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise CorruptError("workspace.json names the workspace's format.", got=f"{path}: {error!r}") from error
    if found > FORMAT:
        raise FormatError(
            f"This version of lmeraser reads workspaces of format {FORMAT}.",
            got=f"format {found} in {root}",
            next_step="upgrade lmeraser; nothing was changed",
        )


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_bytes())
        return f"'{who['command']}' holds it: process {who['pid']} on {who['host']}"
    except (OSError, ValueError, KeyError):
        return "another process holds it"
