"""Sufficient statistics of the records and the quantized embeddings that they add up, in the workspace database.

Rules:
- the statistics are always those of the included records: including a record adds its quantized embedding;
excluding
  it subtracts the embedding, in the transaction that deletes the record; so nothing has to be repaired after a
  crash;
- a record is included with the label it had at that time; correcting the label excludes the record first;
- quantized embeddings and statistics belong to one key, which identifies what embeddings depend on besides the
image;
  including a record under another key starts with empty statistics;
- the difference of two versions of the statistics reveals the records excluded in between, so every version is
  encrypted under a key of its own, which is erased with it; an embedding is encrypted under its record's key;
- wide statistics take tens of megabytes: they are in a file, which is written before the transaction where what it
  excludes was prepared (`storage.encrypted_files`).

The tables ``codes`` and ``sums`` keep their names, which are part of the stored format. Numpy is imported only
where there is something to add or subtract, so that accepting a deletion request does not wait for it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import Column, Connection, Integer, String, Table, delete, func, insert, select, update

from lmeraser.data.identities import RecordIndex, RecordMetadata, records_table
from lmeraser.storage.database import IN_FILE, chunked, encrypted, per_record_table, schema
from lmeraser.storage.keystore import KEY_BYTES, encrypt

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lmeraser.core.sufficient_statistics import SufficientStatistics

_LABEL_BYTES = 4
_IN_FILE_BYTES = 1 << 20  # from which on the products are in a file

_embeddings = per_record_table(
    "codes", encrypted("data", what="codes")
)  # the label as included, and the quantized embedding
_statistics = Table(
    "sums",
    schema,
    Column("key", String, primary_key=True),
    Column("slot", Integer, nullable=False),
    Column("width", Integer, nullable=False),
    encrypted("gram", what="sums", slot="slot", in_files=True),
    encrypted("moments", what="sums", slot="slot"),
)


@dataclass(frozen=True)
class _Encrypted:
    """Statistics that are encrypted under a key that is in no slot yet.

    Attributes:
        key: random.
        gram: the products, or `IN_FILE`.
        moments: the products with classes.
    """

    key: bytes
    gram: bytes
    moments: bytes


@dataclass(frozen=True)
class _PreparedExclusion:
    """The statistics without some records, computed from one version; every version has a slot of its own.

    Attributes:
        slot: of the version.
        ids: of the records.
        statistics: without them; None if none of them is included.
        encrypted: these, once they are encrypted.
    """

    slot: int | None = None
    ids: frozenset[str] = frozenset()
    statistics: SufficientStatistics | None = None
    encrypted: Future[_Encrypted] | None = None


@dataclass(frozen=True)
class _Written:
    """The version that was read or written last, perhaps in a transaction that was rolled back.

    Its slot may then be used again for another version, which has another random key.
    """

    slot: int
    key: bytes
    statistics: SufficientStatistics


class StatisticsStore:
    """The sufficient statistics of one workspace.

    Args:
        index: metadata of the records.
    """

    def __init__(self, index: RecordIndex) -> None:
        self._index = index
        self._database = index.database
        self._prepared = _PreparedExclusion()
        self._latest: tuple[int | None, SufficientStatistics | None] | None = None
        self._written: _Written | None = None
        self._announce: Callable[[SufficientStatistics], None] | None = None
        self._thread: ThreadPoolExecutor | None = None  # that encrypts meanwhile

    def ids(self, *, key: str) -> set[str]:
        """The records that are included under ``key``."""

        def read(connection: Connection) -> set[str]:
            if self._key(connection) != key:
                return set()
            query = select(records_table.c.number, records_table.c.card).join_from(_embeddings, records_table)
            return {RecordMetadata.decrypt(self._database.keys, row).id for row in connection.execute(query)}

        return self._database.read_consistently(read)

    def total(self, *, key: str) -> int:
        """Number of records that are included under ``key``, by the statistics; no rows are counted."""

        def read(connection: Connection) -> int:
            if self._key(connection) != key:
                return 0
            statistics = self._committed(connection)
            return 0 if statistics is None else sum(map(int, statistics.records_by_class))

        return self._database.read_consistently(read)

    def exceeds(self, number: int, *, key: str) -> bool:
        """Whether more than so many records are included under ``key``; looks at no more than that."""
        some = select(_embeddings.c.number).limit(number + 1).subquery()
        with self._database.reading() as connection:
            if self._key(connection) != key:
                return False
            return int(connection.execute(select(func.count()).select_from(some)).scalar_one()) > number

    def count(self) -> int:
        """Number of records that are included, under whichever key."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(_embeddings)).scalar_one())

    def quantized_embeddings(self, ids: Sequence[str]) -> list[bytes]:
        """Quantized embeddings of included records, int16 [d + 1] as bytes, in the order of ``ids``."""
        found = self._index.payloads(_embeddings, ids)
        return [found[record_id][_LABEL_BYTES:] for record_id in ids]

    def current(self) -> SufficientStatistics | None:
        """The statistics of the included records; None before any was included."""
        return self._database.read_consistently(self._committed)

    def without(self, ids: Sequence[str], *, key: str) -> SufficientStatistics | None:
        """The statistics under ``key`` without these records; None if there are none under it."""

        def read(connection: Connection) -> SufficientStatistics | None:
            if self._key(connection) != key:
                return None
            return self._subtracted(connection, ids, self._committed) or self._committed(connection)

        return self._database.read_consistently(read)

    def include(
        self, embeddings: Mapping[str, NDArray[np.int16]], labels: Sequence[int], classes: int, *, key: str
    ) -> None:
        """Include records that are not included yet.

        Args:
            embeddings: quantized embedding of each record id, int16 [d + 1].
            labels: class index of each.
            classes: number of classes.
            key: identifies what embeddings depend on besides the image.

        Raises:
            UnknownRecordError: one of the records does not exist.
            StorageError: one of the records is included already.
        """
        import numpy as np

        from lmeraser.core.sufficient_statistics import SufficientStatistics

        with self._database.transaction() as connection:
            if self._key(connection) != key:
                self.clear(connection)
            matrix = np.stack(list(embeddings.values()))
            statistics = self._read(connection) or SufficientStatistics.zero(matrix.shape[1], classes)
            self._write(connection, key, statistics.widened(classes).plus(matrix, labels))
            numbers = self._index.require_numbers(list(embeddings), connection)
            rows = [
                self._row(numbers[record_id], label, embedding.tobytes())
                for (record_id, embedding), label in zip(embeddings.items(), labels, strict=True)
            ]
            for chunk in chunked(rows):
                connection.execute(insert(_embeddings), chunk)
        self._database.discard_files()  # whoever includes is the one writer

    def prepare_exclusion(self, ids: Sequence[str]) -> None:
        """Compute the statistics without these records before the transaction that excludes them.

        The transaction makes other writers wait, so it should not have to compute anything.
        """

        def read(connection: Connection) -> tuple[int | None, SufficientStatistics | None]:
            return self._slot(connection), self._subtracted(connection, ids, self._committed)

        slot, statistics = self._database.read_consistently(read)
        encrypted = None
        if statistics is not None:
            if self._announce is not None:
                self._announce(statistics)
            with nullcontext(self._thread) if self._thread is not None else ThreadPoolExecutor(1) as thread:
                encrypted = thread.submit(self._encrypt, statistics)
        self._prepared = _PreparedExclusion(slot, frozenset(ids), statistics, encrypted)

    def exclude(self, connection: Connection, ids: Sequence[str]) -> None:
        """Subtract these records, where they are included, inside the caller's transaction."""
        prepared = self._prepared
        self._prepared = _PreparedExclusion()
        if prepared.slot != self._slot(connection) or not prepared.ids <= set(ids):
            prepared = _PreparedExclusion()
        read = self._read if prepared.statistics is None else lambda _: prepared.statistics
        statistics = self._subtracted(connection, sorted(set(ids) - prepared.ids), read) or prepared.statistics
        key = self._key(connection)
        if key is None or statistics is None:
            return
        if self._announce is not None:
            self._announce(statistics)
        encrypted = prepared.encrypted if statistics is prepared.statistics else None
        self._write(connection, key, statistics, encrypted.result() if encrypted is not None else None)
        for chunk in chunked(self._index.numbers(ids, connection).values()):
            connection.execute(delete(_embeddings).where(_embeddings.c.number.in_(chunk)))

    @contextmanager
    def announcing(self, announce: Callable[[SufficientStatistics], None]) -> Iterator[None]:
        """Call a function with the statistics that an exclusion is about to write, as soon as they are known.

        What is prepared is encrypted on another thread meanwhile, which has ended when the context is left.
        """
        with ThreadPoolExecutor(1) as thread:
            self._announce = announce
            self._thread = thread
            try:
                yield
            finally:
                self._announce = None
                self._thread = None

    def release_memory(self) -> None:
        """Drop the statistics held in memory; they would reveal what was excluded since they were read."""
        self._latest = None
        self._written = None
        self._prepared = _PreparedExclusion()

    def clear(self, connection: Connection | None = None) -> None:
        """Exclude all records, and delete statistics and quantized embeddings."""
        with self._database.transaction(connection) as inner:
            inner.execute(delete(_embeddings))
            self._database.schedule_erasure(inner, inner.execute(select(_statistics.c.slot)).scalars().all())
            inner.execute(delete(_statistics))

    def _key(self, connection: Connection) -> str | None:
        return connection.execute(select(_statistics.c.key)).scalar_one_or_none()

    def _slot(self, connection: Connection) -> int | None:
        return connection.execute(select(_statistics.c.slot)).scalar_one_or_none()

    def _read(self, connection: Connection) -> SufficientStatistics | None:
        """The stored statistics; those that this object read or wrote last are at hand and are not decrypted."""
        if (written := self._written_at(self._slot(connection))) is not None:
            return written
        row = connection.execute(select(_statistics)).one_or_none()
        if row is None:
            return None
        from lmeraser.core.sufficient_statistics import unpack

        gram, moments = (self._database.decrypt(row.slot, "sums", part) for part in (row.gram, row.moments))
        return unpack(gram, moments, row.width)

    def _committed(self, connection: Connection) -> SufficientStatistics | None:
        """As `_read`, but cached: outside of a transaction that may be rolled back a slot identifies a version."""
        slot = self._slot(connection)
        if self._latest is None or self._latest[0] != slot:
            statistics = self._read(connection)
            self._latest = (slot, statistics)
            self._written = None
            if slot is not None and statistics is not None:
                self._written = _Written(slot, self._database.keys.key(slot), statistics)
        return self._latest[1]

    def _written_at(self, slot: int | None) -> SufficientStatistics | None:
        """The version that this object read or wrote last, if it is the one in this slot."""
        written = self._written
        if written is None or written.slot != slot:
            return None
        return written.statistics if self._database.keys.key(written.slot) == written.key else None

    def _row(self, number: int, label: int, embedding: bytes) -> dict[str, Any]:
        data = label.to_bytes(_LABEL_BYTES, "big") + embedding
        return {"number": number, "data": self._database.keys.encrypt(number, "codes", data)}

    def _subtracted(
        self, connection: Connection, ids: Sequence[str], read: Callable[[Connection], SufficientStatistics | None]
    ) -> SufficientStatistics | None:
        """The statistics that ``read`` returns, without these records; None if none of them is included."""
        stored = self._index.payloads(_embeddings, sorted(set(ids)), connection=connection).values()
        statistics = read(connection) if stored else None
        if statistics is None:
            return None
        from lmeraser.core.sufficient_statistics import stack_quantized

        labels = [int.from_bytes(data[:_LABEL_BYTES], "big") for data in stored]
        return statistics.plus(stack_quantized(data[_LABEL_BYTES:] for data in stored), labels, sign=-1)

    def _encrypt(self, statistics: SufficientStatistics) -> _Encrypted:
        """Encrypt statistics under a new key; what is large is in a file when this returns."""
        from lmeraser.core.sufficient_statistics import pack

        key = secrets.token_bytes(KEY_BYTES)
        gram, moments = pack(statistics)
        if len(gram) < _IN_FILE_BYTES:
            return _Encrypted(key, encrypt(key, "sums", gram), encrypt(key, "sums", moments))
        self._database.files.write(key, "sums", gram)
        return _Encrypted(key, IN_FILE, encrypt(key, "sums", moments))

    def _write(
        self,
        connection: Connection,
        key: str,
        statistics: SufficientStatistics,
        prepared: _Encrypted | None = None,
    ) -> None:
        if prepared is None or (prepared.gram == IN_FILE and not self._database.files.holds(prepared.key)):
            prepared = self._encrypt(statistics)
        replaced = connection.execute(select(_statistics.c.slot)).scalars().all()
        self._database.schedule_erasure(connection, replaced)
        (slot,) = self._database.new_keys(connection, 1)
        self._database.keys.put(slot, prepared.key)
        values = {"slot": slot, "width": statistics.width, "gram": prepared.gram, "moments": prepared.moments}
        # Overwriting a row of the same size takes half the time of deleting and inserting it.
        updated = connection.execute(update(_statistics).where(_statistics.c.key == key).values(**values))
        if updated.rowcount == 0:
            connection.execute(insert(_statistics).values(key=key, **values))
        self._written = _Written(slot, self._database.keys.key(slot), statistics)
