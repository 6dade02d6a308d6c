"""Rectification (Article 16 GDPR): give records another label, as if they were deleted and added again.

One transaction changes the labels and the records' keys and notes it for the ledger. The model is brought up to
date afterwards, so that only the clusters of these records are tuned again. The old label is purged like a deleted
record.
"""

from __future__ import annotations

from collections.abc import Iterable

from lmeraser.data.canonical_names import find_class
from lmeraser.errors import AmbiguousNameError, InputError, UnknownRecordError, listing
from lmeraser.evidence.entries import RecordsRelabelled
from lmeraser.evidence.reconcile import by_entry, digest_of
from lmeraser.unlearning.completion import CompletionReport, update_and_complete
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace


def relabel(session: Session, label: str, *, ids: Iterable[str]) -> CompletionReport:
    """Give records another label and bring the model up to date.

    Args:
        session: the workspace, and what runs the stages.
        label: the class of the records from now on.
        ids: their record ids.

    Raises:
        InputError: the workspace has no such class, or no record is named.
        UnknownRecordError: the workspace doesn't hold some of the ids; nothing was changed.
        AmbiguousNameError: some of the ids mean several records; nothing was changed.
    """
    with session.workspace.writing("relabel"):
        change_labels(session.workspace, ids, label)
        return update_and_complete(session)


def change_labels(workspace: Workspace, ids: Iterable[str], label: str) -> int:
    """Give records another label; the caller holds the writer's lock and brings the model up to date.

    Returns:
        How many labels changed.

    Raises:
        InputError: the workspace has no such class, or no record is named.
        UnknownRecordError: the workspace doesn't hold some of the ids; nothing was changed.
        AmbiguousNameError: some of the ids mean several records; nothing was changed.
    """
    records = workspace.records
    named = Selector.of(ids).ids
    # White space around a label is refused: a label that was not meant is worse than a second try.
    clean = isinstance(label, str) and label == label.strip()
    number = find_class(label, records.classes) if clean else None
    if number is None:
        raise InputError(
            "Class not found",
            got=f"{label!r} (there are: {', '.join(records.classes)})",
            next_step="name one of these, or add a class with 'lmeraser classes --add NAME'",
        )
    if not named:
        raise InputError("No record named", next_step="give --id or --ids-file")
    meanings = records.names.matches("id", named)
    if unknown := [repr(name) for name in named if name not in meanings]:
        raise UnknownRecordError(
            "Unknown record ids; nothing was changed",
            got=listing(unknown),
            next_step="correct the ids; they are those given at import",
        )
    if several := [f"{n!r}: {', '.join(map(ascii, meant))}" for n, meant in meanings.items() if len(meant) > 1]:
        raise AmbiguousNameError(
            "Ids that mean several records; nothing was changed",
            got=listing(several),
            next_step="give each id exactly as it is listed",
        )
    requested = sorted({record_id for meant in meanings.values() for record_id in meant})
    found = records.find(requested)
    changing = [record_id for record_id in requested if found[record_id][1] != number]
    if changing:
        with workspace.write_transaction() as connection:
            removed = by_entry(records.commitments.by_entry(changing, connection))
            entry = workspace.ledger.next_position(connection)
            added = records.relabel(connection, changing, number, entry=entry)
            relabelled = RecordsRelabelled(records=len(added), removed=removed, commitments=digest_of(added))
            workspace.ledger.note(connection, relabelled, now=workspace.clock())
    return len(changing)
