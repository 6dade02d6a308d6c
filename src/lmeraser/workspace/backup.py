"""Backup: one file with everything in a workspace that cannot be derived.

A backup is a tar archive: the files of the workspace, the rows of its database as a SQLite file (``rows.db``,
wherever the database is), ``backup.json`` with the digests of all of them and the head of the ledger, and its
signature by the workspace's key in ``backup.sig`` (an envelope as in `evidence.dsse`). Rows and keys are of one
moment. The served model is left out: it was derived from records that may have been deleted by the time the
backup is needed. A backup holds private records and all keys, so it is as secret as the workspace. `restore`
reads it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from sqlalchemy import Connection, MetaData, Table, func, insert, select

from lmeraser._version import __version__
from lmeraser.core.atomic_files import TEMPORARY, flush_folder, open_private, storage_errors
from lmeraser.core.digests import Digest
from lmeraser.errors import InputError
from lmeraser.evidence.hash_chain import LedgerHead
from lmeraser.storage.database import Database, chunked, workspace_metadata
from lmeraser.workspace.layout import Layout
from lmeraser.workspace.workspace import Workspace

FORMAT = 2  # format 1, of version 0.1, has no signature
PAYLOAD_TYPE = "application/vnd.lmeraser.backup+json"
CONTENTS = "backup.json"
SIGNATURE = "backup.sig"
ROWS = "rows.db"
KEYS = "records.keys"
TABLES_VERSION = "alembic_version"  # a table that every database has already
DERIVED = {"generations", "reports", "lock", "lock.holder"}  # names in the workspace that are not packed
_FILES = {
    "lmeraser.toml",
    "workspace.json",
    "secret.key",
    "signing.key",
    "signing.pub",
    "ledger",
    "calibration.json",
}
_IN_FOLDERS = re.compile(
    r"records\.files/[0-9a-f]{32}|certificates/[0-9a-f-]{36}\.(json|txt)|artifacts/[0-9a-f]{2}/[0-9a-f]{64}\.safetensors"
    r"|memo/[0-9a-f]{2}/[0-9a-f]{64}\.json"
)


@dataclass(frozen=True)
class BackupReport:
    """A backup that was made.

    Attributes:
        path: the file.
        bytes: its size.
        records: how many it holds.
        head: of the ledger in it.
    """

    path: str
    bytes: int
    records: int
    head: LedgerHead

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def backup(workspace: Workspace, target: Path) -> BackupReport:
    """Write everything in a workspace that cannot be derived to one file.

    Raises:
        InputError: the file exists, or would be in the workspace.
        StorageError: the disk refused; the file does not exist then.
    """
    if target.exists():
        raise InputError("File already exists", got=str(target), next_step="choose another name for the backup")
    if target.absolute().is_relative_to(workspace.root.absolute()):
        raise InputError(
            "Backup would be inside the workspace",
            got=str(target),
            next_step="choose a folder outside the workspace",
        )
    with workspace.writing("backup"), storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as name:
            folder = Path(name)
            head = _copy_database(workspace, folder)
            packed = folder / "packed"
            _pack(workspace, folder, packed, head)
            packed.replace(target)
        flush_folder(target.parent)
    return BackupReport(str(target), target.stat().st_size, workspace.records.count(), head)


def _copy_database(workspace: Workspace, folder: Path) -> LedgerHead:
    """Copy rows and keys, both of one moment; returns the head of the ledger at that moment."""
    database = workspace.database
    with contextlib.closing(Database(folder / ROWS)) as rows, database.reading() as source:
        with database.transaction():  # no request can be noted while the moment is fixed
            source.execute(select(workspace_metadata)).all()
            keys = workspace.layout.database_keys
            _copy_private(keys, folder / keys.name)
            head = workspace.ledger.head
        with rows.transaction() as target:
            copy_rows(source, target)
    return head


def _copy_private(source: Path, target: Path) -> None:
    if source.exists():
        with source.open("rb") as keys, open_private(target, "wb") as copy:
            shutil.copyfileobj(keys, copy)


def copy_rows(source: Connection, target: Connection) -> None:
    """Copy all rows into a database that has the same tables, and nothing in them."""
    for table in tables_of(source).sorted_tables:
        if table.name != TABLES_VERSION:
            rows = source.execute(select(table).execution_options(yield_per=100)).mappings()
            for chunk in chunked(dict(row) for row in rows):
                target.execute(insert(table), list(chunk))
            if target.dialect.name == "postgresql":
                _continue_sequences(table, target)


def _continue_sequences(table: Table, target: Connection) -> None:
    """Let a server's sequences continue after the numbers that were copied."""
    for column in table.primary_key:
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        if target.execute(select(sequence)).scalar_one() is not None:
            highest = select(func.max(column)).scalar_subquery()
            target.execute(select(func.setval(sequence, func.coalesce(highest, 0) + 1, False)))


def tables_of(connection: Connection) -> MetaData:
    """The tables of a database."""
    found = MetaData()
    found.reflect(connection)
    return found


def is_packed(name: str) -> bool:
    """Whether a backup has files of this name, relative to the workspace, besides rows and keys."""
    return name in _FILES or _IN_FOLDERS.fullmatch(name) is not None


def _pack(workspace: Workspace, copied: Path, target: Path, head: LedgerHead) -> None:
    layout = workspace.layout
    files = {str(path.relative_to(layout.root)): path for path in _files(layout)}
    files |= {name: copied / name for name in (ROWS, layout.database_keys.name) if (copied / name).exists()}
    contents = {
        "format": FORMAT,
        "software": f"lmeraser {__version__}",
        "ledger": head.to_json(),
        "files": {name: Digest.of_file(path) for name, path in sorted(files.items())},
    }
    described = json.dumps(contents, indent=1).encode()
    signature = workspace.signing_key.sign(described, payload_type=PAYLOAD_TYPE)
    for name, data in ((CONTENTS, described), (SIGNATURE, signature.to_bytes())):
        (copied / name).write_bytes(data)
    with open_private(target, "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, path in [*((name, copied / name) for name in (CONTENTS, SIGNATURE)), *sorted(files.items())]:
                archive.add(path, name)
        file.flush()
        os.fsync(file.fileno())


def _files(layout: Layout) -> Iterator[Path]:
    """The files to pack as they are: no database, no keys of it, no model, nothing that is not the workspace's."""
    for path in layout.root.rglob("*"):
        if is_packed(path.relative_to(layout.root).as_posix()) and path.is_file():
            yield path
