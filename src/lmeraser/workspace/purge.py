"""Purge of bytes that nothing needs any more: mark what the served generation uses, sweep the rest.

What is covered:
- artifacts, memo entries, manifests and stored clusters of other generations;
- trie keys in the change log up to the served generation;
- figures and temporary files;
- after a deletion, the keys of what was deleted;
- free pages and the log of the database, which is rewritten where that is quick or asked for.

Links within these folders are refused, because what they lead to would stay.

What is not covered: copies outside the workspace (backups, exports), and what the file system or the disk keeps of
overwritten files.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from lmeraser.core.atomic_files import TEMPORARY, refuse_links, storage_errors
from lmeraser.storage.database import Database
from lmeraser.workspace.layout import Layout
from lmeraser.workspace.workspace import Workspace


def purge(workspace: Workspace, *, dry_run: bool = False, compact: bool = False) -> list[str]:
    """Remove whatever the served generation does not use.

    Args:
        workspace: held by the caller for writing.
        dry_run: remove nothing.
        compact: compact the database after deletions even if it is large; otherwise that stays due.

    Returns:
        The files and objects that were removed, or that would be.
    """
    model = workspace.generations.current()
    if model is None:  # an interrupted first training: its finished parts are still needed
        if not dry_run:
            erase_deleted(workspace.database, compact=compact)
        return []
    layout = workspace.layout
    with storage_errors(workspace.root):
        for folder in (layout.generations, layout.reports, layout.certificates, layout.artifacts, layout.memo):
            refuse_links(folder)
        files = [*workspace.generations.outdated(), *_temporary(workspace.layout), *_figures(workspace)]
        artifacts = {result.artifact for result in model.stages.values()}
        keys = {result.key for result in model.stages.values()}
        swept = workspace.store.sweep(artifacts=artifacts, keys=keys, dry_run=dry_run)
        unused = sorted({*map(str, files), *swept})
        if dry_run:
            return unused
        for path in files:
            path.unlink(missing_ok=True)
    workspace.records.derived.keep_partition(model.partition.key)
    workspace.records.changes.discard(until=model.revision)
    if not workspace.config.needs_statistics:
        workspace.records.statistics.clear()
    workspace.forget_expired_references()
    erase_deleted(workspace.database, compact=compact)
    return unused


def erase_deleted(database: Database, *, compact: bool = False) -> None:
    """Erase the keys of what was deleted; compact the database if that is due, and quick or asked for."""
    database.erase()
    if database.compaction_due and (compact or database.quick_to_compact):
        database.compact()


def _temporary(layout: Layout) -> Iterator[Path]:
    for folder in (layout.root, layout.certificates):
        yield from (path for path in folder.glob(f"{TEMPORARY}*") if path.is_file())


def _figures(workspace: Workspace) -> Iterator[Path]:
    """Figures of older models; they may show records that were deleted."""
    yield from (path for path in workspace.reports.rglob("*") if path.is_file())
