"""A workspace: the folder that holds private records, artifacts and generations. Every path comes from here.

    lmeraser.toml    settings                        records.db    private records and requests (SQLite)
    workspace.json   format of this folder           ledger        what was done, entry by entry
    secret.key       key of keyed digests, 0600      certificates/ of completed deletions
    signing.key      signs certificates, 0600        artifacts/    tensors by digest
    signing.pub      verifies them                   memo/         which inputs gave which artifact
    lock             held by the one writer          generations/  manifests and the served one
    calibration.json how fast this machine tunes     reports/      pictures; they show records

One writer at a time, any number of readers; requests are noted while somebody writes, too. A writer first brings
the ledger up to date with what a crash left behind. Knows nothing about what commands do with it.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection

from lmeraser.config import schema
from lmeraser.config.schema import Config
from lmeraser.core.atomic_files import TEMPORARY, storage_errors, write_atomic
from lmeraser.core.digests import keyed_digest
from lmeraser.core.time import utc_now
from lmeraser.data.records import Records
from lmeraser.errors import ConfigError, CorruptError, FormatError, InputError, LockedError, WorkspaceError
from lmeraser.evidence.dsse import PublicKey, SigningKey
from lmeraser.evidence.entries import GenerationPublished, WorkspaceCreated
from lmeraser.evidence.ledger import Ledger
from lmeraser.pipeline.calibration import Calibration
from lmeraser.storage.artifacts import BlobStore
from lmeraser.storage.blobs import Folder
from lmeraser.storage.database import Database
from lmeraser.storage.engines import reach
from lmeraser.storage.migrate import upgrade
from lmeraser.workspace.api_keys import ApiKeys
from lmeraser.workspace.registry import Generations
from lmeraser.workspace.requests.repository import Requests
from lmeraser.workspace.requests.subscriptions import Subscriptions

if TYPE_CHECKING:
    from lmeraser.storage.s3 import Bucket

FORMAT = 1
_PRIVATE = 0o600
_SECRET_BYTES = 32
_MADE_FIRST = {"lmeraser.toml", "secret.key", "signing.key", "signing.pub"}  # by 'init', before the marker


class Workspace:
    """An existing workspace; made by `create`, opened by the constructor.

    Args:
        root: the folder.
        wait: how many seconds a writer waits for another one to finish.
        compute: settings of ``[compute]`` that differ this time.
        clock: tells the time.

    Raises:
        WorkspaceError: there is no workspace in the folder.
        FormatError: it was written by a newer version.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        wait: float = 10.0,
        compute: Mapping[str, Any] | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.root = Path(root)
        self.clock = clock
        self._wait, self._compute = wait, dict(compute or {})
        self._lock = FileLock(self.root / "lock")
        _check_format(self.root)

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        config: Config,
        *,
        classes: Sequence[str] = (),
        wait: float = 10.0,
        signing_key: SigningKey | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> Workspace:
        """Make a workspace in an empty or missing folder, or in one where this was interrupted.

        Raises:
            InputError: the folder holds something else, or the classes are not a list of different names.
        """
        folder, key = Path(root), signing_key or SigningKey.new()
        if folder.exists() and (not folder.is_dir() or _foreign(folder)):
            what = "a workspace" if (folder / "workspace.json").exists() else "other files"
            raise InputError(
                "A workspace is made in an empty or missing folder.",
                got=f"{folder} holds {what}",
                next_step="choose another folder with -w, or use the workspace that is there",
            )
        if len(set(classes)) != len(classes) or not all(classes):
            raise InputError("The classes are a list of different, non-empty names.", got=repr(list(classes)))
        write_atomic(folder / "lmeraser.toml", schema.to_toml(config).encode())
        write_atomic(folder / "secret.key", secrets.token_hex(_SECRET_BYTES).encode(), mode=_PRIVATE)
        write_atomic(folder / "signing.key", key.pem, mode=_PRIVATE)
        write_atomic(folder / "signing.pub", key.public.pem)
        # Written last: a folder in which 'init' was interrupted is not yet a workspace.
        write_atomic(folder / "workspace.json", json.dumps({"format": FORMAT}).encode())
        workspace = cls(folder, wait=wait, clock=clock)
        try:
            with workspace.writing("init"):
                if classes:
                    workspace.records.set_classes(classes)
        except BaseException:
            workspace.close()
            raise
        return workspace

    @cached_property
    def config(self) -> Config:
        """The settings in lmeraser.toml, with those of ``[compute]`` that differ this time."""
        return schema.read(self.root / "lmeraser.toml").computed(self._compute)

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
    def signing_key(self) -> SigningKey:
        """The key that signs certificates.

        Raises:
            CorruptError: it is not the private part of signing.pub.
        """
        key = SigningKey.read(self.root / "signing.key")
        if key.public.key_id != PublicKey.read(self.root / "signing.pub").key_id:
            raise CorruptError(
                "signing.key is the private part of signing.pub.",
                got=f"the key that belongs to {key.public.key_id.short}",
                next_step="restore both files from where the workspace came from",
            )
        return key

    @cached_property
    def database(self) -> Database:
        """The SQL database with everything that is not a file."""
        with storage_errors(self.root):
            return Database(self._database, keys=self.root / "records.keys")

    @property
    def _database(self) -> Path | str:
        return self.config.storage.database or self.root / "records.db"

    @cached_property
    def records(self) -> Records:
        """The private records.

        Raises:
            CorruptError: the secret is not the one that they were written with.
        """
        known = self.database.get_metadata("secret")
        if known is not None and known != _check_value(self.secret):
            raise CorruptError(
                "secret.key is the key that this workspace was made with.",
                got="another key; deleted records would not be recognised with it",
                next_step="restore secret.key from where the workspace came from",
            )
        return Records(self.database, secret=self.secret)

    @cached_property
    def ledger(self) -> Ledger:
        """What was done, entry by entry."""
        return Ledger(self.root / "ledger", self.database)

    @cached_property
    def requests(self) -> Requests:
        """Deletion requests."""
        return Requests(self.database, self.records, self.ledger, secret=self.secret, config=self.config.requests)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """Keys of those who may use the HTTP service."""
        return ApiKeys(self.database, secret=self.secret)

    @cached_property
    def subscriptions(self) -> Subscriptions:
        """Who is told what becomes of requests."""
        return Subscriptions(self.database)

    @property
    def calibration(self) -> Calibration:
        """How fast this machine tunes."""
        return Calibration(self.root / "calibration.json")

    @property
    def certificates(self) -> Path:
        """The folder of certificates."""
        return self.root / "certificates"

    @property
    def reports(self) -> Path:
        """The folder of pictures; purged with every generation, because they show records."""
        return self.root / "reports"

    @property
    def store(self) -> BlobStore:
        """Artifacts and memo.

        Raises:
            ConfigError: the settings name another place for artifacts than the one where they were put.
        """
        self._check_place()
        return BlobStore(self.bucket or Folder(self.root / "artifacts"), Folder(self.root / "memo"))

    @cached_property
    def bucket(self) -> Bucket | None:
        """Where artifacts lie if not in the workspace's folder."""
        place = self.config.storage.artifacts
        if place is None:
            return None
        from lmeraser.storage.s3 import Bucket

        # Two workspaces that are given the same folder would sweep each other's artifacts.
        return Bucket(place, keyed_digest(self.secret, ["artifacts"]).hex[:16])

    def settle_artifacts(self) -> None:
        """Remember where artifacts are put, from now on. Raises `ConfigError` as `store` does."""
        place = self._check_place()
        if place != self.database.get_metadata("artifacts"):
            with self.database.transaction() as connection:
                self.database.set_metadata(connection, "artifacts", place)

    def _check_place(self) -> str:
        """The place of artifacts, if none were put elsewhere."""
        place, known = self.config.storage.artifacts or "", self.database.get_metadata("artifacts")
        memo = self.root / "memo"
        if known not in (None, place) and memo.exists() and any(memo.iterdir()):
            raise ConfigError(
                "storage.artifacts stays what it was at the first training.",
                got=f"{place or 'none'}; they are in {known or 'the folder artifacts'}",
                next_step="set it back in lmeraser.toml, or make a new workspace",
            )
        return place

    @cached_property
    def generations(self) -> Generations:
        """Manifests and the served one."""
        return Generations(self.root)

    @contextlib.contextmanager
    def writing(self, command: str, *, wait: float | None = None) -> Iterator[None]:
        """Be the one writer while the body runs; may be nested within one thread.

        Args:
            command: what for, told to others who wait.
            wait: how many seconds to wait for another writer; None: as long as for every command.

        Raises:
            LockedError: another process is writing and did not finish in time; says who.
        """
        wait = self._wait if wait is None else wait
        with self._locked(command, wait) as outermost:
            if not outermost:
                yield
                return
            with self.database.writer_lock(wait):
                self.recover()
                yield
                self.ledger.flush()

    @contextlib.contextmanager
    def request_transaction(self, command: str) -> Iterator[Connection]:
        """One short transaction that notes something about requests, and waits for no derivation.

        If nobody writes, this is the writer. Otherwise the entries that it notes stay in the ledger's outbox until
        that writer, or the next one, appends them. Records may only be changed in `changing`.
        """
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(LockedError):
                stack.enter_context(self.writing(command, wait=0))
            with self.database.transaction() as connection:
                yield connection
            self.database.erase()

    def upgrade(self) -> tuple[str, str]:
        """Bring the database to the tables of this version; returns the versions before and after.

        Raises:
            FormatError: they are newer.
            LockedError: another process is writing.
        """
        with self._locked("upgrade", self._wait):
            reached = reach(self._database)
            try:
                with reached.writer_lock(self._wait), storage_errors(self.root):
                    return upgrade(reached)
            finally:
                reached.engine.dispose()

    @contextlib.contextmanager
    def _locked(self, command: str, wait: float) -> Iterator[bool]:
        """Hold the lock file; whether it was not held before."""
        holder = self.root / "lock.holder"
        with storage_errors(self.root):
            try:
                self._lock.acquire(timeout=wait)
            except Timeout as error:
                raise LockedError(
                    "One process at a time changes a workspace.",
                    got=_describe(holder),
                    next_step="wait for it to finish, or give a longer --wait",
                ) from error
        outermost = self._lock.lock_counter == 1
        try:
            if outermost:
                who = {"pid": os.getpid(), "host": socket.gethostname(), "command": command}
                with contextlib.suppress(OSError):  # only a hint for those who wait
                    holder.write_bytes(json.dumps(who).encode())
            yield outermost
        finally:
            if outermost:
                with contextlib.suppress(OSError):
                    holder.unlink()
            self._lock.release()

    @contextlib.contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """One transaction of the writer, after which its keys are erased and the ledger's file has its entries."""
        with self.database.transaction() as connection:
            yield connection
        self.database.erase()
        self.ledger.flush()

    def recover(self) -> None:
        """Do what a crash left undone: erase keys, tell the ledger of noted entries and of a generation."""
        self.database.erase()
        self.ledger.flush()
        if self.database.get_metadata("ledger") is None:
            created = WorkspaceCreated(format=FORMAT, key=self.signing_key.public.key_id)
            with self.write_transaction() as connection:
                self.ledger.note(connection, created, now=self.clock())
                self.database.set_metadata(connection, "secret", _check_value(self.secret))
        model = self.generations.current()
        if model is None or self.database.get_metadata("told_generation") == model.model_digest:
            return
        with self.write_transaction() as connection:
            published = GenerationPublished(
                generation=model.generation, model=model.model_digest, records=model.records
            )
            self.ledger.note(connection, published, now=self.clock())
            self.database.set_metadata(connection, "told_generation", model.model_digest)

    def close(self) -> None:
        """Release the database."""
        if "database" in self.__dict__:
            self.database.close()


def _check_value(secret: bytes) -> str:
    """Tells whether a secret is the right one, without telling it."""
    return keyed_digest(secret, ["workspace"])


def _foreign(folder: Path) -> bool:
    """Whether a folder holds more than what an interrupted 'init' leaves."""
    names = {path.name for path in folder.iterdir() if not path.name.startswith(TEMPORARY)}
    return not names <= _MADE_FIRST


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
