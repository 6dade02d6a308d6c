"""Deletions that an older state of a workspace does not know of, carried out again from a newer ledger.

A backup or a snapshot of a disk still holds what was deleted after it was made. The ledger tells of each deletion
by commitments, which are random numbers to everybody else; but this older state still has the keys under which
they were made, so it finds out which of its records they are of. Steps:
1. the newer ledger is an unbroken chain that goes on where the ledger here ends;
2. every commitment that it lists as removed, and that was added before, is of a record held here; without these
   records, and after an entry that tells of the restoration, ledger and records tell the same story;
3. the served model is withdrawn;
4. in one transaction: requests get the states that the newer ledger tells of, the records are deleted, and its
   entries are taken over; then the caller derives the model.
What fails before step 3 has changed nothing.

What the ledger cannot say: what was added since, or the right label of what was rectified. Rectified records are
deleted, too. Follows `docs/adr/0018-backups.md`; knows nothing about how a state came to be older.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from lmeraser.errors import LockedError, VerificationError
from lmeraser.evidence.hash_chain import Entry, LedgerHead, check
from lmeraser.evidence.reconcile import differences, of_their_kind, removed
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class ReapplyReport:
    """What a newer ledger changed.

    Attributes:
        entries: how many it had that were not known here.
        records_deleted: records that had been deleted since.
        records_rectified: of these, how many may only have been given another label.
        records_lost: how many had been added since; they are not here.
        requests_lost: ids of open requests that came since; what they named is not known, so file them again.
    """

    entries: int = 0
    records_deleted: int = 0
    records_rectified: int = 0
    records_lost: int = 0
    requests_lost: tuple[str, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def reapply(workspace: Workspace, newest: bytes, *, head: LedgerHead | None = None) -> ReapplyReport:
    """Delete what a newer copy of the ledger tells was deleted; repeating it is harmless.

    No model is served afterwards, if there was anything to do: `unlearn.complete_pending` derives one.

    Args:
        workspace: the older state.
        newest: bytes of the newest copy of its ledger.
        head: where the ledger ended when this was exported, if it was; it finds a copy that was shortened.

    Raises:
        VerificationError: the copy is broken, shortened, not of this workspace, or does not fit its records.
        LockedError: somebody else writes to the workspace.
    """
    with workspace.writing("reapply"):
        known = workspace.ledger.entries()
        newer = _newer(known, check(newest, head=head))
        if not newer:
            return ReapplyReport()
        names = _deleted(workspace, known, newer)
        rectified = removed(entry for entry in newer if entry.kind == "relabelled")
        with of_their_kind():
            added = sum(int(entry.body["records"]) for entry in newer if entry.kind == "added")
        workspace.generations.withdraw()
        lost = _carried_out(workspace, newer, names)
    return ReapplyReport(
        entries=len(newer),
        records_deleted=len(names),
        records_rectified=sum(len(digests) for position, digests in rectified.items() if position < len(known)),
        records_lost=added,
        requests_lost=tuple(lost),
    )


def tell(entries: int) -> Mapping[str, int]:
    """The body of the entry that tells of a restoration, to a state with so many entries."""
    return {"entries": entries}


def _newer(known: Sequence[Entry], entries: Sequence[Entry]) -> list[Entry]:
    """The entries that are not known here (step 1)."""
    common = min(len(known), len(entries))
    if common and known[common - 1].digest != entries[common - 1].digest:
        raise _refused("a ledger that parts from the one here; it is of another workspace, or of another history")
    if len(entries) < len(known) and known[common].kind != "restored":
        raise _refused(
            f"{len(entries)} entries; there are {len(known)} here already: it was shortened, or is older"
        )
    return list(entries[common:])


def _deleted(workspace: Workspace, known: Sequence[Entry], newer: Sequence[Entry]) -> list[str]:
    """Ids of the records that newer entries tell are gone (step 2)."""
    gone = {d for position, digests in removed(newer).items() if position < len(known) for d in digests}
    names = workspace.records.committed(gone)
    if missing := len(gone - names.keys()):
        raise _refused(f"{missing} of {len(gone)} records that it tells were deleted are not held here")
    after = {
        position: [digest for digest in digests if digest not in gone]
        for position, digests in workspace.records.commitments().items()
    }
    told = Entry(len(known) + len(newer), None, "", "restored", tell(len(known)))
    if found := differences([*known, *newer, told], after):
        raise _refused(f"a story that the records contradict: {found[0]}")
    return sorted(names.values())


def _carried_out(workspace: Workspace, newer: Sequence[Entry], names: Sequence[str]) -> list[str]:
    """Take the newer entries over and delete these records (step 4); ids of requests that are lost."""
    with workspace.write_transaction() as connection:
        known = workspace.ledger.next_position(connection)
        if known != newer[0].position:
            raise LockedError(
                "Nobody writes to a workspace while deletions are carried out again.",
                got="an entry that was noted meanwhile",
                next_step="stop the service and run the same command again",
            )
        lost = workspace.requests.replay(connection, newer)
        if names:
            workspace.records.delete(connection, names, subjects=_gone_altogether(workspace, names))
        workspace.ledger.extend(connection, newer)
        workspace.ledger.note(connection, "restored", tell(known), now=workspace.clock())
        workspace.database.set_metadata(
            connection, "told_generation", ""
        )  # the ledger is told of the next one again
    return lost


def _gone_altogether(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """Subjects all of whose records go.

    The ledger does not tell whether they were named. That nothing of theirs comes back unasked is the safe guess.
    """
    going = set(names)
    subjects = {subject for subject, _, _ in workspace.records.find(names).values() if subject is not None}
    return [s for s, ids in workspace.records.of_subjects(subjects).items() if going.issuperset(ids)]


def _refused(got: str) -> VerificationError:
    return VerificationError(
        "Deletions are carried out again from the newest ledger of the same workspace, unbroken.",
        got=got,
        next_step="look for the newest copy or export of the ledger; nothing was changed",
    )
