"""Stored values that were derived from one record each: its features, and its trie keys under partitions.

Both are deleted with their record, by foreign key. Features are encrypted under the record's key; trie keys are
not, so that records under a path of the trie can be counted and listed by the database. The names of tables and
columns are part of the stored format: the column ``place`` of the table ``places`` holds trie keys.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sqlalchemy import Boolean, Column, Connection, Index, String, and_, delete, func, insert, or_, select

from lmeraser.core.digests import Digest
from lmeraser.data.changelog import ChangedTrieKey
from lmeraser.data.identities import RecordIndex, RecordMetadata, records_table
from lmeraser.storage.database import CodePointString, chunked, encrypted, per_record_table

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SCANNED = 1024  # features in memory at once while all of them are read

_features = per_record_table("features", Column("key", String, nullable=False), encrypted("data", what="features"))
_trie_keys = per_record_table(
    "places",  # under the served partition, and under one that is being derived
    Column("partition", CodePointString, primary_key=True),
    Column("place", CodePointString, nullable=False),
    Column("sampled", Boolean, nullable=False),
    Index("places_by_place", "partition", "place", "number"),  # all that a plan reads
)


class DerivedValues:
    """Features and trie keys of the records of one workspace.

    Args:
        index: metadata of the records.
    """

    def __init__(self, index: RecordIndex) -> None:
        self._index = index
        self._database = index.database

    # --- features --------------------------------------------------------------------------------------

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Stored features, float32 [d], of those ids that have them under ``key``."""
        import numpy as np

        found = self._index.payloads(_features, ids, _features.c.key == key)
        return {record_id: np.frombuffer(data, dtype=np.float32) for record_id, data in found.items()}

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Store features, replacing older ones of the same records.

        Args:
            vectors: float32 [d] of each record id.
            key: identifies what features depend on besides the image.

        Raises:
            UnknownRecordError: one of the records does not exist.
        """
        keys = self._database.keys
        with self._database.transaction() as connection:
            for chunk in chunked(vectors):
                numbers = self._index.require_numbers(chunk, connection)
                rows = [
                    {
                        "number": number,
                        "key": key,
                        "data": keys.encrypt(number, "features", vectors[i].astype("float32").tobytes()),
                    }
                    for i, number in numbers.items()
                ]
                connection.execute(delete(_features).where(_features.c.number.in_(numbers.values())))
                connection.execute(insert(_features), rows)

    def feature_keys(self, ids: Iterable[str]) -> dict[str, str]:
        """The key under which each of these records has features; records without any are left out."""
        query = select(records_table.c.id, _features.c.key).join_from(records_table, _features)
        return dict(self._index.select_by_id(query, set(ids), lambda name, row: (name, row.key)))

    def all_features(self, *, key: str) -> Iterator[tuple[list[int], NDArray[np.float32]]]:
        """All features stored under ``key`` with their records' numbers, in chunks: float32 [n, d]."""
        import numpy as np

        query = select(_features.c.number, _features.c.data).where(_features.c.key == key)
        query = query.order_by(_features.c.number).limit(_SCANNED)
        keys = self._database.keys

        def decrypt(row: Any) -> tuple[int, bytes]:
            return row.number, keys.decrypt(row.number, "features", row.data)

        last = -1
        while rows := self._database.fetch(query.where(_features.c.number > last), decrypt):
            numbers, data = zip(*rows, strict=True)
            yield list(numbers), np.frombuffer(b"".join(data), dtype=np.float32).reshape(len(rows), -1)
            last = numbers[-1]

    def reencrypt(self, connection: Connection, old: int, number: int) -> None:
        """Encrypt the features of a record that got a new number under its new key."""
        self._index.reencrypt(connection, _features, old, number)

    # --- trie keys -------------------------------------------------------------------------------------

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Stored trie keys under a partition.

        Args:
            partition: key of the partition.
            ids: of the records to look up; None: all records.
        """
        under_partition = _trie_keys.c.partition == str(partition)
        if ids is None:
            return self._trie_keys_where(under_partition)
        query = select(records_table.c.id, _trie_keys.c.place).join_from(records_table, _trie_keys)
        return dict(
            self._index.select_by_id(query.where(under_partition), ids, lambda name, row: (name, row.place))
        )

    def store_trie_keys(self, trie_keys: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        """Store trie keys under a partition; those under other partitions stay.

        Args:
            trie_keys: of each record id.
            partition: key of the partition.
            sampled: whether the partition was fitted on these records.

        Raises:
            UnknownRecordError: one of the records does not exist.
        """
        common = {"partition": str(partition), "sampled": sampled}
        under_partition = _trie_keys.c.partition == str(partition)
        with self._database.transaction() as connection:
            for chunk in chunked(trie_keys):
                numbers = self._index.require_numbers(chunk, connection)
                older = _trie_keys.c.number.in_(numbers.values())
                connection.execute(delete(_trie_keys).where(under_partition, older))
                rows = [{"number": number, "place": trie_keys[i], **common} for i, number in numbers.items()]
                connection.execute(insert(_trie_keys), rows)

    def trie_keys_under(self, partition: Digest, path: str) -> dict[str, str]:
        """Trie keys, by record id, of the records under one path (`partitions.trie`) of a partition."""
        return self._trie_keys_where(_under(partition, path))

    def trie_keys_by_number(self, partition: Digest, path: str) -> dict[str, str]:
        """Trie keys, by record number, of the records under one path; faster, because no id is decrypted."""
        query = select(_trie_keys.c.number, _trie_keys.c.place).where(_under(partition, path))
        return dict(self._database.fetch(query, lambda row: (str(row.number), row.place)))

    def numbers(self, ids: Iterable[str]) -> dict[str, int]:
        """The number of each of these records, as `all_features` returns them."""
        return dict(self._index.numbers(ids))

    def record_numbers(self, ids: Iterable[str]) -> set[str]:
        """Record numbers of these ids, as `trie_keys_by_number` returns them."""
        return {str(number) for number in self._index.numbers(ids).values()}

    def count_under(self, partition: Digest, path: str) -> int:
        """Number of records under one path of a partition."""
        query = select(func.count()).select_from(_trie_keys).where(_under(partition, path))
        with self._database.reading() as connection:
            return int(connection.execute(query).scalar_one())

    def any_sampled(self, partition: Digest, ids: Iterable[str]) -> bool:
        """Whether a partition was fitted on one of these records."""
        sampled = and_(_trie_keys.c.partition == str(partition), _trie_keys.c.sampled)
        query = select(records_table.c.id).join_from(records_table, _trie_keys).where(sampled)
        return any(self._index.select_by_id(query, ids, lambda *_: True))

    def sampled(self, partition: Digest) -> list[str]:
        """Ids of the records that a partition was fitted on, in any order."""
        query = select(records_table.c.number, records_table.c.card).join_from(_trie_keys, records_table)
        keys = self._database.keys
        where = query.where(_trie_keys.c.partition == str(partition), _trie_keys.c.sampled)
        return self._database.fetch(where, lambda row: RecordMetadata.decrypt(keys, row).id)

    def trie_keys_of(self, ids: Sequence[str], connection: Connection) -> list[ChangedTrieKey]:
        """Trie keys of these records under every partition, for the change log."""
        columns = _trie_keys.c.partition, _trie_keys.c.place, _trie_keys.c.sampled
        query = select(records_table.c.id, *columns).join_from(records_table, _trie_keys)

        def each(_: str, row: Any) -> ChangedTrieKey:
            return ChangedTrieKey(row.partition, row.place, row.sampled)

        return list(self._index.select_by_id(query, ids, each, connection))

    def keep_partition(self, partition: Digest, connection: Connection | None = None) -> None:
        """Delete the trie keys under every partition but this one."""
        with self._database.transaction(connection) as inner:
            # Two ranges, which the index finds at once; "!=" would read every row.
            other = or_(_trie_keys.c.partition < str(partition), _trie_keys.c.partition > str(partition))
            if inner.execute(delete(_trie_keys).where(other)).rowcount:
                self._database.mark_purged(inner)

    # --- both ------------------------------------------------------------------------------------------

    def clear(self, connection: Connection) -> None:
        """Delete all features and trie keys; they are derived again when they are needed."""
        connection.execute(delete(_features))
        connection.execute(delete(_trie_keys))

    def _trie_keys_where(self, condition: Any) -> dict[str, str]:
        columns = records_table.c.number, records_table.c.card, _trie_keys.c.place
        query = select(*columns).join_from(_trie_keys, records_table).where(condition)
        keys = self._database.keys
        return dict(self._database.fetch(query, lambda row: (RecordMetadata.decrypt(keys, row).id, row.place)))


def _under(partition: Digest, path: str) -> Any:
    """Condition on trie keys to lie under a path: the path itself, or the path continued with bits."""
    trie_key = _trie_keys.c.place
    # As one range, which the index finds at once: "0" follows "/", and "2" follows the bits.
    stop = f"{path}{'2' if '/' in path else '0'}"
    return and_(_trie_keys.c.partition == str(partition), trie_key >= path, trie_key < stop)
