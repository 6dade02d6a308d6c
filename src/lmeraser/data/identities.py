"""What says who a record is: its number, and its card, sealed under a key of its own.

The number of a record is the slot of its key (`keys`). Its card holds id, subject, label and image digest. To find
a record by id or by subject, keyed digests of both lie beside it; without the workspace's secret nobody can test a
guess against them. Tables of what belongs to a record refer to it by number. Follows `database`.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple, TypeVar

from sqlalchemy import Column, Connection, Integer, LargeBinary, Table, select, update

from lmeraser.core.digests import Digest
from lmeraser.errors import UnknownRecordError
from lmeraser.storage.database import Database, chunked, encrypted, tables
from lmeraser.storage.keystore import KeyStore

T = TypeVar("T")

records = Table(
    "records",
    tables,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("id", LargeBinary, nullable=False, unique=True),
    Column("subject", LargeBinary, nullable=True, index=True),
    Column("entry", Integer, nullable=False),
    encrypted("card", what="card"),
)


class RecordMetadata(NamedTuple):
    """Who a record is."""

    id: str
    subject: str | None
    label: int
    image_digest: Digest

    def encrypted(self, keys: KeyStore, number: int) -> bytes:
        """As it is stored."""
        return keys.encrypt(number, "card", json.dumps(self, ensure_ascii=False).encode(errors="surrogatepass"))

    @classmethod
    def of(cls, keys: KeyStore, row: Any) -> RecordMetadata:
        """The card of a row with number and card."""
        text = keys.decrypt(row.number, "card", row.card).decode(errors="surrogatepass")
        record_id, subject, label, digest = json.loads(text)
        return cls(record_id, subject, label, Digest(digest))


class RecordIndex:
    """The cards of one workspace.

    Args:
        database: where they are.
        secret: key of the digests by which they are found.
    """

    def __init__(self, database: Database, *, secret: bytes) -> None:
        self.database = database
        self._secret = secret

    def digest(self, kind: Literal["id", "subject"], name: str) -> bytes:
        """By which the cards with this id or subject are found."""
        return hmac.digest(self._secret, f"{kind}/{name}".encode(errors="surrogatepass"), "sha256")

    def row(self, number: int, card: RecordMetadata, entry: int) -> dict[str, Any]:
        """The row of a card that the ledger's entry ``entry`` tells of."""
        return {
            "number": number,
            "id": self.digest("id", card.id),
            "subject": None if card.subject is None else self.digest("subject", card.subject),
            "entry": entry,
            "card": card.encrypted(self.database.keys, number),
        }

    def every(self) -> list[RecordMetadata]:
        """All cards, in no order."""
        query = select(records.c.number, records.c.card)
        return self.database.every(query, lambda row: RecordMetadata.of(self.database.keys, row))

    def find(self, kind: Literal["id", "subject"], names: Iterable[str]) -> Iterator[RecordMetadata]:
        """The cards with one of these ids or subjects."""
        query = select(records.c.number, records.c.card)
        digests = {self.digest(kind, name) for name in names}
        return self.database.rows(
            query, records.c[kind], digests, lambda row: RecordMetadata.of(self.database.keys, row)
        )

    def by_id(
        self, query: Any, ids: Iterable[str], each: Callable[[str, Any], T], connection: Connection | None = None
    ) -> Iterator[T]:
        """``each`` id and row of a query with the column ``id`` of the cards, for those ids that exist."""
        for chunk in chunked(ids):
            names = {self.digest("id", name): name for name in chunk}
            named = partial(lambda names, row: each(names[row.id], row), names)
            yield from self.database.rows(query, records.c.id, names, named, connection)

    def numbers(self, ids: Iterable[str], connection: Connection | None = None) -> dict[str, int]:
        """The numbers of those ids that exist."""
        query = select(records.c.id, records.c.number)
        return dict(self.by_id(query, ids, lambda name, row: (name, row.number), connection))

    def require(self, ids: Sequence[str], connection: Connection | None = None) -> dict[str, int]:
        """The numbers of these ids.

        Raises:
            UnknownRecordError: there is no such record.
        """
        found = self.numbers(ids, connection)
        if unknown := [record_id for record_id in ids if record_id not in found]:
            raise UnknownRecordError("What is derived from a record belongs to one that is here.", got=unknown[0])
        return found

    def payloads(
        self, table: Table, ids: Iterable[str], *where: Any, connection: Connection | None = None
    ) -> dict[str, bytes]:
        """What a table with the columns ``number`` and ``data`` holds of those ids that it has anything of."""
        keys, query = self.database.keys, select(records.c.id, table.c.number, table.c.data)
        found = query.join_from(records, table).where(*where)

        def each(name: str, row: Any) -> tuple[str, bytes]:
            return name, keys.decrypt(row.number, table.name, row.data)

        return dict(self.by_id(found, ids, each, connection))

    def reencrypt(self, connection: Connection, table: Table, old: int, number: int) -> None:
        """Seal a payload, which moved from one number to another, under its new key."""
        keys, mine = self.database.keys, table.c.number == number
        data = connection.execute(select(table.c.data).where(mine)).scalar_one_or_none()
        if data is not None:
            again = keys.encrypt(number, table.name, keys.decrypt(old, table.name, data))
            connection.execute(update(table).where(mine).values(data=again))
