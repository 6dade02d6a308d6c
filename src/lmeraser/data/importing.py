"""Import of records: the rows of a source are added to the database, all of them or none.

Rules:
- an import is one transaction: if it is interrupted or refused, it leaves nothing behind and can be repeated;
- a row that exists already with the same content is counted as present, not added again;
- a row whose id, subject or image was deleted here is counted as suppressed, unless adding it again is allowed;
- all faults of a source are collected before it is refused;
- a record whose image the backbone was trained on is counted, or a fault if requested (paper, Eq. 2);
- the first import fixes the list of classes; later ones must fit it.

Rows are streamed in chunks, so memory does not grow with the source.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime

from sqlalchemy import Connection

from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent, track
from lmeraser.data.provenance import PublicImages
from lmeraser.data.records import Record, Records
from lmeraser.data.sources import Row, Source, check_row, chunks
from lmeraser.data.suppression import SuppressedKind
from lmeraser.errors import InputError, SourceError
from lmeraser.evidence.entries import RecordsAdded
from lmeraser.evidence.ledger import Ledger
from lmeraser.evidence.reconcile import digest_of

_LONGEST_NAME = 1024
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
    """

    added: int = 0
    present: int = 0
    suppressed: int = 0
    skipped: int = 0
    public: int | None = None
    faults: list[str] = field(default_factory=list)

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
    with records.database.transaction() as connection:
        entry = ledger.next_position(connection)
        commitments: list[Digest] = []
        classes = _fix_classes(records, source, connection, extend=extend_classes)
        checker = _Checker(records, source.classes, classes, allow_deleted, public, refuse_public)
        rows = track(source.rows, "importing records", source.length, progress)
        for chunk in chunks(rows):
            good = checker.check(chunk, report)
            commitments += records.insert(connection, good, entry=entry)
            report.added += len(good)
        if report.faults and not skip_bad:
            raise SourceError(
                "Nothing was added, because the source has faulty rows",
                faults=report.faults,
                next_step=f"correct {source.name}, or leave these rows out with --skip-bad",
            )
        if report.added:
            records.changes.record(connection)
            records.suppression.remove(connection, checker.restored)
            added = RecordsAdded(
                records=report.added,
                deleted_before=len(checker.restored["record"]),
                commitments=digest_of(commitments),
            )
            ledger.note(connection, added, now=now)
    report.skipped = len(report.faults)
    return report


def _fix_classes(records: Records, source: Source, connection: Connection, *, extend: bool) -> tuple[str, ...]:
    known = records.classes
    if not known:
        if not source.classes:
            raise InputError(
                "The classes are unknown",
                got=f"neither {source.name} nor the workspace names any",
                next_step="set them with 'lmeraser init --classes A,B,...' or 'lmeraser classes --add A,B,...'",
            )
        records.set_classes(source.classes, connection)
        return source.classes
    if new := [name for name in source.classes if name not in known]:
        if not extend:
            raise InputError(
                "The source has classes that the workspace does not know",
                got=f"{', '.join(new)} (known: {', '.join(known)})",
                next_step="extend the list with --extend-classes; all clusters will be tuned again",
            )
        records.set_classes([*known, *new], connection)
        return (*known, *new)
    return known


def _names(record: Record) -> dict[SuppressedKind, str]:
    """The names under which a record may be on the suppression list."""
    names: dict[SuppressedKind, str] = {"record": record.id, "image": str(Digest.of(record.image))}
    return names | ({"subject": record.subject} if record.subject else {})


class _Checker:
    """Turns rows into new records, and counts or reports all others."""

    def __init__(
        self,
        records: Records,
        source_classes: Sequence[str],
        classes: Sequence[str],
        allow_deleted: bool,
        public: PublicImages | None,
        refuse_public: bool,
    ) -> None:
        self._records = records
        self._source_classes = source_classes
        self._classes = classes
        self._allow = allow_deleted
        self._public = public
        self._refuse_public = refuse_public
        self._seen: dict[str, int] = {}
        self.restored: dict[SuppressedKind, list[str]] = {"record": [], "subject": [], "image": []}

    def check(self, rows: Sequence[Row], report: ImportReport) -> list[Record]:
        """The new records among ``rows``; all other rows go into the report."""
        pairs = [(row, self._record(row)) for row in rows]
        usable = [checked for _, checked in pairs if isinstance(checked, Record)]
        known = self._records.find(record.id for record in usable)
        names = {record.id: _names(record) for record in usable}
        suppressed = {kind: self._suppressed(kind, names.values()) for kind in self.restored}
        good = []
        for row, checked in pairs:
            if isinstance(checked, str):
                report.faults.append(f"row {row.position} (id {row.id!r}): {checked}")
                continue
            if row.id in known:
                self._compare(checked, known[row.id], row, report)
                continue
            found = {kind: name for kind, name in names.get(row.id, {}).items() if name in suppressed[kind]}
            if found and not self._allow:
                report.suppressed += 1
                continue
            if self._is_refused_as_public(row, checked, report):
                continue
            for kind, name in found.items():
                self.restored[kind].append(name)
            good.append(checked)
        return good

    def _is_refused_as_public(self, row: Row, record: Record, report: ImportReport) -> bool:
        """Whether a record is refused because its image is public; if such images are allowed, it is counted."""
        match = self._public.find(record.image) if self._public is not None else None
        if match is None:
            return False
        if self._refuse_public:
            report.faults.append(f"row {row.position} (id {row.id!r}): {_PUBLIC[match]}")
            return True
        report.public = (report.public or 0) + 1
        return False

    def _suppressed(self, kind: SuppressedKind, names: Iterable[Mapping[SuppressedKind, str]]) -> set[str]:
        """Those names of one kind that are on the suppression list."""
        return self._records.suppression.find(kind, {of_record[kind] for of_record in names if kind in of_record})

    def _record(self, row: Row) -> Record | str:
        """The record of a row, or what is wrong with the row."""
        for what, name in (("an id", row.id), ("a subject", row.subject)):
            if name is not None and not (0 < len(name) <= _LONGEST_NAME and name.isprintable()):
                return f"{what} must have 1 to {_LONGEST_NAME} printable characters"
        if row.id in self._seen:
            return f"the same id as row {self._seen[row.id]}; choose another --id-column, or --positions"
        self._seen[row.id] = row.position
        example = check_row(row, self._source_classes, self._classes)
        return example if isinstance(example, str) else Record(row.id, row.subject, example.label, example.image)

    @staticmethod
    def _compare(record: Record, known: tuple[str | None, int, Digest], row: Row, report: ImportReport) -> None:
        if known == (record.subject, record.label, Digest.of(record.image)):
            report.present += 1
        else:
            report.faults.append(
                f"row {row.position} (id {row.id!r}): this id exists with another image, label or subject"
            )
