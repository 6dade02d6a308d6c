"""A workspace: the state of one model and its records, opened from a folder.

`Workspace` composes the parts that live in the folder (`layout` has its paths) and in the database, and says who
may change them: one writer at a time, any number of readers. Deletion requests can be noted while another process
writes. A writer first completes what a crash left undone (`recovery`).
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection

from lmeraser.config import schema
from lmeraser.config.schema import Config
from lmeraser.core.atomic_files import restrict, storage_errors
from lmeraser.core.time import utc_now
from lmeraser.data.records import Records
from lmeraser.errors import CorruptError, LockedError
from lmeraser.evidence.dsse import SigningKey
from lmeraser.evidence.ledger import Ledger
from lmeraser.models.backbone_names import locate_backbone
from lmeraser.models.backbone_scaling import adopt_scaling
from lmeraser.pipeline.calibration import Calibration
from lmeraser.storage.artifacts import BlobStore
from lmeraser.storage.database import Database
from lmeraser.storage.engines import open_backend
from lmeraser.storage.migrate import upgrade
from lmeraser.workspace import key_files
from lmeraser.workspace.api_keys import ApiKeys
from lmeraser.workspace.artifact_location import ArtifactLocation
from lmeraser.workspace.creation import check_format, create_folder
from lmeraser.workspace.exports import Exports
from lmeraser.workspace.layout import Layout
from lmeraser.workspace.lock import WriterLock
from lmeraser.workspace.recovery import Recovery
from lmeraser.workspace.registry import Generations
from lmeraser.workspace.requests.changes import RequestChanges
from lmeraser.workspace.requests.personal_data import PersonalData
from lmeraser.workspace.requests.receipts import Receipts
from lmeraser.workspace.requests.repository import Requests
from lmeraser.workspace.requests.subscriptions import Subscriptions

if TYPE_CHECKING:
    from lmeraser.data.name_lookup import NameSurvey
    from lmeraser.models.manifest import Model
    from lmeraser.storage.s3 import Bucket


class Workspace:
    """An existing workspace; created by `create`, opened by the constructor.

    Args:
        root: the folder.
        wait: how many seconds a writer waits for another one to finish.
        compute: settings of ``[compute]`` to use instead of those in lmeraser.toml.
        clock: tells the time.
        restoring: whether the rows of a backup are about to be written, so that there may be no database yet.

    Raises:
        WorkspaceError: the folder is not a workspace.
        FormatError: a newer version wrote it.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        *,
        wait: float = 10.0,
        compute: Mapping[str, Any] | None = None,
        clock: Callable[[], datetime] = utc_now,
        restoring: bool = False,
    ) -> None:
        self._restoring = restoring
        self.layout = Layout(Path(root))
        self.clock = clock
        self._wait = wait
        self._compute = dict(compute or {})
        self._lock = WriterLock(self.layout)
        check_format(self.layout)

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
        """Create a workspace in an empty or missing folder, or in one where creation was interrupted.

        Raises:
            InputError: the folder holds something else, or a class name is empty or repeated.
        """
        layout = Layout(Path(root))
        config = adopt_scaling(locate_backbone(config))  # settings mean the same in any working directory
        create_folder(layout, config, classes=classes, signing_key=signing_key or SigningKey.new())
        workspace = cls(layout.root, wait=wait, clock=clock)
        try:
            with workspace.writing("init"):
                if classes:
                    workspace.records.set_classes(classes)
        except BaseException:
            workspace.close()
            raise
        return workspace

    # --- parts -----------------------------------------------------------------------------------------

    @property
    def root(self) -> Path:
        """The folder."""
        return self.layout.root

    @property
    def certificates(self) -> Path:
        """The folder of certificates."""
        return self.layout.certificates

    @property
    def reports(self) -> Path:
        """The folder of figures; purged with every generation, because they show records."""
        return self.layout.reports

    @cached_property
    def config(self) -> Config:
        """The settings in lmeraser.toml, with those of ``[compute]`` that were given instead."""
        return schema.read(self.layout.settings).computed(self._compute)

    @cached_property
    def secret(self) -> bytes:
        """The key of keyed digests; never leaves the workspace. Raises as `key_files.read_secret`."""
        return key_files.read_secret(self.layout)

    @cached_property
    def signing_key(self) -> SigningKey:
        """The key that signs certificates. Raises as `key_files.read_signing_key`."""
        return key_files.read_signing_key(self.layout)

    @cached_property
    def database(self) -> Database:
        """The SQL database with everything that is not a file.

        Raises:
            CorruptError: its file is gone; a new one would say that nothing is held.
        """
        with storage_errors(self.root):
            if not self._restoring:
                self._refuse_lost_database()
            return Database(self._database, keys=self.layout.database_keys)

    def _refuse_lost_database(self) -> None:
        """Every entry of the ledger came from the database, which therefore was there."""
        file = self._database
        if isinstance(file, Path) and not _has_bytes(file) and _has_bytes(self.layout.ledger):
            raise CorruptError(
                "The database of the workspace is missing or empty",
                got=f"{file}, though {self.layout.ledger.name} has entries",
                next_step="restore the workspace from a backup; nothing was changed",
            )

    @property
    def _database(self) -> Path | str:
        return self.config.storage.database or self.layout.database

    @cached_property
    def records(self) -> Records:
        """The private records.

        Raises:
            CorruptError: the secret is not the one that they were written with.
        """
        known = self.database.get_metadata("secret")
        if known is not None and known != key_files.check_value(self.secret):
            raise CorruptError(
                "secret.key does not belong to this workspace",
                got="another key, with which deleted records would not be recognised",
                next_step="restore secret.key from a backup",
            )
        return Records(self.database, secret=self.secret)

    @cached_property
    def ledger(self) -> Ledger:
        """The record of what was done, entry by entry."""
        return Ledger(self.layout.ledger, self.database)

    @cached_property
    def requests(self) -> Requests:
        """Deletion requests."""
        return Requests(self.database, self.records, self.ledger, self.config.requests)

    @cached_property
    def request_changes(self) -> RequestChanges:
        """What accepts, cancels, carries out and completes deletion requests."""
        config = self.config.requests
        return RequestChanges(
            self.requests, self.database, self.records, self.ledger, secret=self.secret, config=config
        )

    @cached_property
    def receipts(self) -> Receipts:
        """Receipts of other systems that are attached to requests."""
        return Receipts(self.database)

    @cached_property
    def subscriptions(self) -> Subscriptions:
        """The URLs that are notified when a request's state changes."""
        return Subscriptions(self.database)

    @cached_property
    def exports(self) -> Exports:
        """The copies of the model outside of the workspace."""
        return Exports(self.database, self.ledger)

    @cached_property
    def api_keys(self) -> ApiKeys:
        """The keys of the HTTP service."""
        return ApiKeys(self.database, secret=self.secret)

    @cached_property
    def generations(self) -> Generations:
        """The manifests of generations, and which of them is served."""
        return Generations(self.layout.generations)

    @cached_property
    def _artifacts(self) -> ArtifactLocation:
        return ArtifactLocation(self.layout, self.database, self.config.storage.artifacts, secret=self.secret)

    @property
    def store(self) -> BlobStore:
        """The store of artifacts and memo entries. Raises as `ArtifactLocation.open`."""
        return self._artifacts.open()

    @property
    def bucket(self) -> Bucket | None:
        """The object store of artifacts, if they are not in the workspace's folder."""
        return self._artifacts.bucket

    def fix_artifact_location(self) -> None:
        """Remember where artifacts are stored, from now on. Raises as `ArtifactLocation.open`."""
        self._artifacts.fix()

    @property
    def calibration(self) -> Calibration:
        """The tuning speed of this machine."""
        return Calibration(self.layout.calibration)

    # --- writing ---------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def writing(self, command: str, *, wait: float | None = None) -> Iterator[None]:
        """Be the one writer while the body runs; may be nested within one thread.

        Args:
            command: what for, shown to others who wait.
            wait: how many seconds to wait for another writer; None: what the constructor was given.

        Raises:
            LockedError: another process is writing and did not finish in time; says which.
        """
        wait = self._wait if wait is None else wait
        with self._lock.held(command, wait=wait) as outermost:
            if not outermost:
                yield
                return
            with self.database.writer_lock(wait):
                self.recover()
                yield
                self.ledger.flush()

    @contextlib.contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """One transaction of the writer, after which its keys are erased and the ledger's file has its entries."""
        with self._recovery.transaction() as connection:
            yield connection

    @contextlib.contextmanager
    def request_transaction(self, command: str) -> Iterator[Connection]:
        """One short transaction that changes only requests, and waits for no derivation.

        Records may only be changed in `write_transaction`.
        """
        with self.database.transaction() as connection:
            yield connection
        self.settle_requests(command)

    def settle_requests(self, command: str) -> None:
        """Do what a committed change of requests leaves to do: erase keys, append the ledger's outbox to its file.

        If another process is writing, the entries stay in the outbox until it, or the next one, appends them.
        """
        self.database.erase()
        with contextlib.suppress(LockedError), self._lock.held(command, wait=0), self.database.writer_lock(0):
            self.ledger.flush()

    def upgrade(self) -> tuple[str, str]:
        """Bring the database to the tables of this version; returns the versions before and after.

        Raises:
            FormatError: they are newer.
            LockedError: another process is writing.
        """
        with self._lock.held("upgrade", wait=self._wait):
            backend = open_backend(self._database)
            try:
                with backend.writer_lock(self._wait), storage_errors(self.root):
                    restrict(self.root)  # what 0.1 left to the umask
                    versions = upgrade(backend)
                    self.records.bring_up_to_date()
                    return versions
            finally:
                backend.engine.dispose()

    def survey_names(self) -> NameSurvey:
        """The names of before 0.2 that `merge_names` would find in all of their spellings; changes nothing."""
        return self.records.names.survey()

    def merge_names(self) -> None:
        """Find every subject by its canonical form, in whichever spelling its records have it."""
        if self.records.names.merged:
            return
        with self.writing("upgrade"), self.write_transaction() as connection:
            self.records.names.merge_subjects(connection)

    @property
    def _recovery(self) -> Recovery:
        return Recovery(self.database, self.ledger, clock=self.clock)

    def recover(self) -> None:
        """Complete what a crash left undone; see `recovery`."""
        recovery = self._recovery
        with recovery.completing() as connection:
            if not recovery.creation_recorded(connection):
                recovery.record_creation(connection, self.signing_key.public, secret=self.secret)
            model = self.generations.current()
            if model is not None:
                recovery.record_generation(connection, model)
        if self.config.requests.reference_days:  # 0: nothing is kept that a purge does not erase
            self.forget_expired_references()

    def record_generation(self, connection: Connection, model: Model) -> None:
        """Record the generation that is served from now on in the ledger, in the caller's transaction."""
        self._recovery.record_generation(connection, model)

    def forget_expired_references(self) -> None:
        """Erase references of closed requests that were kept for as long as the settings say."""
        if PersonalData(self.database, self.config.requests).forget_expired_references(now=self.clock()):
            self.database.erase()

    def close(self) -> None:
        """Release the database."""
        if "database" in self.__dict__:
            self.database.close()


def _has_bytes(file: Path) -> bool:
    return file.is_file() and file.stat().st_size > 0
