"""Which parts of a partition the changes of the records touched, so that a request looks at those parts only.

Every change of the records has a revision. A change of records whose places are known touches these places
(`grouping`); one that adds records, or that changes a record which shaped the partition, may touch everything.
What a revision touched is noted in the transaction that makes it, and forgotten with the purge of the first model
that has it.

Follows `database`; knows nothing about records and models.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Column, Connection, Integer, String, Table, delete, insert, select

from lmeraser.storage.database import Database, tables

_EVERYTHING = ""  # instead of a partition or a place

_touched = Table(
    "touched",
    tables,
    Column("revision", Integer, primary_key=True),
    Column("partition", String, primary_key=True),
    Column("place", String, primary_key=True),
)


class Changes:
    """The revisions of one workspace's records."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @property
    def revision(self) -> int:
        """Counts the changes; a model derived at another revision is out of date."""
        return int(self._database.get_metadata("revision") or 0)

    def note(self, connection: Connection, places: Iterable[tuple[str, str, bool]] | None = None) -> None:
        """Note a change, in the transaction that makes it.

        Args:
            connection: of the transaction.
            places: key of the partition, place, and whether it shaped the partition, of every record that
                changes, before it does; None: anything may be touched.
        """
        revision = int(self._database.get_metadata("revision", connection) or 0) + 1
        touched = {(key, _EVERYTHING if shaped else place) for key, place, shaped in places or ()}
        rows = [
            {"revision": revision, "partition": key, "place": place}
            for key, place in sorted(touched or {(_EVERYTHING, _EVERYTHING)})
        ]
        connection.execute(insert(_touched), rows)
        self._database.set_metadata(connection, "revision", str(revision))

    def trie_keys(self, partition: str, *, since: int) -> set[str] | None:
        """The places under a partition that were touched after a revision; None: it may be all of them."""
        now = self.revision
        query = select(_touched).where(_touched.c.revision > since)
        with self._database.reading() as connection:
            rows = [row for row in connection.execute(query) if row.partition in (partition, _EVERYTHING)]
        if {row.revision for row in rows} != set(range(since + 1, now + 1)):
            return None
        places = {row.place for row in rows}
        return None if _EVERYTHING in places else places

    def forget(self, *, until: int) -> None:
        """Forget what was touched up to a revision: it is in the served model, or none is served."""
        with self._database.transaction() as connection:
            connection.execute(delete(_touched).where(_touched.c.revision <= until))
