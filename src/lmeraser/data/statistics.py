"""Which records are counted in the sums, their codes, and the sums themselves, in the workspace's database.

Rules:
- the sums are always those of the counted records: counting a record adds its code, and forgetting it subtracts
  the code, in the transaction that deletes the record; so there is nothing to catch up after a crash;
- a record is counted with the label that it had; correcting the label forgets its code first;
- codes and sums belong to one key, which names what a code depends on; counting under another key starts anew;
- the difference of two versions of the sums tells what was forgotten between them, so every version is sealed
  under a key of its own, which goes with it; a code is sealed under its record's key.

Follows `cards` and `sums`; imports numpy only where there is something to count or to forget.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, Integer, String, Table, delete, func, insert, select, update

from lmeraser.data.identities import RecordIndex, RecordMetadata
from lmeraser.data.identities import records as cards
from lmeraser.storage.database import chunked, encrypted, owned, tables

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lmeraser.core.sufficient_statistics import SufficientStatistics

_LABEL_BYTES = 4

_codes = owned("codes", encrypted("data", what="codes"))  # the label as it is counted, and the code
_sums = Table(
    "sums",
    tables,
    Column("key", String, primary_key=True),
    Column("slot", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    encrypted("gram", what="sums", slot="slot"),
    encrypted("moments", what="sums", slot="slot"),
)


@dataclass(frozen=True)
class _Less:
    """The sums without some records, worked out from one version; every version has a slot of its own."""

    slot: int | None = None
    ids: frozenset[str] = frozenset()
    sums: SufficientStatistics | None = None


class StatisticsStore:
    """The counted records of one workspace.

    Args:
        cards: of its records.
    """

    def __init__(self, cards: RecordIndex) -> None:
        self._index = cards
        self._database = cards.database
        self._prepared = _Less()
        self._latest: tuple[int | None, SufficientStatistics | None] | None = None

    def ids(self, *, key: str) -> set[str]:
        """The records that are counted under ``key``."""

        def read(connection: Connection) -> set[str]:
            if self._key(connection) != key:
                return set()
            query = select(cards.c.number, cards.c.card).join_from(_codes, cards)
            return {RecordMetadata.of(self._database.keys, row).id for row in connection.execute(query)}

        return self._database.consistent(read)

    def total(self, *, key: str) -> int:
        """Number of records that are counted under ``key``."""
        with self._database.reading() as connection:
            if self._key(connection) != key:
                return 0
            return int(connection.execute(select(func.count()).select_from(_codes)).scalar_one())

    def codes(self, ids: Sequence[str]) -> list[bytes]:
        """Codes of counted records, in their order."""
        found = self._index.payloads(_codes, ids)
        return [found[record_id][_LABEL_BYTES:] for record_id in ids]

    def sums(self) -> SufficientStatistics | None:
        """The sums over the counted records; None before any was counted."""
        return self._database.consistent(self._committed)

    def sums_without(self, ids: Sequence[str], *, key: str) -> SufficientStatistics | None:
        """The sums under ``key``, less these records where they are counted; None: there are none under it."""

        def read(connection: Connection) -> SufficientStatistics | None:
            if self._key(connection) != key:
                return None
            return self._minus(connection, ids, self._committed) or self._committed(connection)

        return self._database.consistent(read)

    def count(
        self, codes: Mapping[str, NDArray[np.int16]], labels: Sequence[int], classes: int, *, key: str
    ) -> None:
        """Count records that are not counted yet.

        Args:
            codes: of each, int16 [d + 1].
            labels: class index of each.
            classes: number of classes.
            key: names what codes depend on.
        """
        import numpy as np

        from lmeraser.core.sufficient_statistics import SufficientStatistics

        with self._database.transaction() as connection:
            if self._key(connection) != key:
                self.clear(connection)
            matrix = np.stack(list(codes.values()))
            sums = self._read(connection) or SufficientStatistics.zero(matrix.shape[1], classes)
            self._write(connection, key, sums.widened(classes).plus(matrix, labels))
            numbers = self._index.require(list(codes), connection)
            rows = [
                self._row(numbers[record_id], label, code.tobytes())
                for (record_id, code), label in zip(codes.items(), labels, strict=True)
            ]
            for chunk in chunked(rows):
                connection.execute(insert(_codes), chunk)

    def prepare(self, ids: Sequence[str]) -> None:
        """Work out the sums without these records before the transaction that forgets them: it holds up others."""

        def read(connection: Connection) -> _Less:
            return _Less(self._slot(connection), frozenset(ids), self._minus(connection, ids, self._committed))

        self._prepared = self._database.consistent(read)

    def forget(self, connection: Connection, ids: Sequence[str]) -> None:
        """Subtract these records, where they are counted, inside the caller's transaction."""
        ready, self._prepared = self._prepared, _Less()
        if ready.slot != self._slot(connection) or not ready.ids <= set(ids):
            ready = _Less()
        read = self._read if ready.sums is None else lambda _: ready.sums
        sums = self._minus(connection, sorted(set(ids) - ready.ids), read) or ready.sums
        key = self._key(connection)
        if key is None or sums is None:
            return
        self._write(connection, key, sums)
        for chunk in chunked(self._index.numbers(ids, connection).values()):
            connection.execute(delete(_codes).where(_codes.c.number.in_(chunk)))

    def release(self) -> None:
        """Keep no sums in memory; they would tell what was forgotten since they were read."""
        self._latest, self._prepared = None, _Less()

    def clear(self, connection: Connection | None = None) -> None:
        """Count no record any more."""
        with self._database.transaction(connection) as inner:
            inner.execute(delete(_codes))
            self._database.schedule_erasure(inner, inner.execute(select(_sums.c.slot)).scalars().all())
            inner.execute(delete(_sums))

    def _key(self, connection: Connection) -> str | None:
        return connection.execute(select(_sums.c.key)).scalar_one_or_none()

    def _read(self, connection: Connection) -> SufficientStatistics | None:
        row = connection.execute(select(_sums)).one_or_none()
        if row is None:
            return None
        from lmeraser.core.sufficient_statistics import unpack

        gram, moments = (self._database.keys.decrypt(row.slot, "sums", part) for part in (row.gram, row.moments))
        return unpack(gram, moments, row.width)

    def _committed(self, connection: Connection) -> SufficientStatistics | None:
        """What `_read` gives outside of a transaction that may be rolled back: then a slot tells the version."""
        slot, latest = self._slot(connection), self._latest
        if latest is None or latest[0] != slot:
            self._latest = latest = slot, self._read(connection)
        return latest[1]

    def _slot(self, connection: Connection) -> int | None:
        return connection.execute(select(_sums.c.slot)).scalar_one_or_none()

    def _row(self, number: int, label: int, code: bytes) -> dict[str, Any]:
        data = label.to_bytes(_LABEL_BYTES, "big") + code
        return {"number": number, "data": self._database.keys.encrypt(number, "codes", data)}

    def _minus(
        self, connection: Connection, ids: Sequence[str], read: Callable[[Connection], SufficientStatistics | None]
    ) -> SufficientStatistics | None:
        """The sums that are ``read``, without these records; None if none of them is counted."""
        codes = self._index.payloads(_codes, sorted(set(ids)), connection=connection).values()
        sums = read(connection) if codes else None
        if sums is None:
            return None
        from lmeraser.core.sufficient_statistics import stack

        labels = [int.from_bytes(code[:_LABEL_BYTES], "big") for code in codes]
        return sums.plus(stack(code[_LABEL_BYTES:] for code in codes), labels, sign=-1)

    def _write(self, connection: Connection, key: str, sums: SufficientStatistics) -> None:
        from lmeraser.core.sufficient_statistics import pack

        self._database.schedule_erasure(connection, connection.execute(select(_sums.c.slot)).scalars().all())
        slot = self._database.new_keys(connection, 1).start
        gram, moments = (self._database.keys.encrypt(slot, "sums", part) for part in pack(sums))
        values = {"slot": slot, "width": len(sums.gram), "gram": gram, "moments": moments}
        # Overwriting a row of the same size costs half of what deleting and inserting it does.
        if connection.execute(update(_sums).where(_sums.c.key == key).values(**values)).rowcount == 0:
            connection.execute(insert(_sums).values(key=key, **values))
