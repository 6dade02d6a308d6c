"""What a deletion request selects: record ids and subjects, as mixed and repeated as the user likes.

An id that was deleted here before is not an error: repeating a request is harmless. An id that this workspace
has never held is, because it is more likely a typing error than a wish; all of them are listed at once and
nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmeraser.data.records import Records
from lmeraser.errors import InputError, UnknownRecordError, listing

_possible = str.isprintable  # no other name is ever imported, and a database may not even take it


@dataclass(frozen=True)
class Selector:
    """What a request names: record ids and subjects."""

    ids: Sequence[str] = ()
    subjects: Sequence[str] = ()


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


def select(records: Records, *, ids: Iterable[str] = (), subjects: Iterable[str] = ()) -> Selection:
    """Resolve ids and subjects.

    Args:
        records: what they name.
        ids: record ids.
        subjects: people.

    Raises:
        InputError: nothing was asked for.
        UnknownRecordError: ids or subjects that were never here, all of them listed.
    """
    names = Selector(tuple(ids), tuple(subjects))
    if names == Selector():
        raise InputError(
            "A deletion names records or subjects.", got="neither", next_step="give --id, --subject or --ids-file"
        )
    selection = select_each(records, [names])[0]
    missing, strangers = set(names.ids) - set(selection.ids), set(names.subjects) - set(selection.subjects)
    missing -= records.suppressed("record", filter(_possible, missing))
    strangers -= records.suppressed("subject", filter(_possible, strangers))
    unknown = [f"record id {name!r}" for name in sorted(missing)]
    unknown += [f"subject {name!r}" for name in sorted(strangers)]
    if unknown:
        raise UnknownRecordError(
            "A deletion names records and subjects that this workspace holds; nothing was deleted.",
            got="unknown, " + listing(unknown),
            next_step="correct the request; record ids are those given at import",
        )
    return selection


def select_each(records: Records, requests: Sequence[Selector]) -> list[Selection]:
    """Resolve what each of several requests names, with one look at the records.

    Names were checked when a request was accepted; those that are not here any more count as deleted. (The records
    of a subject may have been deleted by their ids, and nothing remembers the subject then.)
    """
    found = set(records.find(filter(_possible, {name for names in requests for name in names.ids})))
    of_subjects = records.of_subjects(filter(_possible, {name for names in requests for name in names.subjects}))
    return [_selection(names, found, of_subjects) for names in requests]


def _selection(names: Selector, found: set[str], of_subjects: Mapping[str, Sequence[str]]) -> Selection:
    wanted, people = set(names.ids), set(names.subjects)
    here = people & of_subjects.keys()
    ids = (wanted & found).union(*(of_subjects[subject] for subject in here))
    return Selection(tuple(sorted(ids)), tuple(sorted(here)), tuple(sorted((wanted - found) | (people - here))))


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
