"""Which records are counted in the sums, their codes, and the sums themselves, in the workspace's database.

Rules:
- the sums are always those of the counted records: counting a record adds its code, and forgetting it subtracts
  the code, in the transaction that deletes the record; so there is nothing to catch up after a crash;
- a record is counted with the label that it had; correcting the label forgets its code first;
- codes and sums belong to one key, which names what a code depends on; counting under another key starts anew.

Follows `database` and `sums`; imports numpy only where there is something to count or to forget.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sqlalchemy import BLOB, Column, Connection, Integer, String, Table, delete, func, insert, select, update

from lmeraser.database import Database, chunked, metadata, owned

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lmeraser.sums import Sums

_codes = owned("codes", Column("label", Integer, nullable=False), Column("code", BLOB, nullable=False))
_sums = Table(
    "sums",
    metadata,
    Column("key", String, primary_key=True),
    Column("width", Integer, nullable=False),
    Column("gram", BLOB, nullable=False),
    Column("moments", BLOB, nullable=False),
)


class Counted:
    """The counted records of one workspace.

    Args:
        database: where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def ids(self, *, key: str) -> set[str]:
        """The records that are counted under ``key``."""
        with self._database.reading() as connection:
            if self._key(connection) != key:
                return set()
            return set(connection.execute(select(_codes.c.id)).scalars())

    def total(self, *, key: str) -> int:
        """Number of records that are counted under ``key``."""
        with self._database.reading() as connection:
            if self._key(connection) != key:
                return 0
            return int(connection.execute(select(func.count()).select_from(_codes)).scalar_one())

    def codes(self, ids: Sequence[str]) -> list[bytes]:
        """Codes of counted records, in their order."""
        found = {row.id: bytes(row.code) for row in self._database.rows(select(_codes), _codes.c.id, ids)}
        return [found[record_id] for record_id in ids]

    def sums(self) -> Sums | None:
        """The sums over the counted records; None before any was counted."""
        with self._database.reading() as connection:
            return self._read(connection)

    def sums_without(self, ids: Sequence[str], *, key: str) -> Sums | None:
        """The sums under ``key``, less these records where they are counted; None: there are none under it."""
        with self._database.reading() as connection:
            if self._key(connection) != key:
                return None
            return self._minus(connection, ids) or self._read(connection)

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

        from lmeraser.sums import Sums

        with self._database.transaction() as connection:
            if self._key(connection) != key:
                self.clear(connection)
            matrix = np.stack(list(codes.values()))
            sums = self._read(connection) or Sums.zero(matrix.shape[1], classes)
            self._write(connection, key, sums.widened(classes).plus(matrix, labels))
            rows = [
                {"id": record_id, "label": label, "code": code.tobytes()}
                for (record_id, code), label in zip(codes.items(), labels, strict=True)
            ]
            for chunk in chunked(rows):
                connection.execute(insert(_codes), chunk)

    def forget(self, connection: Connection, ids: Sequence[str]) -> None:
        """Subtract these records, where they are counted, inside the caller's transaction."""
        key, sums = self._key(connection), self._minus(connection, ids)
        if key is None or sums is None:
            return
        self._write(connection, key, sums)
        for chunk in chunked(ids):
            connection.execute(delete(_codes).where(_codes.c.id.in_(chunk)))

    def clear(self, connection: Connection | None = None) -> None:
        """Count no record any more."""
        with self._database.transaction(connection) as inner:
            inner.execute(delete(_codes))
            inner.execute(delete(_sums))

    def _key(self, connection: Connection) -> str | None:
        return connection.execute(select(_sums.c.key)).scalar_one_or_none()

    def _read(self, connection: Connection) -> Sums | None:
        row = connection.execute(select(_sums)).one_or_none()
        if row is None:
            return None
        from lmeraser.sums import unpack

        return unpack(row.gram, row.moments, row.width)

    def _minus(self, connection: Connection, ids: Sequence[str]) -> Sums | None:
        """The sums without these records; None if none of them is counted."""
        query = select(_codes.c.label, _codes.c.code)
        found = [
            row
            for part in chunked(sorted(set(ids)))
            for row in connection.execute(query.where(_codes.c.id.in_(part))).all()
        ]
        sums = self._read(connection) if found else None
        if sums is None:
            return None
        from lmeraser.sums import stack

        return sums.plus(stack(row.code for row in found), [row.label for row in found], sign=-1)

    def _write(self, connection: Connection, key: str, sums: Sums) -> None:
        from lmeraser.sums import pack

        gram, moments = pack(sums)
        values = {"width": len(sums.gram), "gram": gram, "moments": moments}
        # Overwriting a row of the same size costs half of what deleting and inserting it does.
        if connection.execute(update(_sums).where(_sums.c.key == key).values(**values)).rowcount == 0:
            connection.execute(insert(_sums).values(key=key, **values))
