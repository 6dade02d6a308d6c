"""Replay of deletions that an older state of a workspace does not know of, from a newer ledger.

A backup or a snapshot of a disk still holds what was deleted after it was made. The ledger lists deleted records
by their commitments, which are random numbers to everybody else; but the older state still has the keys under
which they were computed, so it can tell which of its records they belong to. Steps:
1. the newer ledger is an unbroken chain that continues the ledger here;
2. every commitment that it lists as removed, and that was added before, belongs to a record held here; without
   these records, and after an entry that records the restoration, ledger and records agree;
3. the served model is withdrawn;
4. in one transaction: requests get the states that the newer ledger records, the records are deleted, and its
   entries are taken over; then the caller derives the model.
A failure before step 3 has changed nothing.

The ledger cannot tell what was added since, or the right label of a rectified record: rectified records are
deleted, too. `docs/adr/0018-backups.md` has the reasons.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import cast

from sqlalchemy import Connection

from lmeraser.errors import LockedError, VerificationError
from lmeraser.evidence.entries import (
    RecordsAdded,
    RequestCompleted,
    RequestExtended,
    WorkspaceRestored,
    events_of,
)
from lmeraser.evidence.hash_chain import Entry, LedgerHead, check
from lmeraser.evidence.reconcile import STATE_AFTER, differences, removed, request_ids
from lmeraser.workspace.recovery import forget_recorded_generation
from lmeraser.workspace.requests.state import Request, State
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class ReplayReport:
    """What the replay of a newer ledger changed.

    Attributes:
        entries: how many it had that were not known here.
        records_deleted: records that had been deleted since.
        records_rectified: how many of these may only have been given another label.
        records_lost: how many had been added since; they are not held here.
        requests_lost: ids of open requests accepted since; what they named is unknown, so file them again.
    """

    entries: int = 0
    records_deleted: int = 0
    records_rectified: int = 0
    records_lost: int = 0
    requests_lost: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def replay(workspace: Workspace, newest: bytes, *, head: LedgerHead | None = None) -> ReplayReport:
    """Delete what a newer copy of the ledger records as deleted; harmless to repeat.

    No model is served afterwards, if there was anything to do: `completion.complete_pending` derives one.

    Args:
        workspace: the older state.
        newest: bytes of the newest copy of its ledger.
        head: an exported head of that ledger, if there is one; it detects a copy that was shortened.

    Raises:
        VerificationError: the copy is broken, shortened, of another workspace, or does not match the records.
        LockedError: another process writes to the workspace.
    """
    with workspace.writing("replay"):
        known = workspace.ledger.entries()
        newer = _newer_entries(known, check(newest, head=head))
        if not newer:
            return ReplayReport()
        record_ids = _deleted_ids(workspace, known, newer)
        rectified = removed(entry for entry in newer if entry.kind == "relabelled")
        added = sum(event.records for _, event in events_of(newer, RecordsAdded))
        workspace.generations.withdraw()
        lost = _take_over(workspace, newer, record_ids)
    return ReplayReport(
        entries=len(newer),
        records_deleted=len(record_ids),
        records_rectified=sum(len(digests) for position, digests in rectified.items() if position < len(known)),
        records_lost=added,
        requests_lost=tuple(lost),
    )


def _newer_entries(known: Sequence[Entry], entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are not known here (step 1)."""
    common = min(len(known), len(entries))
    if common and known[common - 1].digest != entries[common - 1].digest:
        raise _mismatch("it differs from the ledger here; it is of another workspace, or of another history")
    if len(entries) < len(known) and known[common].kind != "restored":
        raise _mismatch(f"{len(entries)} entries, fewer than the {len(known)} here; it was shortened or is older")
    return list(entries[common:])


def _deleted_ids(workspace: Workspace, known: Sequence[Entry], newer: Sequence[Entry]) -> list[str]:
    """Ids of the records that newer entries list as removed (step 2)."""
    gone = {d for position, digests in removed(newer).items() if position < len(known) for d in digests}
    record_ids = workspace.records.commitments.find_ids(gone)
    if missing := len(gone - record_ids.keys()):
        raise _mismatch(f"{missing} of the {len(gone)} records that it lists as deleted are not held here")
    retained = {
        position: [digest for digest in digests if digest not in gone]
        for position, digests in workspace.records.commitments.by_entry().items()
    }
    restored = WorkspaceRestored(entries=len(known))
    restoration = Entry(len(known) + len(newer), None, "", restored.kind, restored.body())
    if found := differences([*known, *newer, restoration], retained):
        raise _mismatch(f"it does not match the records here: {found[0]}")
    return sorted(record_ids.values())


def _take_over(workspace: Workspace, newer: Sequence[Entry], record_ids: Sequence[str]) -> list[str]:
    """Take over the newer entries and delete these records (step 4); returns ids of requests that are lost."""
    with workspace.write_transaction() as connection:
        known = workspace.ledger.next_position(connection)
        if known != newer[0].position:
            raise LockedError(
                "Ledger changed during the replay",
                got="another process added an entry",
                next_step="stop the service and run the same command again",
            )
        lost = _replay_requests(workspace, connection, newer)
        if record_ids:
            subjects = _subjects_without_records(workspace, record_ids)
            workspace.records.delete(connection, record_ids, subjects=subjects)
        workspace.exports.take_over(connection, newer)
        workspace.ledger.extend(connection, newer)
        workspace.ledger.note(connection, WorkspaceRestored(entries=known), now=workspace.clock())
        forget_recorded_generation(workspace.database, connection)
    return lost


def _replay_requests(workspace: Workspace, connection: Connection, newer: Sequence[Entry]) -> list[str]:
    """Bring requests to the states that newer entries record, while their records are still held.

    Returns:
        Ids of open requests that are not held here; what they named is lost.
    """
    last = {
        request_id: (entry, event)
        for entry, event in events_of(newer, *STATE_AFTER)
        for request_id in request_ids(event)
    }
    for entry, extension in events_of(newer, RequestExtended):
        extended = workspace.requests.get(extension.request, connection)
        if extended is not None:
            workspace.request_changes.note_extension(connection, extended, extension, at=entry.time)
    lost = []
    for request_id, (entry, event) in sorted(last.items(), key=lambda item: item[0]):
        state = cast("State", STATE_AFTER[type(event)])
        request = workspace.requests.get(request_id, connection)
        if request is None:
            if state not in ("completed", "cancelled"):
                lost.append(request_id)
        elif state != "pending":
            certificate = event.certificate if isinstance(event, RequestCompleted) else None
            changed = replace(request, state=state, changed=entry.time, certificate=certificate)
            replayed = _with_counts(workspace, connection, request, changed)
            workspace.request_changes.overwrite(connection, replayed)
    return lost


def _with_counts(workspace: Workspace, connection: Connection, request: Request, changed: Request) -> Request:
    """The changed request; if its records are deleted only now, with their number."""
    if request.state != "pending" or changed.state == "cancelled":
        return changed
    selection = workspace.requests.selection(request, connection)
    return replace(changed, records=len(selection.ids), already_deleted=len(selection.already_deleted))


def _subjects_without_records(workspace: Workspace, record_ids: Sequence[str]) -> list[str]:
    """Subjects all of whose records are deleted.

    The ledger does not say whether a request named them. To suppress them is the safe choice: nothing of theirs is
    imported again unasked.
    """
    deleted = set(record_ids)
    found = workspace.records.find(record_ids)
    subjects = {subject for subject, _, _ in found.values() if subject is not None}
    return [s for s, ids in workspace.records.of_subjects(subjects).items() if deleted.issuperset(ids)]


def _mismatch(got: str) -> VerificationError:
    return VerificationError(
        "Cannot replay this ledger",
        got=got,
        next_step="look for the newest copy or export of this workspace's ledger; nothing was changed",
    )
