"""What a deletion request selects: record ids and subjects, as mixed and repeated as the user likes.

An id that was deleted here before is not an error: repeating a request is harmless. An id that this workspace
has never held is, because it is more likely a typing error than a wish; all of them are listed at once and
nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lmeraser.errors import InputError, UnknownRecordError, listing
from lmeraser.records import Records


@dataclass(frozen=True)
class Selection:
    """What a request selects.

    Attributes:
        ids: records to delete, sorted.
        subjects: requested subjects that have records, sorted; they will be suppressed.
        already_deleted: requested ids and subjects that were deleted here before, sorted.
    """

    ids: tuple[str, ...]
    subjects: tuple[str, ...]
    already_deleted: tuple[str, ...]


def select(
    records: Records, *, ids: Iterable[str] = (), subjects: Iterable[str] = (), accepted: bool = False
) -> Selection:
    """Resolve ids and subjects.

    Args:
        records: what they name.
        ids: record ids.
        subjects: people.
        accepted: all of them were known before; those that are not any more count as deleted. (The records of a
            subject may have been deleted by their ids, and nothing remembers the subject then.)

    Raises:
        InputError: nothing was asked for.
        UnknownRecordError: ids or subjects that were never here, all of them listed.
    """
    wanted, people = set(ids), set(subjects)
    if not wanted and not people:
        raise InputError(
            "A deletion names records or subjects.", got="neither", next_step="give --id, --subject or --ids-file"
        )
    possible = str.isprintable  # no other name is ever imported, and a database may not even take it
    found = set(records.find(filter(possible, wanted)))
    of_subjects = records.of_subjects(filter(possible, people))
    gone = records.suppressed("record", filter(possible, wanted - found))
    gone_people = records.suppressed("subject", filter(possible, people - of_subjects.keys()))
    strange, strangers = wanted - found - gone, people - of_subjects.keys() - gone_people
    unknown = [f"record id {name!r}" for name in sorted(strange)]
    unknown += [f"subject {name!r}" for name in sorted(strangers)]
    if accepted:
        gone, gone_people = gone | strange, gone_people | strangers
    elif unknown:
        raise UnknownRecordError(
            "A deletion names records and subjects that this workspace holds; nothing was deleted.",
            got="unknown, " + listing(unknown),
            next_step="correct the request; record ids are those given at import",
        )
    every = found.union(*of_subjects.values())
    return Selection(tuple(sorted(every)), tuple(sorted(of_subjects)), tuple(sorted(gone | gone_people)))


def read_ids(path: Path) -> list[str]:
    """Record ids from a text file, one a line; empty lines and lines that begin with ``#`` are passed over.

    Raises:
        InputError: the file cannot be read as UTF-8 text.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            "An ids file is a readable text file with one record id a line.", got=f"{path}: {error}"
        ) from error
    return [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
