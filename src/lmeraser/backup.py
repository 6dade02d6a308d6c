"""Backups: one file with everything of a workspace that cannot be derived, and the way back.

A backup is a tar archive: the files of the workspace, the rows of its database as a SQLite file (``rows.db``,
wherever the database is), and ``backup.json``, which has the digests of all of them and says where the ledger
ended. It lacks the served model: that one was derived from records which may have been deleted by the time at
which the backup is needed. It holds private records and all keys, so it is as secret as the workspace.

Steps of restoring:
1. unpack beside nothing else, and compare digests; bring the rows to the tables of this version;
2. copy the rows into the database that the settings name; end all keys of the HTTP service, of which some may have
   been revoked since;
3. carry out again what was deleted since (`reapply`);
4. move everything to its place, ``workspace.json`` last; the caller derives the model.
Until step 4 the folder is not a workspace, so nothing can be served before deletions were carried out again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, Table, delete, func, insert, select

from lmeraser._version import __version__
from lmeraser.chain import Head
from lmeraser.database import Database, chunked
from lmeraser.engines import reach
from lmeraser.errors import CorruptError, FormatError, InputError
from lmeraser.files import TEMPORARY, flush_folder, storage_errors, write_atomic
from lmeraser.hashing import Digest
from lmeraser.reapply import ReapplyReport, reapply, tell
from lmeraser.schema import upgrade
from lmeraser.workspace import Workspace

FORMAT = 1
_CONTENTS, _ROWS, _KEYS = "backup.json", "rows.db", "records.keys"
_DERIVED = {"generations", "reports", "lock", "lock.holder"}
_VERSIONS = "alembic_version"
_PRIVATE = 0o600


@dataclass(frozen=True)
class BackupReport:
    """What a backup holds.

    Attributes:
        path: the file.
        bytes: its size.
        records: how many it holds.
        head: where the ledger ended.
    """

    path: str
    bytes: int
    records: int
    head: Head

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def backup(workspace: Workspace, target: Path) -> BackupReport:
    """Write everything of a workspace that cannot be derived to one file.

    Raises:
        InputError: there is a file of this name, or it would lie in the workspace.
        StorageError: the disk refused; there is no such file then.
    """
    if target.exists() or target.absolute().is_relative_to(workspace.root.absolute()):
        raise InputError(
            "A backup is a new file outside the workspace.", got=str(target), next_step="choose another name"
        )
    with workspace.writing("backup"), storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=target.parent) as name:
            folder = Path(name)
            head = _copied(workspace, folder)
            packed = folder / "packed"
            _pack(workspace.root, folder, packed, head)
            packed.replace(target)
        flush_folder(target.parent)
    return BackupReport(str(target), target.stat().st_size, workspace.records.count(), head)


def restore(
    archive: Path, root: Path, *, newest: bytes | None = None, head: Head | None = None, wait: float = 10.0
) -> ReapplyReport:
    """Make a workspace from a backup, without what was deleted since; no model is served yet.

    Args:
        archive: the backup.
        root: an empty or missing folder.
        newest: bytes of the newest copy of the ledger; None: nothing was deleted since the backup.
        head: where the ledger ended when this was exported.
        wait: how many seconds to wait for another writer of the database.

    Raises:
        InputError: the folder or the database is not empty, or the file is no backup.
        CorruptError: the backup is damaged.
        FormatError: it was made by a newer version.
        VerificationError: the ledger is not a newer one of this workspace.
    """
    staged = root / f"{TEMPORARY}restore"
    if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - {staged.name}):
        raise InputError(
            "A backup is restored into an empty or missing folder.",
            got=str(root),
            next_step="choose another folder with -w, or move away what is there",
        )
    with storage_errors(root):
        shutil.rmtree(staged, ignore_errors=True)  # of a restoration that was interrupted
        try:
            _unpack(archive, staged)
            report = _filled(staged, newest, head, wait)
            _move(staged, root)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return report


# --- making -------------------------------------------------------------------------------------------------


def _copied(workspace: Workspace, folder: Path) -> Head:
    """Copy rows and keys, both of one moment; where the ledger ends at it."""
    with contextlib.closing(Database(folder / _ROWS)) as rows, workspace.database.transaction() as connection:
        _copy(folder / _KEYS, workspace.root / _KEYS)
        with rows.transaction() as target:
            _copy_rows(connection, target)
        return workspace.ledger.head


def _copy(target: Path, source: Path) -> None:
    if source.exists():
        shutil.copyfile(source, target)
        target.chmod(_PRIVATE)


def _copy_rows(source: Connection, target: Connection) -> None:
    """Copy all rows; the tables are there."""
    for table in _tables(source).sorted_tables:
        if table.name != _VERSIONS:
            rows = source.execute(select(table).execution_options(yield_per=100)).mappings()
            for chunk in chunked(dict(row) for row in rows):
                target.execute(insert(table), list(chunk))
            if target.dialect.name == "postgresql":
                _count_on(table, target)


def _count_on(table: Table, target: Connection) -> None:
    """Let a server's own numbers go on behind those that were copied."""
    for column in table.primary_key:
        sequence = func.pg_get_serial_sequence(table.name, column.name)
        if target.execute(select(sequence)).scalar_one() is not None:
            highest = select(func.max(column)).scalar_subquery()
            target.execute(select(func.setval(sequence, func.coalesce(highest, 0) + 1, False)))


def _tables(connection: Connection) -> MetaData:
    found = MetaData()
    found.reflect(connection)
    return found


def _pack(root: Path, copied: Path, target: Path, head: Head) -> None:
    files = {str(path.relative_to(root)): path for path in _files(root)}
    files |= {name: copied / name for name in (_ROWS, _KEYS) if (copied / name).exists()}
    contents = {
        "format": FORMAT,
        "software": f"lmeraser {__version__}",
        "ledger": head.to_json(),
        "files": {name: _digest(path) for name, path in sorted(files.items())},
    }
    (copied / _CONTENTS).write_text(json.dumps(contents, indent=1))
    with os.fdopen(os.open(target, os.O_WRONLY | os.O_CREAT, _PRIVATE), "wb") as file:
        with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
            for name, path in [(_CONTENTS, copied / _CONTENTS), *sorted(files.items())]:
                archive.add(path, name)
        file.flush()
        os.fsync(file.fileno())


def _files(root: Path) -> Iterator[Path]:
    """What is packed as it lies there: no database, no keys, no model, nothing half-written."""
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        derived = parts[0] in _DERIVED or parts[0] == _KEYS or parts[0].startswith("records.db")
        if path.is_file() and not derived and not any(part.startswith(TEMPORARY) for part in parts):
            yield path


def _digest(path: Path) -> Digest:
    with path.open("rb") as file:
        return Digest(f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}")


# --- restoring ----------------------------------------------------------------------------------------------


def _unpack(archive: Path, folder: Path) -> None:
    """Step 1."""
    try:
        folder.mkdir(parents=True, mode=0o700)
        with tarfile.open(archive, "r:") as packed:
            packed.extractall(folder, filter="data")
        contents: dict[str, Any] = json.loads((folder / _CONTENTS).read_bytes())
        made, digests = int(contents["format"]), {str(n): str(d) for n, d in contents["files"].items()}
    except (OSError, tarfile.TarError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            "A backup is a file that 'lmeraser backup' wrote, all of it.",
            got=f"{archive}: {error}",
            next_step="check the path, or take another copy",
        ) from error
    if made > FORMAT:
        raise FormatError(
            f"This version of lmeraser restores backups of format {FORMAT}.",
            got=f"format {made}",
            next_step="use the version that made it, or a newer one",
        )
    (folder / _CONTENTS).unlink()
    _compare(archive, folder, digests)
    rows = reach(folder / _ROWS)
    try:
        upgrade(rows)
    finally:
        rows.engine.dispose()


def _compare(archive: Path, folder: Path, digests: Mapping[str, str]) -> None:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    wrong = sorted(found.keys() ^ digests.keys())
    wrong += [name for name in sorted(found.keys() & digests.keys()) if _digest(found[name]) != digests[name]]
    if wrong:
        raise CorruptError(
            "Every file of a backup has the digest that it had.",
            got=f"{archive}: {wrong[0]}",
            next_step="take another copy; nothing was restored",
        )


def _filled(staged: Path, newest: bytes | None, head: Head | None, wait: float) -> ReapplyReport:
    """Steps 2 and 3."""
    with contextlib.closing(Workspace(staged, wait=wait)) as workspace:
        _fill(workspace, staged / _ROWS)
        try:
            report = reapply(workspace, newest, head=head) if newest is not None else ReapplyReport()
            if not report.entries:
                with workspace.writing("restore"), workspace.changing() as connection:
                    told = tell(workspace.ledger.next_position(connection))
                    workspace.ledger.note(connection, "restored", told, now=workspace.clock())
                    workspace.database.set_fact(connection, "told_generation", "")
        except BaseException:
            _empty(workspace.database)
            raise
    (staged / _ROWS).unlink()
    return report


def _fill(workspace: Workspace, path: Path) -> None:
    now, keys = workspace.clock(), workspace.api_keys
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(contextlib.closing(Database(path)))
        source = stack.enter_context(rows.reading())
        target = stack.enter_context(workspace.database.transaction())
        if workspace.database.fact("ledger", target) is not None:
            raise InputError(
                "A backup is restored into an empty database.",
                got="one that holds a workspace; storage.database names it",
                next_step="make that database anew, empty, and run the same command again",
            )
        _copy_rows(source, target)
    for key in keys.all():
        keys.revoke(key.id, now=now)


def _empty(database: Database) -> None:
    """Leave nothing in a database that outlives the folder."""
    with contextlib.suppress(Exception), database.transaction() as connection:
        for table in reversed(_tables(connection).sorted_tables):
            if table.name != _VERSIONS:
                connection.execute(delete(table))


def _move(staged: Path, root: Path) -> None:
    """Step 4."""
    last = staged / "workspace.json"
    marker = last.read_bytes()
    last.unlink()
    for path in sorted(staged.iterdir()):
        if path.name not in _DERIVED:
            path.rename(root / path.name)
    write_atomic(root / "workspace.json", marker)
