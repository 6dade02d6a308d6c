"""Private records: the data that the training function is applied to.

A record is an id, an optional subject (the person it is about), a label and a payload, for instance the bytes of
an image file. `Records` holds metadata and payloads, and the parts of the workspace that have to change together
with them in one transaction:

- ``names``: which records a name means, however it is spelled;
- ``suppression``: keyed digests of deleted ids, subjects and images, which must not come back with a later import;
- ``commitments``: how the ledger refers to records without revealing them once they are deleted;
- ``derived``: features and trie keys, each derived from one record alone;
- ``statistics``: quantized embeddings and their sufficient statistics;
- ``changes``: the change log, which tells a derivation what it may skip.

Deleting a record deletes everything that belongs to it, by foreign key, and erases its key, under which all of it
but the trie keys is encrypted.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from operator import attrgetter
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, func, insert, select, update

from lmeraser.core.digests import Digest
from lmeraser.data.canonical_names import canonical_name, class_key
from lmeraser.data.changelog import ChangeLog
from lmeraser.data.commitments import Commitments, commitment
from lmeraser.data.derived import DerivedValues
from lmeraser.data.identities import RecordIndex, RecordMetadata, records_table
from lmeraser.data.name_lookup import NameLookup
from lmeraser.data.references import RecordRef
from lmeraser.data.statistics import StatisticsStore
from lmeraser.data.suppression import SuppressionList
from lmeraser.errors import CorruptError, InputError, UnknownRecordError
from lmeraser.storage.database import Database, SlotDraw, chunked, encrypted, per_record_table

_READ_AHEAD = 256  # records, where most likely not all of them are needed
_PAYLOADS_AT_ONCE = 32  # in memory while they are compared with their digests

_images = per_record_table("images", encrypted("data", what="images"))


@dataclass(frozen=True, slots=True)
class Record:
    """One private record with its payload."""

    id: str
    subject: str | None
    label: int
    payload: bytes


class HeldRecord(NamedTuple):
    """A record without its payload.

    Attributes:
        id: its id.
        subject: the person it is about, as its source spells the name.
        label: index of its class.
        payload_digest: of its payload.
        entry: position of the ledger's entry about its addition, or about its last label.
    """

    id: str
    subject: str | None
    label: int
    payload_digest: Digest
    entry: int


def check_classes(classes: Sequence[str], known: Sequence[str] = ()) -> None:
    """Refuse a list of classes that cannot be a workspace's.

    Args:
        classes: all names.
        known: those that the workspace has; they stay as they are, whatever version 0.1 allowed.

    Raises:
        InputError: there is none, two are the same, or a new one cannot be a name (`canonical_names`).
    """
    if others := [name for name in classes if not isinstance(name, str)]:
        raise InputError(
            "Name of a class is not a text",
            got=f"{others[0]!r} of type {type(others[0]).__name__}",
            next_step="give texts; a class that is a number is the text that it is written as",
        )
    keys = {class_key(name) for name in known}  # fewer than names, if version 0.1 took two spellings of one
    new = [name for name in classes if name not in known]
    repeated = len(set(classes)) != len(classes) or len(keys.union(map(class_key, new))) != len(keys) + len(new)
    if not classes or repeated or not all(classes):
        raise InputError(
            "Names of classes are missing, empty or repeated",
            got=repr(list(classes)),
            next_step="give each class once, by a name that is not empty",
        )
    for name in new:
        try:
            canonical_name(name)
        except ValueError as error:
            raise InputError(
                "Name of a class that cannot be one", got=f"{name!a}: {error}", next_step="rename the class"
            ) from error


class Records:
    """The records of one workspace.

    Args:
        database: of the workspace.
        secret: key of the digests by which records are found and suppressed.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self.database = database
        self._index = RecordIndex(database, secret=secret)
        self.suppression = SuppressionList(database, secret=secret)
        self.names = NameLookup(self._index, self.suppression)
        self.commitments = Commitments(self._index)
        self.derived = DerivedValues(self._index)
        self.statistics = StatisticsStore(self._index)
        self.changes = ChangeLog(database)

    # --- classes ---------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names, in the order of the labels; empty until the first import fixes them."""
        value = self.database.get_metadata("classes")
        return tuple(json.loads(value)) if value else ()

    def set_classes(self, classes: Sequence[str], connection: Connection | None = None) -> None:
        """Fix or extend the list of classes.

        Raises:
            InputError: as of `check_classes`, or a known class would move or disappear.
        """
        known = self.classes
        check_classes(classes, known)
        if tuple(classes[: len(known)]) != known:
            raise InputError(
                "Known classes removed or reordered",
                got=f"{list(classes)!r} (known: {list(known)!r})",
                next_step="give the known classes first, in their order; a list of classes can only be extended",
            )
        if tuple(classes) == known:
            return
        with self.database.transaction(connection) as inner:
            self.database.set_metadata(inner, "classes", json.dumps(list(classes)))
            self.changes.record(inner)

    # --- reading ---------------------------------------------------------------------------------------

    def count(self) -> int:
        """Number of records."""
        return self._scalar(select(func.count()).select_from(records_table))

    def count_subjects(self) -> int:
        """Number of different subjects."""
        return self._scalar(select(func.count(records_table.c.subject.distinct())))

    def index(self) -> list[RecordRef]:
        """References to all records, sorted by id (by code points, as Python sorts)."""
        found = self._index.read_all()
        refs = [RecordRef(each.id, each.label, each.payload_digest, number) for number, each in found]
        return sorted(refs, key=attrgetter("id"))

    def unchanged(self, records: Iterable[RecordRef]) -> AbstractContextManager[None]:
        """A context in which these records are found faster, because nobody deletes or relabels any.

        Args:
            records: as `index` returned them since the caller holds the writer's lock.
        """
        return self._index.knowing({each.id: each.number for each in records})

    def labels_apart_from(self, ids: Container[str], labels: Iterable[int]) -> set[int]:
        """Those of some labels that other records than these have; reads no more records than that takes."""
        wanted = frozenset(labels)
        keys = self.database.keys
        query = select(records_table.c.number, records_table.c.card).execution_options(yield_per=_READ_AHEAD)

        def read(connection: Connection) -> set[int]:
            missing = set(wanted)
            with connection.execute(query) as rows:
                for row in rows if missing else ():
                    each = RecordMetadata.decrypt(keys, row)
                    if each.label in missing and each.id not in ids:
                        missing.remove(each.label)
                        if not missing:
                            break
            return set(wanted - missing)

        return self.database.read_consistently(read)

    def refs(self, ids: Iterable[str]) -> list[RecordRef]:
        """References to these records, sorted by id."""
        return sorted(RecordRef(i, label, digest) for i, (_, label, digest) in self.find(ids).items())

    def find(self, ids: Iterable[str]) -> dict[str, tuple[str | None, int, Digest]]:
        """Subject, label and payload digest of those ids that exist."""
        return {each.id: (each.subject, each.label, each.payload_digest) for each in self._index.find("id", ids)}

    def held(self, ids: Iterable[str] | None = None) -> list[HeldRecord]:
        """Those of these records that exist, without their payloads, sorted by id; None: all records."""
        keys = self.database.keys
        query = select(records_table.c.id, records_table.c.number, records_table.c.card, records_table.c.entry)

        def read(row: Any) -> HeldRecord:
            return HeldRecord(*RecordMetadata.decrypt(keys, row), row.entry)

        if ids is None:
            return sorted(self.database.fetch(query, read))
        return sorted(self._index.select_by_id(query, set(ids), lambda _, row: read(row)))

    def of_subjects(self, subjects: Iterable[str]) -> dict[str, list[str]]:
        """Record ids of each subject that has any, sorted; see `NameLookup.ids_of_subjects`."""
        return self.names.ids_of_subjects(subjects)

    def duplicates(self, ids: Iterable[str], connection: Connection | None = None) -> dict[str, set[str]]:
        """Ids of the other records with the same payload, byte for byte, of each of these that has any.

        Args:
            ids: record ids; a duplicate may be one of them, too.
            connection: an open one to use.
        """
        payloads = {each.id: each.payload_digest for each in self._index.find("id", ids, connection)}
        holders: dict[Digest, set[str]] = {}
        for each in self._index.find("payload", set(payloads.values()), connection):
            holders.setdefault(each.payload_digest, set()).add(each.id)
        found = {record_id: holders[payload] - {record_id} for record_id, payload in payloads.items()}
        return {record_id: others for record_id, others in found.items() if others}

    def count_held(self, payloads: Iterable[Digest], connection: Connection | None = None) -> Counter[Digest]:
        """How many records hold each of these payloads, given by their digests."""
        return Counter(each.payload_digest for each in self._index.find("payload", payloads, connection))

    def bring_up_to_date(self) -> None:
        """After an upgrade: compute what finds records by their payload, and draw the numbers of older records."""
        with self.database.transaction() as connection:
            self._index.index_payloads(connection)
        self._index.draw_numbers()

    def payloads(self, ids: Sequence[str]) -> list[bytes]:
        """Payloads of ``ids``, in their order, each compared with the digest in its record's metadata.

        Raises:
            UnknownRecordError: there is no such record.
            CorruptError: a payload is missing, or is not the one that was added with its record.
        """
        found = self._payloads(ids)
        for record_id in ids:
            if record_id not in found:
                raise UnknownRecordError(
                    "Record not found", got=repr(record_id), next_step="it may have been deleted; run this again"
                )
            if found[record_id] is None:
                raise CorruptError(
                    "Payload does not match its record",
                    got=f"record {record_id!r}: the payload is missing or has another digest",
                    next_step="restore the workspace from a backup, or delete the record",
                )
        return [data for record_id in ids if (data := found[record_id]) is not None]

    def mismatched(self, ids: Sequence[str]) -> list[str]:
        """Those of these records whose payload is missing or is not the one that was added with them."""
        wrong: list[str] = []
        for start in range(0, len(ids), _PAYLOADS_AT_ONCE):
            found = self._payloads(ids[start : start + _PAYLOADS_AT_ONCE])
            wrong += [record_id for record_id, data in found.items() if data is None]
        return wrong

    def _payloads(self, ids: Iterable[str]) -> dict[str, bytes | None]:
        """Payloads of those ids that exist; None where it is missing or has another digest than the metadata."""
        keys = self.database.keys
        columns = (records_table.c.id, records_table.c.number, records_table.c.card, _images.c.data)
        query = select(*columns).join_from(records_table, _images, isouter=True)

        def check(record_id: str, row: Any) -> tuple[str, bytes | None]:
            expected = RecordMetadata.decrypt(keys, row).payload_digest
            data = None if row.data is None else keys.decrypt(row.number, _images.name, row.data)
            return record_id, data if data is not None and Digest.of(data) == expected else None

        return dict(self._index.select_by_id(query, ids, check))

    # --- changing --------------------------------------------------------------------------------------

    def insert(
        self, connection: Connection, records: Sequence[Record], *, entry: int, slots: SlotDraw | None = None
    ) -> list[Digest]:
        """Add records whose ids are known to be new, inside the caller's transaction.

        Args:
            connection: of the transaction.
            records: what to add.
            entry: position of the ledger entry that reports the addition.
            slots: gives the records of one import their numbers; None: these are all.

        Returns:
            The commitment of each.
        """
        if not records:
            return []
        keys = self.database.keys
        numbers = (slots or SlotDraw(self.database, connection, len(records))).take(len(records))
        metadata = [RecordMetadata(r.id, r.subject, r.label, Digest.of(r.payload)) for r in records]
        rows = [self._index.make_row(number, each, entry) for number, each in zip(numbers, metadata, strict=True)]
        connection.execute(insert(records_table), rows)
        images = [
            {"number": number, "data": keys.encrypt(number, "images", record.payload)}
            for number, record in zip(numbers, records, strict=True)
        ]
        connection.execute(insert(_images), images)
        return [commitment(keys, number, entry, each) for number, each in zip(numbers, metadata, strict=True)]

    def rename(self, connection: Connection, old: str, new: str, *, entry: int) -> Digest:
        """Give a record that this transaction added another id, before anything is derived from it.

        Returns:
            Its new commitment.
        """
        number = self._index.require_numbers([old], connection)[old]
        (metadata,) = self._index.find("id", [old], connection)
        renamed = metadata._replace(id=new)
        its_row = records_table.c.number == number
        row = self._index.make_row(number, renamed, entry)
        connection.execute(update(records_table).where(its_row).values(**row))
        return commitment(self.database.keys, number, entry, renamed)

    def relabel(self, connection: Connection, ids: Sequence[str], label: int, *, entry: int) -> list[Digest]:
        """Give records another label and a new key, as if they were deleted and added again.

        Args:
            connection: of the transaction.
            ids: of the records.
            label: index of their new class.
            entry: position of the ledger entry that reports the change.

        Returns:
            The new commitments, sorted.

        Raises:
            UnknownRecordError: one of the records does not exist.
        """
        self.statistics.exclude(connection, ids)
        self.changes.record(connection, self.derived.trie_keys_of(ids, connection))
        old = self._index.require_numbers(ids, connection)
        known = {each.id: each for each in self._index.find("id", ids)}
        for record_id, number in zip(ids, self.database.new_keys(connection, len(ids)), strict=True):
            row = self._index.make_row(number, known[record_id]._replace(label=label), entry)
            its_row = records_table.c.number == old[record_id]
            connection.execute(update(records_table).where(its_row).values(**row))
            self._index.reencrypt(connection, _images, old[record_id], number)
            self.derived.reencrypt(connection, old[record_id], number)
        self.database.schedule_erasure(connection, old.values())
        self.database.mark_compaction_due(connection)
        return sorted(itertools.chain(*self.commitments.by_entry(ids, connection).values()))

    def delete(self, connection: Connection, ids: Sequence[str], *, subjects: Sequence[str] = ()) -> None:
        """Delete records with all that belongs to them, inside the caller's transaction.

        Their ids, their payloads and ``subjects`` are put on the suppression list.
        """
        images = [str(digest) for _, _, digest in self.find(ids).values()]
        self.statistics.exclude(connection, ids)
        self.changes.record(connection, self.derived.trie_keys_of(ids, connection))
        numbers = sorted(self._index.numbers(ids, connection).values())
        for chunk in chunked(numbers):
            connection.execute(delete(records_table).where(records_table.c.number.in_(chunk)))
        self.database.schedule_erasure(connection, numbers)
        self.suppression.add(connection, {"record": ids, "image": images, "subject": subjects})
        self.database.mark_compaction_due(connection)

    def clear_derived(self) -> None:
        """Delete all features, trie keys and statistics; they are derived again when they are needed."""
        with self.database.transaction() as connection:
            self.derived.clear(connection)
            self.statistics.clear(connection)

    def _scalar(self, query: Any) -> int:
        with self.database.reading() as connection:
            return int(connection.execute(query).scalar_one())
