"""How a database is reached, and what only it can do: SQLite in a file, or a PostgreSQL server.

Both give every connection one state to read from and refuse half-done transactions. They differ in how the bytes
of deleted rows are removed, and in how a writer keeps others out. Transactions that change something come one
after the other, each from its first statement on: so what one reads is still so when it writes, and none has to
be repeated. Follows SQLAlchemy; knows nothing about tables, but for the one that it locks.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, OperationalError

from lmeraser.errors import ConfigError, CorruptError, LockedError, StorageError

_WRITER = 0x6C6D6572  # key of the advisory lock, "lmer"
_PATIENCE = 0.2  # seconds between two looks whether a lock is free
_WAIT = 30  # seconds, for other programs that use an SQLite file
_TURN = 0.002  # seconds between two tries to begin to write to one


class DatabaseBackend(Protocol):
    """A database that was found."""

    engine: Engine
    shown: str  # where it is, without secrets
    trouble: str  # what to do when it refuses
    rescue: str  # what to do when it is damaged

    def size(self) -> int:
        """Bytes that it takes."""
        ...

    def rewrite(self, tables: Iterable[str]) -> None:
        """Rewrite tables without the bytes of deleted rows."""
        ...

    def empty_log(self) -> None:
        """Remove what the log holds of earlier states, as far as that can be done."""
        ...

    def writer_lock(self, wait: float) -> contextlib.AbstractContextManager[None]:
        """Be the one writer, also among those who do not share the workspace's folder."""
        ...

    def write_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that others wait for who want to change something."""
        ...

    def schema_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that may change tables."""
        ...


def reach(where: Path | str) -> DatabaseBackend:
    """The database in this SQLite file, or at this URL."""
    return SQLite(where) if isinstance(where, Path) else PostgreSQL(where)


class SQLite:
    """A file.

    Args:
        path: of it; made if it is missing.
    """

    trouble = "free some space or check the permissions, then run the same command again"
    rescue = "restore records.db from a backup"

    def __init__(self, path: Path) -> None:
        self.shown, self._path = str(path), path
        where = URL.create("sqlite", database=str(path))
        self.engine = create_engine(where, connect_args={"timeout": _WAIT}, hide_parameters=True)
        self._changing = self.engine.execution_options(changing=True)
        event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)

    def size(self) -> int:
        """Bytes of the file."""
        return self._path.stat().st_size

    def rewrite(self, tables: Iterable[str]) -> None:
        """Rewrite all of the file.

        ``secure_delete`` overwrites freed cells; only rewriting also removes copies that the B-tree left behind in
        the gaps of pages that are still in use.
        """
        with self.engine.connect() as connection:
            connection.execution_options(isolation_level="AUTOCOMMIT").exec_driver_sql("VACUUM")
        self.empty_log()

    def empty_log(self) -> None:
        """Empty the write-ahead log.

        Raises:
            StorageError: another program reads what is in it, and did not finish in time.
        """
        with self.engine.connect() as connection:
            free = connection.execution_options(isolation_level="AUTOCOMMIT")

            def emptied() -> bool:
                return not free.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]

            # SQLite waits for readers by itself, but not for the checkpoint that somebody's commit sets off.
            if not _in_time(emptied, _WAIT, _PATIENCE):
                raise StorageError(
                    "The database's log can be emptied, so that no deleted byte stays in it.",
                    got=f"another program is reading {self.shown}",
                    next_step="let it finish, then run 'lmeraser purge'",
                )

    @contextlib.contextmanager
    def writer_lock(self, wait: float) -> Iterator[None]:
        """The workspace's lock file is enough."""
        yield

    def write_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that others wait for who want to change something."""
        return self._changing.begin()

    @contextlib.contextmanager
    def schema_transaction(self) -> Iterator[Connection]:
        """A transaction in which a table can be replaced without its rows taking others along.

        Raises:
            CorruptError: rows are left without what they belong to; nothing was changed then.
        """
        event.listen(self.engine, "connect", _without_foreign_keys)
        try:
            with self.engine.begin() as connection:
                yield connection
                if left := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                    raise CorruptError("Every row has what it belongs to.", got=f"{len(left)} rows have not")
        finally:
            event.remove(self.engine, "connect", _without_foreign_keys)
            self.engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    # Without foreign keys features would outlive their record; without secure_delete its bytes would.
    # A cache of 32 MB holds the sums, so that their pages are written once. In larger pages, which are chosen when
    # the file is made, several records' features fit, and rewriting takes a bit more than half of the time.
    pragmas = ("page_size=16384", "journal_mode=WAL", "foreign_keys=ON", "secure_delete=ON", "synchronous=FULL")
    for pragma in (*pragmas, "cache_size=-32000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _without_foreign_keys(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=OFF")  # has no effect within a transaction
    cursor.close()


def _begin(connection: Connection) -> None:
    # By itself the driver begins at the first change only, and what is read before may be of another state.
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    if options.get("changing"):
        _begin_to_write(connection)
    else:
        connection.exec_driver_sql("BEGIN")


def _begin_to_write(connection: Connection) -> None:
    """Begin a transaction that writes, as soon as the one before has ended.

    SQLite itself would look for that at ever longer intervals, and come up to a tenth of a second late.
    """

    def begun() -> bool:
        try:
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        except OperationalError as error:
            if getattr(error.orig, "sqlite_errorcode", 0) & 0xFF != sqlite3.SQLITE_BUSY:
                raise
            return False
        return True

    connection.exec_driver_sql("PRAGMA busy_timeout=0")
    try:
        if not _in_time(begun, _WAIT, _TURN):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # says why not
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={1000 * _WAIT}")


def _in_time(attempt: Callable[[], bool], wait: float, pause: float) -> bool:
    """Whether an attempt succeeds within ``wait`` seconds; it is repeated after each ``pause``."""
    until = time.monotonic() + wait
    while not attempt():
        if time.monotonic() >= until:
            return False
        time.sleep(pause)
    return True


class PostgreSQL:
    """A database of a PostgreSQL server (extra ``postgresql``); one for each workspace.

    Args:
        url: ``postgresql://USER@HOST/NAME``. A password is better kept in ``~/.pgpass`` or ``PGPASSWORD``.

    Raises:
        ConfigError: it is no such URL, or the driver is not installed.
    """

    trouble = "see whether the server runs, has space and lets you in, then run the same command again"
    rescue = "restore the database from a backup"

    def __init__(self, url: str) -> None:
        try:
            parsed = make_url(url)
            if parsed.get_backend_name() != "postgresql":
                raise ValueError(f"a URL of {parsed.get_backend_name()}")
            self.engine = create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                isolation_level="REPEATABLE READ",
                pool_pre_ping=True,
                hide_parameters=True,
                connect_args={"options": "-c lock_timeout=30000 -c synchronous_commit=on"},
            )
        except (ImportError, ValueError, ArgumentError) as error:
            # What an ArgumentError says has the URL in it, password and all.
            raise ConfigError(
                "storage.database is the URL of a PostgreSQL database, and psycopg is installed.",
                got=str(error) if isinstance(error, ImportError) else "something else",
                next_step="write postgresql://USER@HOST/NAME; pip install 'lmeraser[postgresql]'",
            ) from None
        self.shown = parsed.render_as_string(hide_password=True)

    def size(self) -> int:
        """Bytes of the database."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    def rewrite(self, tables: Iterable[str]) -> None:
        """Rewrite tables; what the server's log and its archive keep is out of reach, and sealed."""
        with self.engine.connect() as connection:
            free = connection.execution_options(isolation_level="AUTOCOMMIT")
            for table in tables:
                free.exec_driver_sql(f'VACUUM (FULL) "{table}"')

    def empty_log(self) -> None:
        """The server's log is the server's business."""

    @contextlib.contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """A transaction that others wait for who want to change something."""
        with self.engine.begin() as connection:
            # The one kind of lock that is taken before the transaction's state is fixed (REPEATABLE READ).
            connection.exec_driver_sql("LOCK TABLE facts IN SHARE ROW EXCLUSIVE MODE")
            yield connection

    def schema_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction; tables are changed in it like rows."""
        return self.engine.begin()

    @contextlib.contextmanager
    def writer_lock(self, wait: float) -> Iterator[None]:
        """Hold an advisory lock on a connection of its own; the server frees it when the process ends.

        Raises:
            LockedError: somebody else holds it, and did not finish in time.
        """
        with self.engine.connect() as connection:
            held = connection.execution_options(isolation_level="AUTOCOMMIT")

            def locked() -> bool:
                return bool(held.execute(text(f"SELECT pg_try_advisory_lock({_WRITER})")).scalar_one())

            if not _in_time(locked, wait, _PATIENCE):
                raise LockedError(
                    "One process at a time changes a workspace.",
                    got=f"another one is writing to {self.shown}",
                    next_step="wait for it to finish, or give a longer --wait",
                )
            try:
                yield
            finally:
                held.execute(text(f"SELECT pg_advisory_unlock({_WRITER})"))
