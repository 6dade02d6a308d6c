"""Restore of a backup, without what was deleted since it was made.

Steps:
1. unpack into a temporary folder and compare digests; upgrade the rows to the tables of this version;
2. copy the rows into the database that the settings name; revoke all API keys, because some of them may have been
   revoked since;
3. replay what was deleted since (`replay`);
4. move everything into place, ``workspace.json`` last; the caller derives the model.
Until step 4 the folder is not a workspace, so nothing can be served before the deletions were replayed.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import delete

from lmeraser.core.atomic_files import TEMPORARY, storage_errors, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, FormatError, InputError
from lmeraser.evidence.entries import WorkspaceRestored
from lmeraser.evidence.hash_chain import LedgerHead
from lmeraser.storage.database import Database
from lmeraser.storage.engines import open_backend
from lmeraser.storage.migrate import upgrade
from lmeraser.workspace.backup import (
    CONTENTS,
    DERIVED,
    FORMAT,
    ROWS,
    TABLES_VERSION,
    copy_rows,
    tables_of,
)
from lmeraser.workspace.layout import Layout
from lmeraser.workspace.recovery import forget_recorded_generation
from lmeraser.workspace.replay import ReplayReport, replay
from lmeraser.workspace.workspace import Workspace


def restore(
    archive: Path, root: Path, *, newest: bytes | None = None, head: LedgerHead | None = None, wait: float = 10.0
) -> ReplayReport:
    """Create a workspace from a backup, without what was deleted since; no model is served yet.

    Args:
        archive: the backup.
        root: an empty or missing folder.
        newest: bytes of the newest copy of the ledger; None: nothing was deleted since the backup was made.
        head: the head of the ledger exported last; the newest copy has to contain it.
        wait: how many seconds to wait for another writer of the database.

    Raises:
        InputError: the folder or the database is not empty, or the file is not a backup.
        CorruptError: the backup is damaged.
        FormatError: it was made by a newer version.
        VerificationError: the ledger is not a newer copy of this workspace's ledger.
    """
    staged = root / f"{TEMPORARY}restore"
    if root.exists() and (not root.is_dir() or {path.name for path in root.iterdir()} - {staged.name}):
        raise InputError(
            "Folder is not empty",
            got=str(root),
            next_step="choose an empty or missing folder with -w, or move its contents away",
        )
    with storage_errors(root):
        shutil.rmtree(staged, ignore_errors=True)  # left by an interrupted restore
        try:
            _unpack(archive, staged)
            report = _fill_and_replay(staged, newest, head, wait)
            _move(staged, root)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return report


def _unpack(archive: Path, folder: Path) -> None:
    """Step 1."""
    try:
        folder.mkdir(parents=True, mode=0o700)
        with tarfile.open(archive, "r:") as packed:
            packed.extractall(folder, filter="data")
        contents: dict[str, Any] = json.loads((folder / CONTENTS).read_bytes())
        found = int(contents["format"])
        digests = {str(name): str(digest) for name, digest in contents["files"].items()}
    except (OSError, tarfile.TarError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(
            "Not a complete backup",
            got=f"{archive}: {error}",
            next_step="check the path, or use another copy of the backup",
        ) from error
    if found > FORMAT:
        raise FormatError(
            "Backup was made by a newer version of lmeraser",
            got=f"format {found} (this version restores {FORMAT})",
            next_step="upgrade lmeraser",
        )
    (folder / CONTENTS).unlink()
    _compare_digests(archive, folder, digests)
    rows = open_backend(folder / ROWS)
    try:
        upgrade(rows)
    finally:
        rows.engine.dispose()


def _compare_digests(archive: Path, folder: Path, digests: Mapping[str, str]) -> None:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    wrong = sorted(found.keys() ^ digests.keys())
    wrong += [
        name for name in sorted(found.keys() & digests.keys()) if Digest.of_file(found[name]) != digests[name]
    ]
    if wrong:
        raise CorruptError(
            "Backup is damaged",
            got=f"{archive}: {wrong[0]} is missing, unexpected or changed",
            next_step="use another copy of the backup; nothing was restored",
        )


def _fill_and_replay(staged: Path, newest: bytes | None, head: LedgerHead | None, wait: float) -> ReplayReport:
    """Steps 2 and 3."""
    with contextlib.closing(Workspace(staged, wait=wait)) as workspace:
        _fill(workspace, staged / ROWS)
        try:
            report = replay(workspace, newest, head=head) if newest is not None else ReplayReport()
            if not report.entries:
                with workspace.writing("restore"), workspace.write_transaction() as connection:
                    restored = WorkspaceRestored(entries=workspace.ledger.next_position(connection))
                    workspace.ledger.note(connection, restored, now=workspace.clock())
                    forget_recorded_generation(workspace.database, connection)
        except BaseException:
            _empty(workspace.database)
            raise
    (staged / ROWS).unlink()
    return report


def _fill(workspace: Workspace, path: Path) -> None:
    with contextlib.ExitStack() as stack:
        rows = stack.enter_context(contextlib.closing(Database(path)))
        source = stack.enter_context(rows.reading())
        target = stack.enter_context(workspace.database.transaction())
        if workspace.database.get_metadata("ledger", target) is not None:
            raise InputError(
                "Database is not empty",
                got="the database that storage.database names holds a workspace",
                next_step="create it anew, empty, and run the same command again",
            )
        copy_rows(source, target)
    for key in workspace.api_keys.all():
        workspace.api_keys.revoke(key.id, now=workspace.clock())


def _empty(database: Database) -> None:
    """Delete all rows, because the database may outlive the folder."""
    with contextlib.suppress(Exception), database.transaction() as connection:
        for table in reversed(tables_of(connection).sorted_tables):
            if table.name != TABLES_VERSION:
                connection.execute(delete(table))


def _move(staged: Path, root: Path) -> None:
    """Step 4."""
    staged_marker = Layout(staged).marker
    marker = staged_marker.read_bytes()
    staged_marker.unlink()
    for path in sorted(staged.iterdir()):
        if path.name not in DERIVED:
            path.rename(root / path.name)
    write_atomic(Layout(root).marker, marker)
