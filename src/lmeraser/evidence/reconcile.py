"""Reconciliation of the ledger with records and requests: none is back, lost or altered behind its back.

An entry for added records holds their number and one digest over all of their commitments, sorted. An entry for
deleted records lists their commitments, by the entry that recorded their addition. So for every addition, the
commitments of the records held now and of the deleted ones together give that digest, and nobody needs to know
which record is which. Records that were added after a backup, before it was restored, are lost: none of them may
be held, and the remaining ones cannot be counted.

Every request is in the state that the entries about it lead to, with the law, the times and the number of names
with which it was accepted (or the due time of its extension); requests that were accepted after a backup are lost
as well. Pure functions; know nothing about files or databases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace

from lmeraser.core.digests import Digest
from lmeraser.evidence.entries import (
    Event,
    GenerationPublished,
    RecordsAdded,
    RecordsDeleted,
    RecordsRelabelled,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    RequestExtended,
    RequestFailed,
    WorkspaceRestored,
    events_of,
)
from lmeraser.evidence.hash_chain import Entry, LedgerHead

STATE_AFTER: Mapping[type[Event], str] = {  # of a request, by the event that names it
    RequestAccepted: "pending",
    RequestCancelled: "cancelled",
    RecordsDeleted: "in_progress",
    RequestCompleted: "completed",
    RequestFailed: "failed",
}


@dataclass(frozen=True)
class RequestOnRecord:
    """What both the ledger and the workspace keep of a request; see `entries` for its attributes."""

    state: str
    regulation: str
    received: str
    due: str
    names: int
    certificate: Digest | None


@dataclass(frozen=True)
class LedgerReport:
    """The outcome of checking a ledger.

    Attributes:
        entries: all entries; their chain is unbroken.
        head: the head of the ledger.
        differences: between ledger and records, one line each.
    """

    entries: tuple[Entry, ...]
    head: LedgerHead
    differences: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether ledger and records agree."""
        return not self.differences

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {
            "sound": self.sound,
            "head": self.head.to_json(),
            "differences": list(self.differences),
            "entries": [asdict(entry) | {"digest": entry.digest} for entry in self.entries],
        }


def digest_of(commitments: Iterable[Digest]) -> Digest:
    """One digest over commitments in any order."""
    return Digest.of_json(sorted(commitments))


def by_entry(commitments: Mapping[int, Sequence[Digest]]) -> dict[str, tuple[Digest, ...]]:
    """Commitments in the form in which an entry lists the removed ones."""
    return {str(position): tuple(sorted(digests)) for position, digests in sorted(commitments.items())}


def removed(entries: Iterable[Entry]) -> dict[int, list[Digest]]:
    """Commitments that entries list as removed, by the entry that recorded their addition.

    Raises:
        VerificationError: an entry has a malformed body.
    """
    commitments: dict[int, list[Digest]] = {}
    for _, event in events_of(entries, RecordsDeleted, RecordsRelabelled):
        for position, digests in event.removed_by_position.items():
            commitments.setdefault(position, []).extend(digests)
    return commitments


def records_held(entries: Sequence[Entry]) -> int:
    """How many records are held according to these entries.

    Raises:
        VerificationError: an entry has a malformed body.
    """
    lost = _lost_positions(entries)
    added = sum(
        event.records
        for entry, event in events_of(entries, RecordsAdded, RecordsRelabelled)
        if entry.position not in lost
    )
    return added - sum(len(digests) for position, digests in removed(entries).items() if position not in lost)


def differences(
    entries: Sequence[Entry], held: Mapping[int, Sequence[Digest]], served: Digest | None = None
) -> list[str]:
    """Differences between the ledger and the records held now, one line each.

    Args:
        entries: of the ledger, checked.
        held: commitments of the records held now, by the entry that recorded their addition.
        served: public digest of the served model, if there is one.

    Raises:
        VerificationError: an entry has a malformed body.
    """
    found = []
    published = [event.public_digest for _, event in events_of(entries, GenerationPublished)]
    latest = published[-1] if published else None
    if served is not None and served != latest:
        recorded = f"model {latest.short}" if latest else "no model"
        found.append(f"model {served.short} is served, but the ledger records {recorded}")
    deleted = removed(entries)
    lost = _lost_positions(entries)
    additions = {entry.position: event for entry, event in events_of(entries, RecordsAdded, RecordsRelabelled)}
    for position, addition in sorted(additions.items()):
        held_here = held.get(position, [])
        deleted_here = deleted.get(position, [])
        if position in lost:
            if held_here:
                found.append(
                    f"{len(held_here)} records of entry {position} are held; it came after a restored backup"
                )
        elif addition.commitments != digest_of([*held_here, *deleted_here]) or addition.records != len(
            held_here
        ) + len(deleted_here):
            found.append(
                f"entry {position} added {addition.records} records; held {len(held_here)}, "
                f"deleted {len(deleted_here)}, and they are not the same ones"
            )
    for position in sorted((held.keys() | deleted.keys()) - additions.keys()):
        count = len(held.get(position, [])) + len(deleted.get(position, []))
        found.append(f"{count} records refer to entry {position}, which added none")
    return found


def request_differences(entries: Sequence[Entry], held: Mapping[str, RequestOnRecord]) -> list[str]:
    """Differences between the ledger and the requests held now, one line each.

    Args:
        entries: of the ledger, checked.
        held: the requests, by their ids.

    Raises:
        VerificationError: an entry has a malformed body.
    """
    lost = _lost_positions(entries)
    recorded: dict[str, RequestOnRecord] = {}
    found = []
    missing_allowed = set()
    for entry, event in events_of(entries, *STATE_AFTER, RequestExtended):
        for request_id in request_ids(event):
            if isinstance(event, RequestAccepted):
                values = (event.regulation, event.received, event.due, event.names, None)
                recorded[request_id] = RequestOnRecord("pending", *values)
                if entry.position in lost:
                    missing_allowed.add(request_id)
            elif request_id in recorded:
                recorded[request_id] = _after(recorded[request_id], event)
            else:
                found.append(f"entry {entry.position} names request {request_id}, which no entry accepts")
    for request_id in sorted(recorded.keys() | held.keys()):
        on_record, here = recorded.get(request_id), held.get(request_id)
        if here is None:
            if request_id not in missing_allowed:
                found.append(f"request {request_id} is not held, but the ledger records it")
        elif on_record is None:
            found.append(f"request {request_id} is held, but no entry accepts it")
        else:
            found += _altered(request_id, on_record, here)
    return found


def _after(on_record: RequestOnRecord, event: Event) -> RequestOnRecord:
    """What is on record of an accepted request after a further event."""
    if isinstance(event, RequestExtended):
        return replace(on_record, due=event.due)
    certificate = event.certificate if isinstance(event, RequestCompleted) else None
    return replace(on_record, state=STATE_AFTER[type(event)], certificate=certificate)


def _altered(request_id: str, on_record: RequestOnRecord, here: RequestOnRecord) -> list[str]:
    if (on_record.state, here.state) == ("failed", "in_progress"):  # it is carried out again, which no entry tells
        on_record = replace(on_record, state="in_progress")
    recorded, held = asdict(on_record), asdict(here)
    return [
        f"request {request_id}: {name} is {held[name]}, but the ledger records {recorded[name]}"
        for name in recorded
        if recorded[name] != held[name]
    ]


def request_ids(event: Event) -> Sequence[str]:
    """Ids of the requests that an event of `STATE_AFTER`, or an extension, names."""
    if isinstance(event, RecordsDeleted):
        return event.requests
    return [event.request]  # type: ignore[attr-defined]  # as all others of STATE_AFTER


def _lost_positions(entries: Iterable[Entry]) -> set[int]:
    """Positions of entries that were noted after a backup and before it was restored."""
    restored_by: dict[int, int] = {}  # position of a lost entry: position of the restoration
    for entry, event in events_of(entries, WorkspaceRestored):
        end = event.entries  # of the backup's ledger
        known_to_backup = {lost: restoration for lost, restoration in restored_by.items() if restoration < end}
        restored_by = {**known_to_backup, **dict.fromkeys(range(end, entry.position), entry.position)}
    return set(restored_by)
