"""Purge of bytes that nothing needs any more: mark what the served generation uses, sweep the rest.

A sweep lists every artifact. After a deletion that is not needed where nothing is stored but the parts of the
generation before and those of the new one: then only what the one has and the other has not is looked for
(`purge_replaced`). The database knows the generation whose parts alone are stored (`take_tidy`); it knows none
while a model is derived, so that what an interrupted derivation left is swept by the next one.

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

import os
from pathlib import Path

from sqlalchemy import Connection

from lmeraser.core.atomic_files import TEMPORARY, files_without_links, refuse_links, storage_errors
from lmeraser.core.digests import Digest
from lmeraser.models.manifest import Model, OwnParts
from lmeraser.storage.database import Database
from lmeraser.workspace.workspace import Workspace

_TIDY = "tidy"  # name in the database of the public digest of the generation whose parts alone are stored


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
        for folder in (layout.artifacts, layout.memo):
            refuse_links(folder)
        files = _outdated(workspace)
        artifacts = {result.artifact for result in model.stages.values()}
        keys = {result.key for result in model.stages.values()}
        swept = workspace.store.sweep(artifacts=artifacts, keys=keys, dry_run=dry_run)
        unused = sorted({*map(str, files), *swept})
        if dry_run:
            return unused
        for path in files:
            path.unlink(missing_ok=True)
    _purge_rows(workspace, model, compact=compact)
    return unused


def purge_replaced(workspace: Workspace, before: Model) -> list[str]:
    """As `purge`, where nothing is stored but the parts of the served generation and of the one before it.

    Args:
        workspace: held by the caller for writing.
        before: the generation before.

    Returns:
        The files and objects that were removed.
    """
    model = workspace.generations.require()
    own = OwnParts(before, model)
    with storage_errors(workspace.root):
        files = _outdated(workspace)
        removed = workspace.store.remove(artifacts=own.artifacts, keys=own.keys)
        for path in files:
            path.unlink(missing_ok=True)
    _purge_rows(workspace, model, compact=False)
    return sorted({*map(str, files), *removed})


def take_tidy(workspace: Workspace, model: Model | None, connection: Connection | None = None) -> bool:
    """Whether nothing but the parts of a generation is stored; unknown from now on, because others will be.

    Args:
        workspace: held by the caller for writing.
        model: the generation.
        connection: of the caller's transaction, before anything is derived; None: one of its own.
    """
    database = workspace.database
    known = database.get_metadata(_TIDY, connection)
    if known:
        with database.transaction(connection) as inner:
            database.set_metadata(inner, _TIDY, "")
    return model is not None and known == model.public_digest


def sweep_generations(workspace: Workspace) -> None:
    """Remove manifests and pages that neither the served generation nor an open request needs any more."""
    with storage_errors(workspace.root):
        for path in workspace.generations.outdated(_needed(workspace)):
            path.unlink(missing_ok=True)


def _outdated(workspace: Workspace) -> list[Path]:
    """Files to remove that are no artifacts."""
    layout = workspace.layout
    refuse_links(layout.generations)
    figures = files_without_links(layout.reports)  # of older models; they may show records that were deleted
    with os.scandir(layout.root) as entries:
        beside = [entry.path for entry in entries if entry.is_file()]
    # Listed once: there may be as many certificates as requests.
    unfinished = filter(_is_temporary, [*beside, *files_without_links(layout.certificates)])
    return [*workspace.generations.outdated(_needed(workspace)), *map(Path, [*figures, *unfinished])]


def _needed(workspace: Workspace) -> set[tuple[int, Digest]]:
    """Earlier generations whose clusters a certificate will be compared with: their numbers and public digests."""
    snapshots = (request.before for request in workspace.requests.all("in_progress", "failed"))
    return {(one.generation, one.public_digest) for one in snapshots if one is not None and not one.artifacts}


def _purge_rows(workspace: Workspace, model: Model, *, compact: bool) -> None:
    records = workspace.records
    with workspace.database.transaction() as connection:
        records.derived.keep_partition(model.partition.key, connection)
        records.changes.discard(until=model.revision, connection=connection)
        if not workspace.config.needs_statistics:
            records.statistics.clear(connection)
        workspace.database.set_metadata(connection, _TIDY, model.public_digest)
        workspace.record_generation(connection, model)
    workspace.forget_expired_references()
    erase_deleted(workspace.database, compact=compact)


def erase_deleted(database: Database, *, compact: bool = False) -> None:
    """Erase the keys of what was deleted; compact the database if that is due, and quick or asked for."""
    database.erase()
    database.discard_files()
    compact_deleted(database, compact=compact)


def compact_deleted(database: Database, *, compact: bool = False) -> None:
    """Compact the database after deletions if that is due, and quick or asked for."""
    if database.compaction_due and (compact or database.quick_to_compact):
        database.compact()


def _is_temporary(path: str) -> bool:
    return path.rpartition(os.sep)[2].startswith(TEMPORARY)
