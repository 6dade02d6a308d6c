"""Resolve the names of a deletion request to the records that it selects.

Rules:
- a name means what `NameLookup` finds for it: the id that is held exactly so, or else its canonical form;
- a name that was deleted here before is no error: repeating a request is harmless;
- a name that this workspace has never held is one, because it is probably a typing error;
- so is a name that means several: ids of several records, or a subject that is held in several spellings (before
  `lmeraser upgrade`), unless all of these spellings are named;
- all errors are reported at once, and nothing is deleted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from lmeraser.core.digests import parse_json
from lmeraser.data.canonical_names import as_text, show
from lmeraser.data.file_lists import stream_table, text_encoding
from lmeraser.data.name_lookup import NameKind, NearMiss
from lmeraser.data.records import Records
from lmeraser.errors import LISTED, AmbiguousNameError, InputError, UnknownRecordError, listing
from lmeraser.workspace.requests.draft import Selector


@dataclass(frozen=True)
class Selection:
    """What a request selects.

    Attributes:
        ids: records to delete, sorted.
        subjects: requested subjects that have records, sorted; they will be suppressed.
        already_deleted: requested ids and subjects that were deleted here before, sorted.
        duplicates: those of the records that were not named, but have the payload of one that was, sorted.
    """

    ids: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    already_deleted: tuple[str, ...] = ()
    duplicates: tuple[str, ...] = ()

    @classmethod
    def union(cls, selections: Sequence[Selection]) -> Selection:
        """What several requests select together."""

        def merged(attribute: str) -> tuple[str, ...]:
            return tuple(sorted(set().union(*(getattr(selection, attribute) for selection in selections))))

        return cls(merged("ids"), merged("subjects"), merged("already_deleted"), merged("duplicates"))


_DEEPEST_PATH = 16  # folders of a path that are compared
_LONGEST_NUMBER = 16  # digits, with zeros before it

# About names that mean nothing here, or several things: refuse them and list them with names that look alike;
# refuse them; or accept the others, so that no answer tells which names are held.
Unknown = Literal["explain", "refuse", "ignore"]


def resolve(records: Records, selector: Selector) -> Selection:
    """Find the records that a selector names. Raises as `held_names`."""
    return resolve_each(records, [held_names(records, selector)])[0]


def near_misses(records: Records, selector: Selector) -> tuple[NearMiss, ...]:
    """Names that are held here, look like a name of a selector, and are not selected.

    Raises as `held_names`.
    """
    held = held_names(records, selector)
    selection = resolve_each(records, [held])[0]
    ids = records.names.near_misses("id", selector.ids, meant=selection.ids)
    return (*ids, *records.names.near_misses("subject", selector.subjects, meant=held.subjects))


def held_names(records: Records, selector: Selector, *, unknown: Unknown = "explain") -> Selector:
    """The names of a selector as they are held here, whichever way it spells them.

    Args:
        records: where they are looked up.
        selector: record ids and subjects, as they were given.
        unknown: what to do about names that mean nothing here, or several things.

    Returns:
        The selector with the names of records as they are held, and names that were deleted before as given.

    Raises:
        InputError: the selector is empty.
        UnknownRecordError: ids or subjects that were never here, all of them listed with those that look alike.
        AmbiguousNameError: names mean several records or spellings, all of them listed.
            Neither is raised for single names if they are ignored.
    """
    if selector.empty:
        raise InputError(
            "No record or subject named",
            next_step="give --id, --subject or --ids-file (ids=, subjects= in Python)",
        )
    ids, subjects = _Names("id", "record id"), _Names("subject", "subject")
    for names, given in ((ids, selector.ids), (subjects, selector.subjects)):
        names.look_up(records, given)
    held = replace(selector, ids=tuple(sorted(ids.held)), subjects=tuple(sorted(subjects.held)))
    if unknown == "ignore":
        return held
    if ids.unknown or subjects.unknown:
        described = [names.describe_unknown(records) for names in (ids, subjects)] if unknown == "explain" else []
        raise UnknownRecordError(
            "Unknown record ids or subjects; nothing was deleted",
            got=listing([line for lines in described for line in lines]) if described else "",
            next_step="correct the request; record ids are those given at import, which 'lmeraser records' lists",
        )
    if ambiguous := [*ids.ambiguous, *subjects.ambiguous]:
        raise AmbiguousNameError(
            "Names that mean several records or spellings; nothing was deleted",
            got=listing(ambiguous),
            next_step="name each that is meant exactly as it is listed; 'lmeraser upgrade' merges subjects",
        )
    return held


class _Names:
    """What the names of one kind in a request mean.

    Attributes:
        held: names as they are held, and those that were deleted before as they were given.
        unknown: names that mean nothing.
        ambiguous: a line for each name that means several.
    """

    def __init__(self, kind: NameKind, words: str) -> None:
        self._kind = kind
        self._words = words
        self.held: set[str] = set()
        self.unknown: set[str] = set()
        self.ambiguous: list[str] = []

    def look_up(self, records: Records, given: Collection[str]) -> None:
        """Look up all names."""
        meanings = records.names.matches(self._kind, given)
        for name in sorted(given):
            meant = meanings.get(name, ())
            if len(meant) > 1 and not (self._kind == "subject" and set(meant).issubset(given)):
                spellings = ", ".join(map(ascii, meant))
                self.ambiguous.append(f"{self._words} {name!r} may be any of {spellings}")
                if self._kind == "id":  # several records; spellings of a subject are one name
                    continue
            self.held.update(meant)
        absent = set(given).difference(meanings)
        deleted = records.suppression.deleted("record" if self._kind == "id" else "subject", absent)
        self.held |= deleted
        self.unknown = absent - deleted

    def describe_unknown(self, records: Records) -> list[str]:
        """A line for each unknown name, with the names that are held and look like it."""
        alike = self._mistaken_ids(records)
        for miss in records.names.near_misses(self._kind, self.unknown):
            alike.setdefault(miss.given, []).append(show(miss.held, beside=miss.given))
        lines = []
        other: NameKind = "subject" if self._kind == "id" else "id"
        words = "subject" if other == "subject" else "record id"
        of_other_kind = records.names.matches(other, sorted(self.unknown)[:LISTED])
        for name in sorted(self.unknown):
            shown = list(dict.fromkeys(alike.get(name, ())))[:3]
            hint = f" (there is {', '.join(shown)})" if shown else ""
            hint = f" (there is a {words} of this name)" if name in of_other_kind and not shown else hint
            lines.append(f"{self._words} {name!r}{hint}")
        return lines

    def _mistaken_ids(self, records: Records) -> dict[str, list[str]]:
        """Ids held that unknown ones became on the way, in quotes.

        The id of a picture is its path inside its source, where a shell completes the path from the working
        directory; a spreadsheet drops the zeros before a number.
        """
        if self._kind != "id":
            return {}
        candidates = {
            name: [*_ends_of_path(name), *_with_other_zeros(name)] for name in sorted(self.unknown)[:LISTED]
        }
        found = records.names.matches("id", {each for names in candidates.values() for each in names})
        return {name: [repr(each) for each in names if each in found] for name, names in candidates.items()}


def _with_other_zeros(name: str) -> list[str]:
    """A number with fewer and with more zeros before it."""
    if not (name.isascii() and name.isdigit()):
        return []
    digits = name.lstrip("0")
    padded = [digits.zfill(length) for length in range(max(1, len(digits)), _LONGEST_NUMBER + 1)]
    return [each for each in padded if each != name]


def _ends_of_path(name: str) -> list[str]:
    """The ends of a path, the longest first, as Unix and Windows write them, but not the path itself."""
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")][-_DEEPEST_PATH:]
    ends = [separator.join(parts[start:]) for start in range(len(parts)) for separator in "/\\"]
    return [end for end in dict.fromkeys(ends) if end != name]


def resolve_each(records: Records, selectors: Sequence[Selector]) -> list[Selection]:
    """Find the records of each of several selectors from `held_names`, with one look at the database.

    Names are checked when a request is accepted; those that are no longer here count as deleted. (The records of a
    subject may have been deleted by their ids, and nothing remembers the subject then.)
    """
    ids = {name for selector in selectors for name in (*selector.ids, *selector.known_duplicates)}
    subjects = {name for selector in selectors for name in selector.subjects}
    held = set(records.find(ids))
    of_subjects = records.of_subjects(subjects)
    named = [_selection(selector, held, of_subjects) for selector in selectors]
    pairs = zip(selectors, named, strict=True)
    return [_with_duplicates(records, selector, selection, held) for selector, selection in pairs]


def _with_duplicates(records: Records, selector: Selector, selection: Selection, held: set[str]) -> Selection:
    """The selection with the records that have the payload of one of it, if the selector asks for them."""
    if not selector.duplicates:
        return selection
    found = set().union(*records.duplicates(selection.ids).values(), held.intersection(selector.known_duplicates))
    duplicates = found.difference(selection.ids)
    ids = tuple(sorted(duplicates.union(selection.ids)))
    return replace(selection, ids=ids, duplicates=tuple(sorted(duplicates)))


def _selection(selector: Selector, held: set[str], of_subjects: Mapping[str, Sequence[str]]) -> Selection:
    ids = set(selector.ids)
    subjects = set(selector.subjects)
    present = subjects & of_subjects.keys()
    selected = (ids & held).union(*(of_subjects[subject] for subject in present))
    deleted = (ids - held) | (subjects - present)
    return Selection(tuple(sorted(selected)), tuple(sorted(present)), tuple(sorted(deleted)))


def read_ids(path: Path) -> list[str]:
    """Record ids from a file; what is in it is what is named, nothing is trimmed and nothing is a comment.

    - ``NAME.csv``: the column ``id`` of a CSV file with a header (`data.file_lists` has the rules);
    - ``NAME.jsonl``: a JSON text or whole number per line, or an object with the field ``id``;
    - any other file: every line is one id, without its line end; empty lines are skipped.

    All are UTF-8, or UTF-16 with a byte order mark, as PowerShell writes it.

    Raises:
        InputError: the file cannot be read in its format, or holds no id.
    """
    suffix = path.suffix.lower()
    try:
        if suffix == ".csv":
            ids = _csv_column(path)
        else:
            text = path.read_bytes().decode(text_encoding(path))
            ids = _json_lines(text) if suffix == ".jsonl" else _lines(text)
    except (OSError, ValueError) as error:
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


def _csv_column(path: Path) -> list[str]:
    ids = []
    for number, row in enumerate(stream_table(path), 1):
        if "id" not in row:
            raise ValueError(f"no column 'id' (there are: {', '.join(row)})")
        if row["id"] is None:
            raise ValueError(f"row {number} has no id")
        ids.append(row["id"])
    return ids


def _json_lines(text: str) -> list[str]:
    ids = []
    for number, line in enumerate(_lines(text), 1):
        try:
            one = parse_json(line.encode())
            if isinstance(one, dict) and "id" in one:
                one = one["id"]
            ids.append(as_text(one))
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from error
        if one == "":
            raise ValueError(f"line {number} has no id")
    return ids
