"""The workspace's SQL database: connections, transactions, small facts, and removal of freed bytes.

Every change of private records, deletion requests and the ledger's outbox is one transaction, so that after a
crash all of it happened or none. SQLite with ``secure_delete``, write-ahead log and full synchronisation.
Follows SQLAlchemy Core; knows nothing about what the tables of other modules mean.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import (
    URL,
    Column,
    Connection,
    Engine,
    ForeignKey,
    Index,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from lmeraser.errors import CorruptError, StorageError

T = TypeVar("T")

_IN_CHUNK = 500  # values per SQL statement; databases limit the number of parameters

metadata = MetaData()
facts = Table("facts", metadata, Column("name", String, primary_key=True), Column("value", String, nullable=False))


def owned(name: str, *columns: Column[Any] | Index) -> Table:
    """A table of things that belong to one record and are deleted with it."""
    owner = Column("id", String, ForeignKey("records.id", ondelete="CASCADE"), primary_key=True)
    return Table(name, metadata, owner, *columns)


class Database:
    """One SQLite file with the tables of every module that was imported before.

    Args:
        path: the file; made if it is missing.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _sqlite(path)
        with self._translated():
            metadata.create_all(self._engine)

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self) -> Iterator[Connection]:
        """A connection to read with.

        Raises:
            StorageError: the database cannot be read.
            CorruptError: the file is damaged.
        """
        with self._translated(), self._engine.connect() as connection:
            yield connection

    @contextlib.contextmanager
    def transaction(self, connection: Connection | None = None) -> Iterator[Connection]:
        """One transaction: committed at the end, rolled back on any exception.

        Args:
            connection: of a transaction that is under way, which this one then is a part of.

        Raises:
            StorageError: the database cannot write (disk full, read-only, locked by another program).
            CorruptError: the file is damaged.
        """
        if connection is not None:
            yield connection
            return
        with self._translated(), self._engine.begin() as own:
            yield own

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        """Turn the database's errors into ours."""
        try:
            yield
        except (OperationalError, IntegrityError) as error:
            raise StorageError(
                "The database can be read and takes what is written to it.",
                got=f"{self.path}: {error.orig}",
                next_step="free some space or check the permissions, then run the same command again",
            ) from error
        except DatabaseError as error:
            raise CorruptError(
                "The records are an intact SQLite database.",
                got=f"{self.path}: {error.orig}",
                next_step="restore records.db from a backup",
            ) from error

    # --- reading and facts -----------------------------------------------------------------------------

    def rows(self, query: Any, column: Any, values: Iterable[Any]) -> Iterator[Any]:
        """Rows of ``query`` where ``column`` is one of ``values``, however many there are."""
        with self.reading() as connection:
            for chunk in chunked(list(values)):
                yield from connection.execute(query.where(column.in_(chunk))).all()

    def fact(self, name: str, connection: Connection | None = None) -> str | None:
        """A small named value, or None."""
        query = select(facts.c.value).where(facts.c.name == name)
        if connection is not None:
            return connection.execute(query).scalar_one_or_none()
        with self.reading() as own:
            return own.execute(query).scalar_one_or_none()

    def set_fact(self, connection: Connection, name: str, value: str) -> None:
        """Set a small named value."""
        changed = connection.execute(update(facts).where(facts.c.name == name).values(value=value))
        if changed.rowcount == 0:
            connection.execute(insert(facts).values(name=name, value=value))

    # --- freed bytes -----------------------------------------------------------------------------------

    @property
    def compaction_due(self) -> bool:
        """Whether something was deleted since the database was last compacted."""
        return self.fact("compaction") == "due"

    def need_compaction(self, connection: Connection) -> None:
        """Note that something was deleted whose bytes must go."""
        self.set_fact(connection, "compaction", "due")

    def compact(self) -> None:
        """Rewrite the database without free space and empty its log, so that no deleted byte stays in it.

        ``secure_delete`` overwrites freed cells; only rewriting also removes copies that the B-tree left
        behind in the gaps of pages that are still in use. It stays due until both are done.

        Raises:
            StorageError: there is no space for the rewritten file, or another program reads the old one.
        """
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")
        self._empty_log()
        with self.transaction() as connection:
            self.set_fact(connection, "compaction", "done")
        self._empty_log()

    def _empty_log(self) -> None:
        with self._translated(), self._engine.connect() as connection:
            result = connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql(
                "PRAGMA wal_checkpoint(TRUNCATE)"
            )
            busy = result.one()[0]
        if busy:
            raise StorageError(
                "The database's log can be emptied, so that no deleted byte stays in it.",
                got=f"another program is reading {self.path}",
                next_step="let it finish, then run 'lmeraser purge'",
            )


def chunked(items: Iterable[T]) -> Iterator[Sequence[T]]:
    """Items in lists short enough for one SQL statement."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _IN_CHUNK)):
        yield chunk


def _sqlite(path: Path) -> Engine:
    engine = create_engine(URL.create("sqlite", database=str(path)), connect_args={"timeout": 30})

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        # Without foreign keys features would outlive their record; without secure_delete its bytes would.
        # A cache of 32 MB holds the sums, so that their pages are written once.
        pragmas = ("journal_mode=WAL", "foreign_keys=ON", "secure_delete=ON", "synchronous=FULL")
        for pragma in (*pragmas, "cache_size=-32000"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    return engine
