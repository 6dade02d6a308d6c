"""Resolve the names of a deletion request to the records that it selects.

An id that was deleted here before is not an error: repeating a request is harmless. An id that this workspace has
never held is one, because it is probably a typing error; all of them are reported at once and nothing is deleted.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from lmeraser.core.digests import parse_json
from lmeraser.data.records import Records
from lmeraser.errors import InputError, UnknownRecordError, listing
from lmeraser.workspace.requests.draft import Selector

_may_be_a_name = str.isprintable  # no other name is ever imported, and some databases refuse to look one up


@dataclass(frozen=True)
class Selection:
    """What a request selects.

    Attributes:
        ids: records to delete, sorted.
        subjects: requested subjects that have records, sorted; they will be suppressed.
        already_deleted: requested ids and subjects that were deleted here before, sorted.
    """

    ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    already_deleted: tuple[str, ...] = ()

    @classmethod
    def union(cls, selections: Sequence[Selection]) -> Selection:
        """What several requests select together."""

        def merged(attribute: str) -> tuple[str, ...]:
            return tuple(sorted(set().union(*(getattr(selection, attribute) for selection in selections))))

        return cls(merged("ids"), merged("subjects"), merged("already_deleted"))


def resolve(records: Records, selector: Selector) -> Selection:
    """Find the records that a selector names.

    Args:
        records: where they are looked up.
        selector: record ids and subjects.

    Raises:
        InputError: the selector is empty.
        UnknownRecordError: ids or subjects that were never here, all of them listed.
    """
    if selector.empty:
        raise InputError(
            "No record or subject named",
            next_step="give --id, --subject or --ids-file (ids=, subjects= in Python)",
        )
    selection = resolve_each(records, [selector])[0]
    unknown_ids = set(selector.ids) - set(selection.ids)
    unknown_ids -= records.suppression.find("record", filter(_may_be_a_name, unknown_ids))
    unknown_subjects = set(selector.subjects) - set(selection.subjects)
    unknown_subjects -= records.suppression.find("subject", filter(_may_be_a_name, unknown_subjects))
    unknown = [f"record id {name!r}" for name in sorted(unknown_ids)]
    unknown += [f"subject {name!r}" for name in sorted(unknown_subjects)]
    if unknown:
        raise UnknownRecordError(
            "Unknown record ids or subjects; nothing was deleted",
            got=listing(unknown),
            next_step="correct the request; record ids are those given at import",
        )
    return selection


def resolve_each(records: Records, selectors: Sequence[Selector]) -> list[Selection]:
    """Find the records of each of several selectors, with one look at the database.

    Names are checked when a request is accepted; those that are no longer here count as deleted. (The records of a
    subject may have been deleted by their ids, and nothing remembers the subject then.)
    """
    ids = {name for selector in selectors for name in selector.ids}
    subjects = {name for selector in selectors for name in selector.subjects}
    held = set(records.find(filter(_may_be_a_name, ids)))
    of_subjects = records.of_subjects(filter(_may_be_a_name, subjects))
    return [_selection(selector, held, of_subjects) for selector in selectors]


def _selection(selector: Selector, held: set[str], of_subjects: Mapping[str, Sequence[str]]) -> Selection:
    ids = set(selector.ids)
    subjects = set(selector.subjects)
    present = subjects & of_subjects.keys()
    selected = (ids & held).union(*(of_subjects[subject] for subject in present))
    deleted = (ids - held) | (subjects - present)
    return Selection(tuple(sorted(selected)), tuple(sorted(present)), tuple(sorted(deleted)))


def read_ids(path: Path) -> list[str]:
    """Record ids from a file; what is in it is what is named, nothing is trimmed and nothing is a comment.

    - ``NAME.csv``: the column ``id`` of a CSV file with a header;
    - ``NAME.jsonl``: a JSON text or whole number per line;
    - any other file: every line is one id, without its line end; empty lines are skipped.

    Raises:
        InputError: the file cannot be read in its format, or holds no id.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
        ids = _FORMATS.get(path.suffix.lower(), _lines)(text)
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(
            "Cannot read the file of record ids",
            got=f"{path}: {error}",
            next_step="give a UTF-8 text file with one record id per line, or a .csv or .jsonl file",
        ) from error
    if not ids:
        raise InputError(
            "No record id in the file; nothing was done",
            got=str(path),
            next_step="give a file with ids; leave --ids-file out to carry out accepted requests",
        )
    return ids


def _lines(text: str) -> list[str]:
    return [line.removesuffix("\r") for line in text.split("\n") if line.removesuffix("\r")]


def _csv_column(text: str) -> list[str]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    if "id" not in (reader.fieldnames or ()):
        raise ValueError(f"no column 'id' (there are: {', '.join(reader.fieldnames or ()) or 'none'})")
    ids = [row["id"] for row in reader]
    if not all(ids):
        raise ValueError(f"row {[bool(one) for one in ids].index(False) + 1} has no id")
    return ids


def _json_lines(text: str) -> list[str]:
    ids = [parse_json(line.encode()) for line in _lines(text)]
    for number, one in enumerate(ids, 1):
        if isinstance(one, bool) or not isinstance(one, (str, int)) or one == "":
            raise ValueError(f"line {number} is neither a text nor a whole number")
    return [str(one) for one in ids]


_FORMATS: dict[str, Callable[[str], list[str]]] = {".csv": _csv_column, ".jsonl": _json_lines}
