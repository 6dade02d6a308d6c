"""Restore of a backup, without what was deleted since it was made.

Steps:
1. unpack regular files of known names into a temporary folder, verify the backup's signature, and that its key is
   the one that the ledger's first entry names; compare digests; upgrade the rows to the tables of this version;
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

from lmeraser.core.atomic_files import TEMPORARY, make_private_folder, open_private, storage_errors, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, FormatError, InputError, VerificationError
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey
from lmeraser.evidence.entries import WorkspaceCreated, WorkspaceRestored, events_of
from lmeraser.evidence.hash_chain import LedgerHead, check
from lmeraser.storage.database import Database
from lmeraser.storage.engines import open_backend
from lmeraser.storage.migrate import upgrade
from lmeraser.workspace.backup import (
    CONTENTS,
    DERIVED,
    FORMAT,
    KEYS,
    PAYLOAD_TYPE,
    ROWS,
    SIGNATURE,
    TABLES_VERSION,
    copy_rows,
    is_packed,
    tables_of,
)
from lmeraser.workspace.layout import Layout
from lmeraser.workspace.recovery import forget_recorded_generation
from lmeraser.workspace.replay import ReplayReport, replay
from lmeraser.workspace.workspace import Workspace


def restore(
    archive: Path,
    root: Path,
    *,
    newest: bytes | None = None,
    head: LedgerHead | None = None,
    key: PublicKey | None = None,
    unsigned: bool = False,
    wait: float = 10.0,
) -> ReplayReport:
    """Create a workspace from a backup, without what was deleted since; no model is served yet.

    Args:
        archive: the backup.
        root: an empty or missing folder.
        newest: bytes of the newest copy of the ledger; None: nothing was deleted since the backup was made.
        head: the head of the ledger exported last; the newest copy has to contain it.
        key: public key of the workspace, from elsewhere; None: any key that the backup's own ledger names. Whoever
            has read a backup has its signing key, so only ``newest``, ``head`` or this tells a forged one.
        unsigned: accept a backup of version 0.1, which has no signature.
        wait: how many seconds to wait for another writer of the database.

    Raises:
        InputError: the folder or the database is not empty, or the file is not a backup.
        CorruptError: the backup is damaged.
        FormatError: it was made by a newer version.
        VerificationError: the backup is not signed by the workspace's key, or the ledger is not a newer copy of
            this workspace's ledger.
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
            _unpack(archive, staged, key, unsigned=unsigned)
            report = _fill_and_replay(staged, newest, head, wait)
            _move(staged, root)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    return report


def _unpack(archive: Path, folder: Path, key: PublicKey | None, *, unsigned: bool) -> None:
    """Step 1."""
    try:
        make_private_folder(folder)
        _extract(archive, folder, others=unsigned)
        contents: dict[str, Any] = json.loads((folder / CONTENTS).read_bytes())
        found = int(contents["format"])
        signature = (folder / SIGNATURE).read_bytes() if found == FORMAT else None
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
    if found < FORMAT and not unsigned:
        raise VerificationError(
            "Backup is not signed",
            got=f"{archive}: format {found}, as version 0.1 made it",
            next_step="check where it was kept, then give --unsigned; better restore a signed one",
        )
    _compare_digests(archive, folder, digests)
    _verify_keys(archive, folder, key, signature)
    for name in (CONTENTS, SIGNATURE):
        (folder / name).unlink(missing_ok=True)
    rows = open_backend(folder / ROWS)
    try:
        upgrade(rows)
    finally:
        rows.engine.dispose()


def _extract(archive: Path, folder: Path, *, others: bool) -> None:
    """Write the regular files of known names.

    Args:
        archive: the backup.
        folder: where to.
        others: leave out files of other names, which a backup of 0.1 may hold.

    Raises:
        InputError: there is a link, a device, a file with holes, a name twice, or another name.
    """
    with tarfile.open(archive, "r:") as packed:
        for member in packed:
            path = folder / member.name
            known = _is_known(member.name)
            regular = member.type in (tarfile.REGTYPE, tarfile.AREGTYPE) and not member.issparse()
            if not regular or (known and path.exists()) or not (known or others):
                raise InputError(
                    "Backup holds something else than a workspace's files",
                    got=f"{archive}: {member.name!r} (a link, folder or device, there twice, or an unknown name)",
                    next_step="use another copy of the backup; nothing was restored",
                )
            if known:
                make_private_folder(path.parent)
                source = packed.extractfile(member)
                assert source is not None
                with open_private(path, "wb") as target:
                    shutil.copyfileobj(source, target)


def _is_known(name: str) -> bool:
    return name in (CONTENTS, SIGNATURE, ROWS, KEYS) or is_packed(name)


def _verify_keys(archive: Path, folder: Path, key: PublicKey | None, signature: bytes | None) -> None:
    """Verify the signature, and that one key signs the backup, signs certificates and is named by the ledger.

    Raises:
        VerificationError: it does not.
    """
    layout = Layout(folder)
    with storage_errors(archive):
        entries = check(layout.ledger.read_bytes())
        named = {event.key for _, event in events_of(entries[:1], WorkspaceCreated)}
    public = PublicKey.read(layout.public_key)
    known = {public.key_id, SigningKey.read(layout.signing_key).public.key_id, *([key.key_id] if key else [])}
    if known != named:
        raise VerificationError(
            "Backup has another key than its workspace",
            got=f"{archive}: key {public.key_id.short}; its ledger begins with "
            + (", ".join(digest.short for digest in named) or "none"),
            next_step="use another copy of the backup; nothing was restored",
        )
    if signature is not None:
        with storage_errors(archive):
            described = (folder / CONTENTS).read_bytes()
        if public.verify(Envelope.parse(signature), payload_type=PAYLOAD_TYPE) != described:
            raise VerificationError(
                "Backup has the signature of another one",
                got=str(archive),
                next_step="use another copy of the backup; nothing was restored",
            )


def _compare_digests(archive: Path, folder: Path, digests: Mapping[str, str]) -> None:
    found = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
    for name in (CONTENTS, SIGNATURE):
        found.pop(name, None)
    wrong = sorted(found.keys() ^ {name for name in digests if _is_known(name)})
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
    with contextlib.closing(Workspace(staged, wait=wait, restoring=True)) as workspace:
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
    workspace.records.bring_up_to_date()  # rows of an older version
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
