"""The change log: which parts of a partition changed records affect, so that a derivation can skip the rest.

Every change of the records has a revision. Changing records whose trie keys are known affects those trie keys
(`partitions.trie`); adding records, or changing one that the partition was fitted on, may affect everything. What
a revision affects is recorded in the transaction that makes the change, and discarded when the first model that
includes it is purged. The names of the table ``touched`` and its columns are part of the stored format.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from sqlalchemy import Column, Connection, Integer, String, Table, delete, insert, select

from lmeraser.storage.database import Database, schema

_EVERYTHING = ""  # in place of a partition or a trie key

_touched = Table(
    "touched",
    schema,
    Column("revision", Integer, primary_key=True),
    Column("partition", String, primary_key=True),
    Column("place", String, primary_key=True),
)


class ChangedTrieKey(NamedTuple):
    """The trie key, under one partition, of a record that changes.

    Attributes:
        partition: key of the partition.
        trie_key: of the record, before the change.
        sampled: whether the partition was fitted on the record.
    """

    partition: str
    trie_key: str
    sampled: bool


class ChangeLog:
    """The revisions of one workspace's records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def revision(self) -> int:
        """Number of changes so far; a model derived at another revision is out of date."""
        return int(self._database.get_metadata("revision") or 0)

    def record(self, connection: Connection, changed: Iterable[ChangedTrieKey] | None = None) -> None:
        """Record a change, in the transaction that makes it.

        Args:
            connection: of the transaction.
            changed: trie keys of the records that change; None: anything may be affected.
        """
        revision = int(self._database.get_metadata("revision", connection) or 0) + 1
        affected = {(key, _EVERYTHING if sampled else trie_key) for key, trie_key, sampled in changed or ()}
        rows = [
            {"revision": revision, "partition": key, "place": trie_key}
            for key, trie_key in sorted(affected or {(_EVERYTHING, _EVERYTHING)})
        ]
        connection.execute(insert(_touched), rows)
        self._database.set_metadata(connection, "revision", str(revision))

    def trie_keys(self, partition: str, *, since: int) -> set[str] | None:
        """The trie keys under a partition that were affected after a revision; None: possibly all of them."""
        now = self.revision
        query = select(_touched).where(_touched.c.revision > since)
        with self._database.reading() as connection:
            rows = [row for row in connection.execute(query) if row.partition in (partition, _EVERYTHING)]
        if {row.revision for row in rows} != set(range(since + 1, now + 1)):
            return None
        trie_keys = {row.place for row in rows}
        return None if _EVERYTHING in trie_keys else trie_keys

    def discard(self, *, until: int, connection: Connection | None = None) -> None:
        """Discard what is recorded up to a revision: the served model includes it, or no model is served."""
        with self._database.transaction(connection) as inner:
            if inner.execute(delete(_touched).where(_touched.c.revision <= until)).rowcount:
                self._database.mark_purged(inner, table=_touched.name)
