"""Removing bytes that nothing needs any more: mark what the served generation uses, sweep the rest.

Removed are artifacts, memo entries, manifests and stored clusters of other generations, the places that changes up
to the served one touched, pictures, temporary files, and, after a deletion, every free page and log of the
database. What is not covered: copies that were made outside the workspace (backups, exports), the file system's
and the disk's own remnants of overwritten files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmeraser.files import TEMPORARY, storage_errors
from lmeraser.workspace import Workspace


def purge(workspace: Workspace, *, dry_run: bool = False) -> list[Path]:
    """Remove whatever the served generation does not use.

    Args:
        workspace: held by the caller for writing.
        dry_run: remove nothing.

    Returns:
        The files that went, or that would go.
    """
    model = workspace.generations.current()
    if model is None:  # an interrupted first training: its finished parts are still needed
        if workspace.database.compaction_due and not dry_run:
            workspace.database.compact()
        return []
    with storage_errors(workspace.root):
        doomed = [*workspace.generations.outdated(), *_temporary(workspace.root), *_reports(workspace)]
        artifacts = {result.artifact for result in model.stages.values()}
        keys = {result.key for result in model.stages.values()}
        doomed += workspace.store.sweep(artifacts=artifacts, keys=keys, dry_run=dry_run)
        if dry_run:
            return sorted(set(doomed))
        for path in doomed:
            path.unlink(missing_ok=True)
    workspace.records.forget_places(keep=model.partition.key)
    workspace.records.changes.forget(until=model.revision)
    if not workspace.config.needs_codes:
        workspace.records.counted.clear()
    if workspace.database.compaction_due:
        workspace.database.compact()
    return sorted(set(doomed))


def _temporary(root: Path) -> Iterator[Path]:
    for folder in (root, root / "certificates"):
        yield from (path for path in folder.glob(f"{TEMPORARY}*") if path.is_file())


def _reports(workspace: Workspace) -> Iterator[Path]:
    """Pictures of older models; they may show records that are gone."""
    yield from (path for path in workspace.reports.rglob("*") if path.is_file())
