"""Private records: the data that the training function is applied to.

A record is an id, an optional subject (the person it is about), a label and the image bytes as given. `Records`
holds
metadata and payloads, and the parts of the workspace that have to change together with them in one transaction:

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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, insert, select, update

from lmeraser.core.digests import Digest
from lmeraser.data.changelog import ChangeLog
from lmeraser.data.commitments import Commitments, commitment
from lmeraser.data.derived import DerivedValues
from lmeraser.data.identities import RecordIndex, RecordMetadata, records_table
from lmeraser.data.references import RecordRef
from lmeraser.data.statistics import StatisticsStore
from lmeraser.data.suppression import SuppressionList
from lmeraser.errors import InputError
from lmeraser.storage.database import Database, chunked, encrypted, per_record_table

_images = per_record_table("images", encrypted("data", what="images"))


@dataclass(frozen=True, slots=True)
class Record:
    """One private record with its payload."""

    id: str
    subject: str | None
    label: int
    image: bytes


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
            InputError: names are empty or repeated, or a known class would move or disappear.
        """
        known = self.classes
        if not classes or len(set(classes)) != len(classes) or not all(classes):
            raise InputError(
                "Class names are missing, empty or repeated",
                got=repr(list(classes)),
                next_step="give each class once, by a name that is not empty",
            )
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
        return sorted(RecordRef(each.id, each.label, each.image_digest) for each in self._index.read_all())

    def refs(self, ids: Iterable[str]) -> list[RecordRef]:
        """References to these records, sorted by id."""
        return sorted(RecordRef(i, label, digest) for i, (_, label, digest) in self.find(ids).items())

    def find(self, ids: Iterable[str]) -> dict[str, tuple[str | None, int, Digest]]:
        """Subject, label and image digest of those ids that exist."""
        return {each.id: (each.subject, each.label, each.image_digest) for each in self._index.find("id", ids)}

    def of_subjects(self, subjects: Iterable[str]) -> dict[str, list[str]]:
        """Record ids of each subject that has any, sorted."""
        found: dict[str, list[str]] = {}
        for each in self._index.find("subject", subjects):
            assert each.subject is not None
            found.setdefault(each.subject, []).append(each.id)
        return {subject: sorted(ids) for subject, ids in found.items()}

    def images(self, ids: Sequence[str]) -> list[bytes]:
        """Image bytes of ``ids``, in their order."""
        found = self._index.payloads(_images, ids)
        return [found[record_id] for record_id in ids]

    # --- changing --------------------------------------------------------------------------------------

    def insert(self, connection: Connection, records: Sequence[Record], *, entry: int) -> list[Digest]:
        """Add records whose ids are known to be new, inside the caller's transaction.

        Args:
            connection: of the transaction.
            records: what to add.
            entry: position of the ledger entry that reports the addition.

        Returns:
            The commitment of each.
        """
        if not records:
            return []
        keys = self.database.keys
        numbers = self.database.new_keys(connection, len(records))
        metadata = [RecordMetadata(r.id, r.subject, r.label, Digest.of(r.image)) for r in records]
        rows = [self._index.make_row(number, each, entry) for number, each in zip(numbers, metadata, strict=True)]
        connection.execute(insert(records_table), rows)
        images = [
            {"number": number, "data": keys.encrypt(number, "images", record.image)}
            for number, record in zip(numbers, records, strict=True)
        ]
        connection.execute(insert(_images), images)
        return [commitment(keys, number, entry, each) for number, each in zip(numbers, metadata, strict=True)]

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

        Their ids, their images and ``subjects`` are put on the suppression list.
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
