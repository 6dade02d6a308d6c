"""Import of records: the rows of a source are added to the database, all of them or none.

Rules:
- an import is one transaction: if it is interrupted or refused, it leaves nothing behind and can be repeated;
- ids are stored in their canonical form (`canonical_names`), and subjects are compared by theirs; ids of one
  source that differ in white space alone stay as they are written, and all names that a source spells in several
  ways are reported;
- a row that exists already with the same content is counted as present, not added again;
- a row whose id, subject or image was deleted here is counted as suppressed, unless adding it again is allowed;
- all faults of a source are collected before it is refused;
- a record whose image the backbone was trained on is counted, or a fault if requested (paper, Eq. 2);
- the first import fixes the list of classes; later ones must fit it.

Rows are streamed in chunks, so memory does not grow with the source.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent, track
from lmeraser.data.canonical_names import (
    canonical_name,
    canonical_or_none,
    class_key,
    find_class,
    spellings,
)
from lmeraser.data.provenance import PublicImages
from lmeraser.data.records import Record, Records
from lmeraser.data.rows import describe_fault
from lmeraser.data.sources import Row, Source, check_row, row_chunks
from lmeraser.data.suppression import SuppressedKind
from lmeraser.errors import InputError, SourceError
from lmeraser.evidence.entries import RecordsAdded
from lmeraser.evidence.ledger import Ledger
from lmeraser.evidence.reconcile import digest_of
from lmeraser.storage.database import SlotDraw

_Known = tuple[str | None, int, Digest]  # subject, label and image digest of a record that is held
_FRACTION_OF_A_WHOLE = re.compile(r"(?<=[0-9])\.0$")  # of a number that a table made a float
_SHOWN_CLASSES = 5
_MISSING = frozenset({"nan", "na", "n/a", "#n/a", "<na>", "nat", "null", "nil", "none", "undefined"})  # as texts
_SEPARATORS = re.compile(r"[;|,&+/]| and ")  # of several names in one cell
_UNKNOWN_LENGTH = 1 << 16  # rows to draw numbers for where a source does not tell; unused ones take no space
_PUBLIC = {
    "file": "the backbone was trained on this file",
    "pixels": "the backbone was trained on the same pixels in another file",
}


@dataclass
class ImportReport:
    """Result of an import.

    Attributes:
        added: number of new records.
        present: number of rows that existed already.
        suppressed: number of rows that were left out because they were deleted here before.
        skipped: number of faulty rows that were left out.
        public: number of new records whose image the backbone was trained on; None: unknown, because the backbone
            does not list its public images.
        faults: a line for each faulty row.
        spellings: a line for each subject that is written in several ways, and for each group of ids that differ
            in white space alone.
        passed_over: how many files and folders of each kind were in the source and are no images.
        hints: what to check about the source, for example a column that looks like subjects and was not used.
        duplicates: number of new records with the same payload, byte for byte, as a record that was there before
            them, under whichever id and subject.
    """

    added: int = 0
    present: int = 0
    suppressed: int = 0
    skipped: int = 0
    public: int | None = None
    faults: list[str] = field(default_factory=list)
    spellings: list[str] = field(default_factory=list)
    passed_over: dict[str, int] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    duplicates: int = 0

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return asdict(self)


def import_records(
    records: Records,
    source: Source,
    *,
    ledger: Ledger,
    now: datetime,
    extend_classes: bool = False,
    allow_deleted: bool = False,
    skip_bad: bool = False,
    public: PublicImages | None = None,
    refuse_public: bool = False,
    progress: Progress = silent,
) -> ImportReport:
    """Add the rows of ``source``.

    Args:
        records: of the workspace.
        source: to import.
        ledger: gets an entry in the same transaction.
        now: the time.
        extend_classes: append classes of the source that the workspace does not know.
        allow_deleted: add records again whose id, subject or image was deleted here.
        skip_bad: leave faulty rows out and count them, instead of refusing the source.
        public: the images that the backbone was trained on; None: unknown.
        refuse_public: treat new records whose image is one of them as faulty.
        progress: called with the number of rows read.

    Raises:
        SourceError: the source has faulty rows (all are listed); nothing was added.
        InputError: the classes of the source do not fit, or ``refuse_public`` without known public images.
        StorageError: the database could not be written; nothing was added.
    """
    if refuse_public and public is None:
        raise InputError(
            "Public images of the backbone are unknown",
            got="the backbone has no list of the images it was trained on",
            next_step="use a backbone made by 'lmeraser pretrain', or add the records without --refuse-public",
        )
    report = ImportReport(public=None if public is None else 0)
    with records.database.transaction() as connection, records.database.keeping_pages(connection):
        entry = ledger.next_position(connection)
        commitments: dict[str, Digest] = {}
        before = records.classes
        classes = _fix_classes(records, source, connection, extend=extend_classes)
        checker = _Checker(records, source, classes, allow_deleted, public, refuse_public)
        slots = SlotDraw(records.database, connection, source.length or _UNKNOWN_LENGTH)
        rows = track(source.rows, "importing records", source.length, progress)
        for chunk in row_chunks(rows):
            good = checker.check(chunk, report)
            report.duplicates += _count_duplicates(records, good, connection)
            new = records.insert(connection, good, entry=entry, slots=slots)
            commitments.update(zip((record.id for record in good), new, strict=True))
            report.added += len(good)
        if report.faults and not skip_bad:
            raise SourceError(
                "Nothing was added, because the source has faulty rows",
                faults=report.faults,
                next_step=f"correct {source.name}, or leave these rows out with --skip-bad",
            )
        renamed, apart = checker.padded_ids(commitments)
        for old, new_id in renamed.items():
            commitments[new_id] = records.rename(connection, old, new_id, entry=entry)
            del commitments[old]
        if apart:
            records.names.note_spelled_ids(connection)
        report.spellings = [*_kept_apart(apart), *checker.subjects_in_several_spellings(entry, connection)]
        if report.added:
            records.changes.record(connection)
            records.suppression.remove(connection, checker.restored)
            added = RecordsAdded(
                records=report.added,
                deleted_before=checker.restored_ids,
                commitments=digest_of(commitments.values()),
            )
            ledger.note(connection, added, now=now)
    report.skipped = len(report.faults)
    report.passed_over = dict(source.passed_over)
    report.hints = [*source.hints]
    if not before and not source.classes:
        report.hints.append(
            f"the classes are named by the numbers of the labels ({_few(classes)}); to name them otherwise, make "
            "a new workspace with 'lmeraser init --classes'"
        )
    report.hints += [*_classes_alike(before, classes), *checker.subjects_of_several_names()]
    report.hints += _named_as_missing(before, classes, checker.new_subjects)
    return report


def _count_duplicates(records: Records, added: Sequence[Record], connection: Connection) -> int:
    """How many of these new records have the payload of one that is held, or of one before them."""
    payloads = [Digest.of(record.payload) for record in added]
    held = set(records.count_held(set(payloads), connection))
    return len(payloads) - len(set(payloads) - held)


def _fix_classes(records: Records, source: Source, connection: Connection, *, extend: bool) -> tuple[str, ...]:
    known = records.classes
    if not known:
        if not source.classes and source.length == 0:
            raise InputError("Source without rows", got=source.name, next_step="give at least one row")
        named = source.classes or source.numbers
        if not named:
            raise InputError(
                "The classes are unknown",
                got=f"neither {source.name} nor the workspace names any",
                next_step="set them with 'lmeraser init --classes A,B,...' or 'lmeraser classes --add A,B,...'",
            )
        classes = tuple(_first_spellings(named))
        records.set_classes(classes, connection)
        return classes
    if new := [name for name in _first_spellings(source.classes) if find_class(name, known) is None]:
        if not extend:
            raise InputError(
                "The source has classes that the workspace does not know",
                got=f"{', '.join(new)} (known: {', '.join(known)})",
                next_step="extend the list with --extend-classes; all clusters will be tuned again",
            )
        records.set_classes([*known, *new], connection)
        return (*known, *new)
    return known


def _first_spellings(classes: Sequence[str]) -> list[str]:
    """Names of classes, each in its first spelling (`canonical_names.class_key`)."""
    first: dict[str, str] = {}
    for name in classes:
        first.setdefault(class_key(name), name)
    return list(first.values())


def _few(names: Sequence[str]) -> str:
    return ", ".join([*names[:_SHOWN_CLASSES], *(["..."] if len(names) > _SHOWN_CLASSES else [])])


def _classes_alike(before: Collection[str], classes: Sequence[str]) -> list[str]:
    """A line for each group of classes, one of them new, that differ only in case, white space, -, _ or .0."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        folded = _FRACTION_OF_A_WHOLE.sub("", unicodedata.normalize("NFKC", name).casefold())
        groups.setdefault("".join(folded.replace("-", " ").replace("_", " ").split()), []).append(name)
    return [
        f"the classes {', '.join(map(repr, group))} are different classes; if they are one, give them one name in "
        "the source, and import it into a new workspace"
        for group in groups.values()
        if len(group) > 1 and not set(group).issubset(before)
    ]


def _named_as_missing(before: Collection[str], classes: Iterable[str], subjects: Iterable[str]) -> list[str]:
    """A line about new classes, and one about subjects, that other programs write where a value is missing."""
    lines = []
    if found := [name for name in classes if name not in before and name.casefold() in _MISSING]:
        lines.append(
            f"the classes {', '.join(map(repr, found))} are written as missing labels are; if they are none, "
            "leave these cells empty in the source, and import it into a new workspace with --skip-bad"
        )
    if found := sorted(name for name in subjects if name.casefold() in _MISSING):
        lines.append(
            f"the subjects {', '.join(map(repr, found))} are written as missing names are, and each counts as one "
            "person; leave these cells empty in the source where nobody is named"
        )
    return lines


@dataclass(frozen=True)
class _RowNames:
    """The names under which a row's record may be held, or on the suppression list.

    Attributes:
        exact: its id as it is written.
        other: its id in other spellings: the canonical form, and what versions before 0.2 would have stored.
        subject: its subject in all of these spellings.
        image: digest of its image.
    """

    exact: tuple[str, ...]
    other: tuple[str, ...]
    subject: frozenset[str]
    image: str

    @classmethod
    def of(cls, row: Row, record: Record) -> _RowNames:
        exact = (record.id,) if row.id == record.id else (row.id, record.id)
        other = sorted({*spellings(record.id), row.earlier_id or record.id}.difference(exact))
        subject = record.subject
        subjects = {*spellings(subject), row.earlier_subject or subject} if subject is not None else ()
        return cls(exact, tuple(other), frozenset(subjects), str(Digest.of(record.payload)))

    @property
    def suppressible(self) -> dict[SuppressedKind, frozenset[str]]:
        """The names by the kinds of the suppression list."""
        return {
            "record": frozenset((*self.exact, *self.other)),
            "subject": self.subject,
            "image": frozenset((self.image,)),
        }


def _kept_apart(groups: Iterable[Sequence[str]]) -> list[str]:
    """A line for each group of ids that differ in white space alone."""
    return [f"ids {', '.join(map(ascii, ids))} differ in white space alone, and stay different" for ids in groups]


class _Checker:
    """Turns rows into new records, and counts or reports all others."""

    def __init__(
        self,
        records: Records,
        source: Source,
        classes: Sequence[str],
        allow_deleted: bool,
        public: PublicImages | None,
        refuse_public: bool,
    ) -> None:
        self._records = records
        self._source = source
        self._classes = classes
        self._allow = allow_deleted
        self._public = public
        self._refuse_public = refuse_public
        self._none_held = not records.count()  # before this import, with which nobody interferes
        self._seen: dict[str, int] = {}
        self._padded: dict[str, list[str]] = {}  # ids with white space around them, by their canonical form
        self._subjects: dict[str, set[str]] = {}  # spellings of the subjects of new records, by canonical form
        self.restored: dict[SuppressedKind, list[str]] = {"record": [], "subject": [], "image": []}
        self.restored_ids = 0

    def check(self, rows: Sequence[Row], report: ImportReport) -> list[Record]:
        """The new records among ``rows``; all other rows go into the report.

        A new record has its id as it is written, and in NFC; `padded_ids` says later which of these are changed.
        """
        pairs = [(row, self._record(row)) for row in rows]
        names = {found.id: _RowNames.of(row, found) for row, found in pairs if isinstance(found, Record)}
        ways = (name for each in names.values() for name in (*each.exact, *each.other))
        known = {} if self._none_held else self._records.find(ways)
        listed = {kind: self._suppressed(kind, names.values()) for kind in self.restored}
        good = []
        for row, checked in pairs:
            if isinstance(checked, str):
                report.faults.append(describe_fault(row, checked))
                continue
            its_names = names[checked.id]
            held = _held_as(its_names, known, listed["record"])
            if held is not None and not self._is_another(checked, row, held, known):
                self._compare(checked, known[held], row, held, report)
                continue
            on_lists = {kind: its & listed[kind] for kind, its in its_names.suppressible.items()}
            found = {kind: on_list for kind, on_list in on_lists.items() if on_list}
            if found and not self._allow:
                report.suppressed += 1
                continue
            if self._is_refused_as_public(row, checked, report):
                continue
            for kind, on_list in found.items():
                self.restored[kind] += sorted(on_list)
            self.restored_ids += "record" in found
            if checked.subject is not None:
                self._subjects.setdefault(canonical_name(checked.subject), set()).add(checked.subject)
            good.append(checked)
        return good

    def padded_ids(self, added: Container[str]) -> tuple[dict[str, str], list[list[str]]]:
        """What becomes of new ids with white space around them, once all rows were checked.

        Args:
            added: ids of the records that were added.

        Returns:
            The canonical form of each id that can have it; and, for all others, the ids from which it differs in
            white space alone, together with it.
        """
        held = self._records.find(self._padded)
        renamed: dict[str, str] = {}
        apart: list[list[str]] = []
        for canonical, ids in self._padded.items():
            taken = canonical in held or canonical in self._seen
            if len(ids) > 1 or taken:
                if any(one in added for one in (canonical, *ids)):
                    apart.append(sorted([*ids, *([canonical] if taken else [])]))
            elif ids[0] in added:
                renamed[ids[0]] = canonical
        return renamed, apart

    def subjects_in_several_spellings(self, entry: int, connection: Connection) -> list[str]:
        """A line for each subject of new records that is written in several ways, here or in earlier imports."""
        for subject, spelling in self._records.names.subjects_before(self._subjects, entry, connection):
            self._subjects[subject].add(spelling)
        several = {subject: ways for subject, ways in sorted(self._subjects.items()) if len(ways) > 1}
        return [
            f"subject {subject!r} is written in {len(ways)} ways, which name one subject: "
            + ", ".join(map(ascii, sorted(ways)))
            for subject, ways in several.items()
        ]

    @property
    def new_subjects(self) -> Collection[str]:
        """The subjects of new records, in canonical form."""
        return self._subjects

    def subjects_of_several_names(self) -> list[str]:
        """A line about subjects of new records that look like a list of people, as one cell may hold it."""
        parts = {subject: [part.strip() for part in _SEPARATORS.split(subject)] for subject in self._subjects}
        several = [
            subject
            for subject, names in sorted(parts.items())
            if len(names) > 1
            and (";" in subject or "|" in subject or any(canonical_or_none(name) in parts for name in names))
        ]
        if not several:
            return []
        return [
            f"subjects that look like several people: {len(several)}, for instance {several[0]!r}; a record has "
            "one subject, and is found by all of it and not by a part: give each person's records a subject of "
            "their own"
        ]

    def _is_refused_as_public(self, row: Row, record: Record, report: ImportReport) -> bool:
        """Whether a record is refused because its image is public; if such images are allowed, it is counted."""
        match = self._public.find(record.payload) if self._public is not None else None
        if match is None:
            return False
        if self._refuse_public:
            report.faults.append(describe_fault(row, _PUBLIC[match]))
            return True
        report.public = (report.public or 0) + 1
        return False

    def _suppressed(self, kind: SuppressedKind, names: Iterable[_RowNames]) -> set[str]:
        """Those names of one kind that are on the suppression list."""
        return self._records.suppression.find(kind, {name for each in names for name in each.suppressible[kind]})

    def _record(self, row: Row) -> Record | str:
        """The record of a row, or what is wrong with the row."""
        record_id = unicodedata.normalize("NFC", row.id)
        try:
            what = "id"
            canonical = canonical_name(row.id)
            what = "subject"
            if row.subject is not None:
                canonical_name(row.subject)
        except ValueError as error:
            return row.fault or f"the {what} cannot be a name: {error}"
        if record_id in self._seen:
            return f"the same id as row {self._seen[record_id]}; choose another --id-column, or --positions"
        self._seen[record_id] = row.position
        if record_id != canonical:
            self._padded.setdefault(canonical, []).append(record_id)
        example = check_row(row, self._source.classes, self._classes, self._source.check)
        if isinstance(example, str):
            return example
        return Record(record_id, row.subject, example.label, example.payload)

    @staticmethod
    def _is_another(record: Record, row: Row, held: str, known: Mapping[str, _Known]) -> bool:
        """Whether a record whose id is a float as text (17.0) is not the record with that number."""
        return held == row.earlier_id and not _same(record, row, known[held])

    def _compare(self, record: Record, known: _Known, row: Row, held: str, report: ImportReport) -> None:
        differences = _differences(record, row, known, self._source.noun)
        if not differences:
            report.present += 1
            return
        spelled = f", as {held!a}," if held not in (row.id, record.id) else ""
        fault = f"this id exists{spelled} with another {' and '.join(differences)}"
        if row.id.endswith(f"-{row.position:08d}"):
            fault += "; it is the number of the row: name a column of ids with --id-column"
        report.faults.append(describe_fault(row, fault))


def _held_as(names: _RowNames, known: Container[str], suppressed: Container[str]) -> str | None:
    """The id under which a row's record is held: as it is written, or otherwise unless that was deleted."""
    exact = next((name for name in names.exact if name in known), None)
    if exact is not None or any(name in suppressed for name in names.exact):
        return exact
    return next((name for name in names.other if name in known), None)


def _same(record: Record, row: Row, known: _Known) -> bool:
    """Whether a row has the content of a record that is held."""
    return not _differences(record, row, known, "")


def _differences(record: Record, row: Row, known: _Known, noun: str) -> list[str]:
    """In what a row differs from a record that is held; ``noun`` is what its payload is called."""
    subject, label, image = known
    if subject is None or record.subject is None:
        same_subject = subject == record.subject
    else:
        same_subject = (canonical_or_none(subject) or subject) == canonical_name(record.subject)
        same_subject = same_subject or subject == row.earlier_subject
    same = (image == Digest.of(record.payload), label == record.label, same_subject)
    return [what for what, is_same in zip((noun, "label", "subject"), same, strict=True) if not is_same]
