"""Copies of a model outside of its workspace: which of them still hold the influence of erased records.

Follows from the ledger alone. A copy is of one generation, which was derived from all records held when it was
published. A record that is deleted later has influence on the copy if its addition came before that; so has one
that was given another label, because the copy learned the old one (the GDPR has both communicated to whoever
received the data: Article 19). A deleted record that had been relabelled after the generation counts too; where
entries do not tell which of several relabelled records it was, the higher number is counted. What was erased after
a copy was confirmed to be deleted does not count for it. Pure functions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from lmeraser.core.digests import Digest
from lmeraser.evidence.entries import (
    ExportConfirmed,
    ExportRecalled,
    GenerationPublished,
    ModelExported,
    RecordsDeleted,
    RecordsRelabelled,
    events_of,
)
from lmeraser.evidence.hash_chain import Entry

CopyState = Literal["clear", "recalled", "confirmed"]


@dataclass(frozen=True)
class OutsideCopy:
    """A copy of a generation outside of the workspace.

    Attributes:
        id: its UUID.
        generation: that it is a copy of.
        format: of the copy.
        manifest: digest of its manifest.
        exported: when it was made, RFC 3339 in UTC, as are the other times.
        records_erased: how many records with influence on it were deleted since.
        records_rectified: how many were given another label since.
        since: when the first of them was; None if there are none.
        told: when its holder was last told of them.
        told_of: of how many.
        confirmed: when its deletion was confirmed.
    """

    id: str
    generation: int
    format: str
    manifest: Digest
    exported: str
    records_erased: int = 0
    records_rectified: int = 0
    since: str | None = None
    told: str | None = None
    told_of: int = 0
    confirmed: str | None = None

    @property
    def outdated(self) -> int:
        """How many records with influence on it were erased or rectified since."""
        return self.records_erased + self.records_rectified

    @property
    def state(self) -> CopyState:
        """Whether it may stay, has to be deleted, or is."""
        if self.confirmed is not None:
            return "confirmed"
        return "recalled" if self.outdated else "clear"

    def to_json(self) -> dict[str, object]:
        """The copy as JSON values."""
        return {**asdict(self), "state": self.state}


@dataclass
class _Following:
    """What has become of a copy up to an entry.

    Attributes:
        copy: as it is at that entry.
        derived_at: position of the entry that published its generation.
        relabelled: for the entry of a later relabelling, how many of its records the copy may have learned from.
    """

    copy: OutsideCopy
    derived_at: int
    relabelled: dict[int, int] = field(default_factory=dict)

    def change(self, **values: Any) -> None:
        """Set fields of the copy."""
        self.copy = replace(self.copy, **values)

    def remove(self, entry: Entry, removal: RecordsDeleted | RecordsRelabelled) -> None:
        """Count the records of a removal that the copy learned from."""
        learned = again = 0
        for position, commitments in removal.removed_by_position.items():
            if position < self.derived_at:
                learned += len(commitments)
            elif left := min(self.relabelled.get(position, 0), len(commitments)):
                self.relabelled[position] -= left
                again += left
        if isinstance(removal, RecordsRelabelled):
            self.change(records_rectified=self.copy.records_rectified + learned)
            self.relabelled[entry.position] = learned + again
        else:
            self.change(records_erased=self.copy.records_erased + learned + again)
        if learned or again:
            self.change(since=self.copy.since or entry.time)


def copies_outside(entries: Iterable[Entry]) -> list[OutsideCopy]:
    """The copies that a ledger records, in the order in which they were made.

    Raises:
        VerificationError: an entry has a malformed body.
    """
    followed: dict[str, _Following] = {}
    derived_at = 0
    wanted = (
        *(GenerationPublished, ModelExported, RecordsDeleted, RecordsRelabelled),
        *(ExportRecalled, ExportConfirmed),
    )
    for entry, event in events_of(entries, *wanted):
        match event:
            case GenerationPublished():
                derived_at = entry.position
            case ModelExported():
                copy = OutsideCopy(event.export, event.generation, event.format, event.manifest, entry.time)
                followed[event.export] = _Following(copy, derived_at)
            case RecordsDeleted() | RecordsRelabelled():
                for following in followed.values():
                    if following.copy.confirmed is None:
                        following.remove(entry, event)
            case ExportRecalled() if event.export in followed:
                followed[event.export].change(told=entry.time, told_of=event.records)
            case ExportConfirmed() if event.export in followed:
                followed[event.export].change(confirmed=entry.time)
    return [following.copy for following in followed.values()]


def recalled_copies(copies: Iterable[OutsideCopy]) -> list[dict[str, object]]:
    """The copies that hold or held the influence of erased records, as certificates list them: JSON values."""
    return [
        {
            "id": copy.id,
            "generation": copy.generation,
            "exported": copy.exported,
            "records_erased": copy.records_erased,
            "records_rectified": copy.records_rectified,
            "recalled": copy.since,
            "told": copy.told,
            "confirmed": copy.confirmed,
        }
        for copy in copies
        if copy.outdated
    ]


def copy_differences(entries: Sequence[Entry], held: Iterable[str]) -> list[str]:
    """Differences between the ledger and the copies that the workspace knows of, one line each.

    Args:
        entries: of the ledger, checked.
        held: ids of the copies in the database.
    """
    known = set(held)
    recorded = {event.export for _, event in events_of(entries, ModelExported)}
    found = []
    for entry, event in events_of(entries, ExportRecalled, ExportConfirmed):
        if event.export not in recorded:  # type: ignore[attr-defined]  # as both have
            found.append(f"entry {entry.position} names a copy that no entry records")
    found += [f"copy {copy} is not known, but the ledger records it" for copy in sorted(recorded - known)]
    return found + [f"copy {copy} is known, but no entry records it" for copy in sorted(known - recorded)]
