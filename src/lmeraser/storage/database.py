"""The workspace's SQL database: connections, transactions, small facts, and what happens to deleted bytes.

Every change of private records, deletion requests and the ledger's outbox is one transaction, so that after a
crash all of it happened or none. What must be forgettable is sealed (`keys`): a transaction dooms keys, and after
it they are overwritten, so that no copy of the deleted bytes can be read any more, wherever it is. What is not
sealed (numbers, keyed digests, places) stays in free pages until the file is rewritten, at once while it is small.
Follows `engines` and SQLAlchemy Core; knows nothing about what the tables of other modules mean.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    cast,
    delete,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from lmeraser.errors import CorruptError, StorageError
from lmeraser.storage.engines import reach
from lmeraser.storage.keystore import FIRST_SLOT, ErasedError, KeyStore
from lmeraser.storage.migrate import prepare

T = TypeVar("T")

_IN_CHUNK = 500  # values per SQL statement; databases limit the number of parameters
_SMALL = 64 << 20  # bytes; a database of this size is rewritten within about a second
_TRIES = 10  # at reading what others delete meanwhile

tables = MetaData()
Sorted = String().with_variant(String(collation="C"), "postgresql")  # by code points, everywhere
workspace_metadata = Table(
    "facts", tables, Column("name", String, primary_key=True), Column("value", String, nullable=False)
)
_erasures = Table("doomed", tables, Column("slot", Integer, primary_key=True, autoincrement=False))


def owned(name: str, *columns: Column[Any] | Index) -> Table:
    """A table of things that belong to one record and are deleted with it."""
    record = ForeignKey("records.number", ondelete="CASCADE", onupdate="CASCADE")
    return Table(name, tables, Column("number", Integer, record, primary_key=True), *columns)


def encrypted(name: str, *, what: str, slot: str = "number", nullable: bool = False) -> Column[Any]:
    """A column of sealed bytes.

    Args:
        name: of the column.
        what: kind of what is sealed.
        slot: name of the column with the slot of the key.
        nullable: whether it may hold nothing.
    """
    return Column(name, LargeBinary, nullable=nullable, info={"what": what, "slot": slot})


class Database:
    """A database with the tables of all modules.

    Args:
        where: the SQLite file, made if it is missing; or the URL of a PostgreSQL database.
        keys: the file of keys; beside the SQLite file if None.

    Raises:
        FormatError: the database has the tables of another version of lmeraser.
    """

    def __init__(self, where: Path | str, *, keys: Path | None = None) -> None:
        self._reached = reach(where)
        self._engine = self._reached.engine
        self.keys = KeyStore(keys or Path(where).with_suffix(".keys"))
        try:
            with self._translated():
                prepare(self._reached)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self, connection: Connection | None = None) -> Iterator[Connection]:
        """A connection to read with; all that it reads is of one state.

        Args:
            connection: one that is open, which is taken then.

        Raises:
            StorageError: the database cannot be read.
            CorruptError: the file is damaged.
        """
        if connection is not None:
            yield connection
            return
        with self._translated(), self._engine.connect() as own:
            yield own

    @contextlib.contextmanager
    def transaction(self, connection: Connection | None = None) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back on any exception. Others wait who want to write.

        Args:
            connection: of a transaction that is under way, which this one then is a part of.

        Raises:
            StorageError: the database cannot write (disk full, read-only, locked by another program).
            CorruptError: the file is damaged.
        """
        if connection is not None:
            yield connection
            return
        with self._translated(), self._reached.write_transaction() as own:
            yield own
            self.keys.flush()  # before anything that is sealed under them

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the database's errors into ours."""
        try:
            yield
        except (OperationalError, IntegrityError) as error:
            raise StorageError(
                "The database can be read and takes what is written to it.",
                got=f"{self._reached.shown}: {error.orig}",
                next_step=self._reached.trouble,
            ) from error
        except DatabaseError as error:
            raise CorruptError(
                "The records are an intact database.",
                got=f"{self._reached.shown}: {error.orig}",
                next_step=self._reached.rescue,
            ) from error

    # --- reading and facts -----------------------------------------------------------------------------

    def rows(
        self,
        query: Any,
        column: Any,
        values: Iterable[Any],
        each: Callable[[Any], T],
        connection: Connection | None = None,
    ) -> Iterator[T]:
        """``each`` row of ``query`` where ``column`` is one of ``values``, however many there are."""
        for chunk in chunked(values):
            yield from self.every(query.where(column.in_(chunk)), each, connection)

    def every(self, query: Any, each: Callable[[Any], T], connection: Connection | None = None) -> list[T]:
        """``each`` row of ``query``."""

        def read(inner: Connection) -> list[T]:
            return [each(row) for row in inner.execute(query)]

        return read(connection) if connection is not None else self.consistent(read)

    def consistent(self, read: Callable[[Connection], T]) -> T:
        """What ``read`` finds in one state of the database, whatever others write meanwhile.

        Raises:
            ErasedError: keys are erased, and what they seal is still there.
        """
        for _ in range(_TRIES):
            with contextlib.suppress(ErasedError), self.reading() as connection:
                return read(connection)
        with self.reading() as connection:
            return read(connection)

    def get_metadata(self, name: str, connection: Connection | None = None) -> str | None:
        """A small named value, or None."""
        query = select(workspace_metadata.c.value).where(workspace_metadata.c.name == name)
        with self.reading(connection) as own:
            return own.execute(query).scalar_one_or_none()

    def set_metadata(self, connection: Connection, name: str, value: str) -> None:
        """Set a small named value."""
        changed = connection.execute(
            update(workspace_metadata).where(workspace_metadata.c.name == name).values(value=value)
        )
        if changed.rowcount == 0:
            connection.execute(insert(workspace_metadata).values(name=name, value=value))

    # --- deleted bytes ---------------------------------------------------------------------------------

    def new_keys(self, connection: Connection, count: int) -> range:
        """Slots of new keys, for what this transaction writes."""
        more = cast(cast(workspace_metadata.c.value, Integer) + count, String)
        # Written before it is read: from then on nobody else can have these slots.
        if (
            connection.execute(
                update(workspace_metadata).where(workspace_metadata.c.name == "slots").values(value=more)
            ).rowcount
            == 0
        ):
            self.set_metadata(connection, "slots", str(FIRST_SLOT + count))
        stop = int(self.get_metadata("slots", connection) or 0)
        slots = range(stop - count, stop)
        self.keys.make(slots)
        return slots

    def schedule_erasure(self, connection: Connection, slots: Iterable[int]) -> None:
        """Note keys of what this transaction deletes; `erase` overwrites them after it."""
        for chunk in chunked({"slot": slot} for slot in slots):
            connection.execute(insert(_erasures), chunk)

    def erase(self) -> None:
        """Overwrite the keys of everything that was deleted, so that no copy of it can be read."""
        if slots := self.every(select(_erasures.c.slot), lambda row: row.slot):
            self.keys.erase(slots)
            with self.transaction() as connection:
                for chunk in chunked(slots):
                    connection.execute(delete(_erasures).where(_erasures.c.slot.in_(chunk)))

    def opened(self) -> Iterator[tuple[str, bytes]]:
        """Name of the table and content of everything sealed that can be read."""
        columns = [column for table in tables.tables.values() for column in table.columns if column.info]
        for column in columns:
            what, slot = column.info["what"], column.table.c[column.info["slot"]]
            with self.reading() as connection:
                rows = connection.execute(select(slot, column).where(column.is_not(None)))
                for number, data in rows.yield_per(_IN_CHUNK):
                    with contextlib.suppress(ErasedError):
                        yield column.table.name, self.keys.decrypt(number, what, data)

    @property
    def compaction_due(self) -> bool:
        """Whether something was deleted since the database was last compacted."""
        return self.get_metadata("compaction") in ("due", "under way")

    @property
    def small(self) -> bool:
        """Whether the database can be compacted at every deletion."""
        with self._translated():
            return self._reached.size() <= _SMALL

    def need_compaction(self, connection: Connection) -> None:
        """Note that something was deleted."""
        self.set_metadata(connection, "compaction", "due")

    def compact(self) -> None:
        """Rewrite the database without the bytes of deleted rows. It stays due until that is done.

        Raises:
            StorageError: there is no space for the rewritten file, or another program reads the old one.
        """
        with self.transaction() as connection:
            self.set_metadata(connection, "compaction", "under way")
        with self._translated():
            self._reached.rewrite(tables.tables)
        with self.transaction() as connection:
            if self.get_metadata("compaction", connection) == "under way":  # else something was deleted meanwhile
                self.set_metadata(connection, "compaction", "done")
        with self._translated():
            self._reached.empty_log()

    def writer_lock(self, wait: float) -> contextlib.AbstractContextManager[None]:
        """Be the one writer, also among those who do not share the workspace's folder."""
        return self._reached.writer_lock(wait)


def chunked(items: Iterable[T]) -> Iterator[Sequence[T]]:
    """Items in lists short enough for one SQL statement."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _IN_CHUNK)):
        yield chunk
