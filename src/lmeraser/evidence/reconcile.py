"""Do ledger and records tell the same story: every record held was added, none that was deleted is back.

An entry that tells of added records holds the number of their commitments and one digest over all of them,
sorted. An entry that tells of deleted ones lists theirs, by the entry that told of their addition. So for every
addition, commitments of records held now and of deleted ones together give that digest, and nobody needs to
know which record is which. What was added after a backup that was restored later is lost: none of it may be held,
and what is left of it cannot be counted. Pure functions; know nothing about files or databases.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

from lmeraser.core.digests import Digest
from lmeraser.errors import InputError
from lmeraser.evidence.hash_chain import Entry, LedgerHead, broken

_ADDING = ("added", "relabelled")


@dataclass(frozen=True)
class LedgerReport:
    """What checking a ledger found.

    Attributes:
        entries: all of them; their chain is unbroken.
        head: where it ends.
        differences: what ledger and records disagree on, one line each.
    """

    entries: tuple[Entry, ...]
    head: LedgerHead
    differences: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Whether ledger and records tell the same story."""
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


def by_entry(commitments: Mapping[int, Sequence[Digest]]) -> dict[str, list[Digest]]:
    """Commitments as an entry's body lists them."""
    return {str(position): sorted(digests) for position, digests in sorted(commitments.items())}


def removed(entries: Iterable[Entry]) -> dict[int, list[Digest]]:
    """Commitments that entries tell are gone, by the entry that told of their addition.

    Raises:
        VerificationError: an entry's body is not what entries of its kind hold.
    """
    gone: dict[int, list[Digest]] = {}
    with of_their_kind():
        for entry in entries:
            if entry.kind in ("deleted", "relabelled"):
                for position, digests in entry.body["removed"].items():
                    gone.setdefault(int(position), []).extend(Digest(digest) for digest in digests)
    return gone


def differences(
    entries: Sequence[Entry], held: Mapping[int, Sequence[Digest]], served: Digest | None = None
) -> list[str]:
    """What the ledger and the records held now disagree on, one line each.

    Args:
        entries: of the ledger, checked.
        held: commitments of the records held now, by the entry that told of their addition.
        served: digest of the served model, if there is one.

    Raises:
        VerificationError: an entry's body is not what entries of its kind hold.
    """
    with of_their_kind():
        return _differences(entries, held, served)


@contextlib.contextmanager
def of_their_kind() -> Iterator[None]:
    """Read bodies of entries; what does not fit their kind breaks the ledger."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, InputError) as error:
        raise broken(f"an entry whose body is not of its kind: {error!r}") from error


def _differences(
    entries: Sequence[Entry], held: Mapping[int, Sequence[Digest]], served: Digest | None
) -> list[str]:
    told = [entry.body["model"] for entry in entries if entry.kind == "generation"]
    found = []
    if served is not None and served != (told[-1] if told else None):
        found.append(
            f"model {served.short} is served, and the ledger tells of {told[-1][7:19] if told else 'none'}"
        )
    gone, lost = removed(entries), _lost(entries)
    added = {e.position: (e.body["records"], e.body["commitments"]) for e in entries if e.kind in _ADDING}
    for position, (count, digest) in sorted(added.items()):
        here, left = held.get(position, []), gone.get(position, [])
        if position in lost:
            if here:
                found.append(f"{len(here)} records of entry {position} are held; it came after a restored backup")
        elif digest != digest_of([*here, *left]) or count != len(here) + len(left):
            found.append(
                f"entry {position} added {count} records; held {len(here)}, deleted {len(left)}, "
                "and they are not the same ones"
            )
    for position in sorted((held.keys() | gone.keys()) - added.keys()):
        number = len(held.get(position, [])) + len(gone.get(position, []))
        found.append(f"{number} records are said to be added by entry {position}, which tells of none")
    return found


def _lost(entries: Sequence[Entry]) -> dict[int, int]:
    """Entries that were noted after a backup and before it was restored, each with that of the restoration."""
    lost: dict[int, int] = {}
    for entry in entries:
        if entry.kind == "restored":
            end = int(entry.body["entries"])  # of the backup's ledger
            before = {position: since for position, since in lost.items() if since < end}
            lost = {**before, **dict.fromkeys(range(end, entry.position), entry.position)}
    return lost
