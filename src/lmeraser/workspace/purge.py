"""Removing bytes that nothing needs any more: mark what the served generation uses, sweep the rest.

Removed are artifacts, memo entries, manifests and stored clusters of other generations, the places that changes up
to the served one touched, pictures, temporary files, and, after a deletion, the keys of what was deleted. The
database is rewritten without free pages, and its log emptied, where that is quick or asked for. What is not
covered: copies that were made outside the workspace (backups, exports), the file system's and the disk's own
remnants of overwritten files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmeraser.core.atomic_files import TEMPORARY, storage_errors
from lmeraser.storage.database import Database
from lmeraser.workspace.workspace import Workspace


def purge(workspace: Workspace, *, dry_run: bool = False, compact: bool = False) -> list[str]:
    """Remove whatever the served generation does not use.

    Args:
        workspace: held by the caller for writing.
        dry_run: remove nothing.
        compact: rewrite the database after deletions even if it is large; otherwise that stays due.

    Returns:
        The files and objects that went, or that would go.
    """
    model = workspace.generations.current()
    if model is None:  # an interrupted first training: its finished parts are still needed
        if not dry_run:
            forget(workspace.database, compact=compact)
        return []
    with storage_errors(workspace.root):
        files = [*workspace.generations.outdated(), *_temporary(workspace.root), *_reports(workspace)]
        artifacts = {result.artifact for result in model.stages.values()}
        keys = {result.key for result in model.stages.values()}
        swept = workspace.store.sweep(artifacts=artifacts, keys=keys, dry_run=dry_run)
        doomed = sorted({*map(str, files), *swept})
        if dry_run:
            return doomed
        for path in files:
            path.unlink(missing_ok=True)
    workspace.records.derived.keep_partition(model.partition.key)
    workspace.records.changes.discard(until=model.revision)
    if not workspace.config.needs_statistics:
        workspace.records.statistics.clear()
    forget(workspace.database, compact=compact)
    return doomed


def forget(database: Database, *, compact: bool = False) -> None:
    """Erase the keys of what was deleted; rewrite the database if that is due, and quick or asked for."""
    database.erase()
    if database.compaction_due and (compact or database.quick_to_compact):
        database.compact()


def _temporary(root: Path) -> Iterator[Path]:
    for folder in (root, root / "certificates"):
        yield from (path for path in folder.glob(f"{TEMPORARY}*") if path.is_file())


def _reports(workspace: Workspace) -> Iterator[Path]:
    """Pictures of older models; they may show records that are gone."""
    yield from (path for path in workspace.reports.rglob("*") if path.is_file())
