"""Metadata of records: encrypted under a key per record, and found by keyed digests.

A record's number is the slot of its key (`keystore`), drawn at random. Its metadata are id, subject, label and
image digest, encrypted under that key. To find records by id, subject or payload, or by names that look alike,
keyed digests of these are stored beside it; without the workspace's secret nobody can test a guess against them.
Tables of what belongs to a record refer to it by number. The names of tables and columns, and ``"card"`` in the
encryption's associated data, are part of the stored format.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Column, Connection, Integer, LargeBinary, Table, bindparam, select, update

from lmeraser.core.digests import Digest
from lmeraser.data.canonical_names import canonical_or_none, near_key
from lmeraser.errors import UnknownRecordError
from lmeraser.storage.database import Database, chunked, encrypted, schema
from lmeraser.storage.keystore import KeyStore

T = TypeVar("T")

records_table = Table(
    "records",
    schema,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", LargeBinary, nullable=False, unique=True),
    Column("subject", LargeBinary, nullable=True, index=True),
    Column("entry", Integer, nullable=False),
    encrypted("card", what="card"),
    # NULL where they are not computed yet, since an upgrade:
    Column("payload", LargeBinary, nullable=True, index=True),
    Column("near_id", LargeBinary, nullable=True, index=True),
    Column("near_subject", LargeBinary, nullable=True, index=True),
)


NOT_INDEXED = records_table.c.payload.is_(None)  # then neither are the digests of what names look like
_NEAR_BYTES = 8  # what is found by so few is compared after it


NUMBERS = "numbers"  # name of the metadata that tells how the numbers of all records were chosen
DRAWN = "drawn"  # at random; before 0.2 they counted up


def note_drawn_numbers(database: Database, connection: Connection) -> None:
    """Record that the number of every record was drawn at random, in the caller's transaction."""
    database.set_metadata(connection, NUMBERS, DRAWN)


class RecordMetadata(NamedTuple):
    """What identifies a record, and its label; the subject as its source spells it (`canonical_names`)."""

    id: str
    subject: str | None
    label: int
    payload_digest: Digest

    def encrypt(self, keys: KeyStore, number: int) -> bytes:
        """The metadata as stored, under the key of the record with this number."""
        return keys.encrypt(number, "card", json.dumps(self, ensure_ascii=False).encode(errors="surrogatepass"))

    @classmethod
    def decrypt(cls, keys: KeyStore, row: Any) -> RecordMetadata:
        """The metadata of a row with the columns ``number`` and ``card``."""
        text = keys.decrypt(row.number, "card", row.card).decode(errors="surrogatepass")
        record_id, subject, label, digest = json.loads(text)
        return cls(record_id, subject, label, Digest(digest))


class RecordIndex:
    """The metadata of the records of one workspace.

    Args:
        database: of the workspace.
        secret: key of the digests by which records are found.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self.database = database
        self._secret = secret
        self._known: dict[str, int] = {}  # numbers of records that do not change for the time being

    @contextmanager
    def knowing(self, numbers: Mapping[str, int]) -> Iterator[None]:
        """Look these records up by their numbers, which is faster than by the digests of their ids.

        For a caller that lets nobody delete or relabel records meanwhile: it holds the writer's lock.

        Args:
            numbers: of record ids.
        """
        self._known = dict(numbers)
        try:
            yield
        finally:
            self._known = {}

    def lookup_digest(self, kind: Literal["id", "subject", "payload"], name: str) -> bytes:
        """The keyed digest by which records with this id, subject or digest of the payload are found."""
        return self._digest(f"{kind}/{name}")

    def _digest(self, text: str) -> bytes:
        return hmac.digest(self._secret, text.encode(errors="surrogatepass"), "sha256")

    def subject_digest(self, subject: str) -> bytes:
        """The keyed digest by which records of this subject are found: of its canonical form."""
        return self.lookup_digest("subject", canonical_or_none(subject) or subject)

    def make_row(self, number: int, metadata: RecordMetadata, entry: int) -> dict[str, Any]:
        """A row of the table ``records``.

        Args:
            number: of the record.
            metadata: of the record.
            entry: position of the ledger entry that reports its addition.
        """
        subject = metadata.subject
        return {
            "number": number,
            "id": self.lookup_digest("id", metadata.id),
            "subject": None if subject is None else self.subject_digest(subject),
            "entry": entry,
            "card": metadata.encrypt(self.database.keys, number),
            **self._indexed(metadata),
        }

    def near_digest(self, kind: Literal["id", "subject"], name: str) -> bytes:
        """The keyed digest, 8 bytes, by which names are found that look alike (`canonical_names.near_key`)."""
        return self._digest(f"near/{kind}/{near_key(name)}")[:_NEAR_BYTES]

    def _indexed(self, metadata: RecordMetadata) -> dict[str, bytes | None]:
        """The columns that rows of before 0.2 lack."""
        subject = metadata.subject
        return {
            "payload": self.lookup_digest("payload", metadata.payload_digest),
            "near_id": self.near_digest("id", metadata.id),
            "near_subject": None if subject is None else self.near_digest("subject", subject),
        }

    def read_all(self) -> list[tuple[int, RecordMetadata]]:
        """Number and metadata of every record, in no particular order."""
        query = select(records_table.c.number, records_table.c.card)
        return self.database.fetch(query, lambda row: (row.number, self._decrypt(row)))

    def find(
        self,
        kind: Literal["id", "subject", "payload"],
        names: Iterable[str],
        connection: Connection | None = None,
    ) -> Iterator[RecordMetadata]:
        """The metadata of the records that have one of these ids, subjects or digests of the payload."""
        query = select(records_table.c.number, records_table.c.card)
        digests = {self.lookup_digest(kind, name) for name in names}
        yield from self.database.fetch_where_in(query, records_table.c[kind], digests, self._decrypt, connection)
        if kind == "payload":
            not_indexed = self.database.fetch(query.where(NOT_INDEXED), self._decrypt, connection)
            yield from (each for each in not_indexed if self.lookup_digest(kind, each.payload_digest) in digests)

    def index_payloads(self, connection: Connection) -> None:
        """Compute the digests of payloads and of what names look like that are missing since an upgrade."""
        query = select(records_table.c.number, records_table.c.card).where(NOT_INDEXED)
        for row in connection.execute(query).all():
            its_row = records_table.c.number == row.number
            connection.execute(update(records_table).where(its_row).values(**self._indexed(self._decrypt(row))))

    def draw_numbers(self) -> None:
        """Draw new numbers for all records if they are of before 0.2, when numbers followed the order of imports.

        A key moves with its record: commitments depend on it. Until a record has its new number, the copy of its
        key is scheduled for erasure, so that a crash leaves no copy behind that would outlive the record.
        """
        database = self.database
        if database.get_metadata(NUMBERS) == DRAWN:
            return
        old = database.fetch(select(records_table.c.number), lambda row: row.number)
        with database.transaction() as connection:
            free = database.reserve_slots(connection, 2 * len(old))
        new = secrets.SystemRandom().sample(free, len(old))
        for chunk in chunked(zip(old, new, strict=True)):
            moves = dict(chunk)
            with database.transaction() as connection:
                database.schedule_erasure(connection, moves.values())
            with database.transaction() as connection:
                database.keys.copy(moves)
                rows = [{"old": old_number, "new": new_number} for old_number, new_number in chunk]
                its_row = records_table.c.number == bindparam("old")
                connection.execute(update(records_table).where(its_row).values(number=bindparam("new")), rows)
                database.cancel_erasure(connection, moves.values())
                database.schedule_erasure(connection, moves)
        with database.transaction() as connection:
            note_drawn_numbers(database, connection)
            database.mark_compaction_due(connection)  # free pages have the old numbers
        database.erase()

    def _decrypt(self, row: Any) -> RecordMetadata:
        return RecordMetadata.decrypt(self.database.keys, row)

    def select_by_id(
        self,
        query: Any,
        ids: Iterable[str],
        convert: Callable[[str, Any], T],
        connection: Connection | None = None,
    ) -> Iterator[T]:
        """Run a query for these record ids.

        Args:
            query: with the column ``id`` of the table ``records``.
            ids: record ids; unknown ones are left out.
            convert: called with the id and the row of every record found; its results are returned.
            connection: an open one to use.
        """
        known = self._known
        if known:
            query = query.add_columns(records_table.c.number.label("its_number"))
        for chunk in chunked(ids):
            numbers = {known[name]: name for name in chunk if name in known}
            if numbers:
                by_number = partial(lambda names, row: convert(names[row.its_number], row), numbers)
                column = records_table.c.number
                yield from self.database.fetch_where_in(query, column, sorted(numbers), by_number, connection)
            if len(numbers) < len(chunk):
                names = {self.lookup_digest("id", name): name for name in chunk if name not in known}
                by_id = partial(lambda names, row: convert(names[row.id], row), names)
                yield from self.database.fetch_where_in(query, records_table.c.id, names, by_id, connection)

    def numbers(self, ids: Iterable[str], connection: Connection | None = None) -> dict[str, int]:
        """The record numbers of those ids that exist."""
        wanted = list(ids)
        found = {name: self._known[name] for name in wanted if name in self._known}
        if len(found) < len(wanted):
            query = select(records_table.c.id, records_table.c.number)
            others = [name for name in wanted if name not in found]
            found |= self.select_by_id(query, others, lambda name, row: (name, row.number), connection)
        return found

    def require_numbers(self, ids: Sequence[str], connection: Connection | None = None) -> dict[str, int]:
        """The record numbers of these ids.

        Raises:
            UnknownRecordError: one of the records does not exist.
        """
        found = self.numbers(ids, connection)
        if unknown := [record_id for record_id in ids if record_id not in found]:
            raise UnknownRecordError(
                "Record not found", got=repr(unknown[0]), next_step="add the record before what is derived from it"
            )
        return found

    def payloads(
        self, table: Table, ids: Iterable[str], *where: Any, connection: Connection | None = None
    ) -> dict[str, bytes]:
        """Decrypted payloads of those ids that have one.

        Args:
            table: with the columns ``number`` and ``data``.
            ids: record ids.
            where: further conditions.
            connection: an open one to use.
        """
        keys = self.database.keys
        query = select(records_table.c.id, table.c.number, table.c.data)

        def decrypt(name: str, row: Any) -> tuple[str, bytes]:
            return name, keys.decrypt(row.number, table.name, row.data)

        return dict(
            self.select_by_id(query.join_from(records_table, table).where(*where), ids, decrypt, connection)
        )

    def reencrypt(self, connection: Connection, table: Table, old: int, number: int) -> None:
        """Encrypt a payload that moved from the number ``old`` to ``number`` under its new key."""
        keys = self.database.keys
        its_row = table.c.number == number
        data = connection.execute(select(table.c.data).where(its_row)).scalar_one_or_none()
        if data is not None:
            again = keys.encrypt(number, table.name, keys.decrypt(old, table.name, data))
            connection.execute(update(table).where(its_row).values(data=again))
