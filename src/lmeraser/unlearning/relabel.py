"""Rectification: records get another label, as if they were deleted and added again in one step (Article 16 GDPR).

One transaction changes the label and the record's key and notes it for the ledger; the model is brought up to date
afterwards, so that only the clusters of these records are tuned again. The old label is purged like a deleted
record.
"""

from __future__ import annotations

from collections.abc import Iterable

from lmeraser.errors import InputError, UnknownRecordError, listing
from lmeraser.evidence.entries import RecordsRelabelled
from lmeraser.evidence.reconcile import by_entry, digest_of
from lmeraser.workspace.workspace import Workspace


def relabel(workspace: Workspace, ids: Iterable[str], label: str) -> int:
    """Give records another label; the caller brings the model up to date.

    Returns:
        How many labels changed.

    Raises:
        InputError: the workspace has no such class.
        UnknownRecordError: ids that the workspace doesn't hold, all of them listed.
    """
    records, wanted = workspace.records, sorted(set(ids))
    if label not in records.classes:
        raise InputError(
            "A label is one of the workspace's classes.",
            got=f"{label!r}; the classes are {', '.join(records.classes)}",
            next_step="extend the list with 'lmeraser classes --add NAME', if that is meant",
        )
    if not wanted:
        raise InputError("A rectification names records.", got="none", next_step="give --id or --ids-file")
    with workspace.writing("relabel"):
        found = records.find(filter(str.isprintable, wanted))
        if unknown := [repr(record_id) for record_id in wanted if record_id not in found]:
            raise UnknownRecordError(
                "A rectification names records that this workspace holds; nothing was changed.",
                got="unknown, " + listing(unknown),
                next_step="correct the request; record ids are those given at import",
            )
        number = records.classes.index(label)
        changing = [record_id for record_id in wanted if found[record_id][1] != number]
        if changing:
            with workspace.write_transaction() as connection:
                removed = by_entry(records.commitments(changing, connection))
                entry = workspace.ledger.next_position(connection)
                added = records.relabel(connection, changing, number, entry=entry)
                relabelled = RecordsRelabelled(records=len(added), removed=removed, commitments=digest_of(added))
                workspace.ledger.note(connection, relabelled, now=workspace.clock())
    return len(changing)
