"""Database backends: SQLite in a file, or a PostgreSQL server.

Both give every connection one state to read from and commit transactions whole or not at all. They differ in how
the bytes of deleted rows are removed and in how a writer excludes others. Transactions that write run one after
the other, each from its first statement on: what one of them reads is still true when it writes, and none has to
be repeated. Uses SQLAlchemy; knows no tables except the one that it locks.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DatabaseError, DisconnectionError

from lmeraser.core.atomic_files import open_private
from lmeraser.errors import ConfigError, CorruptError, LockedError, StorageError

_ADVISORY_LOCK = 0x6C6D6572  # "lmer"
_POLL_INTERVAL = 0.2  # seconds, while a lock is held or a log is read by others
_SQLITE_TIMEOUT = 30  # seconds, for other programs that use the file
# As many as the threads of a service: those of a pool's overflow are opened and configured for each use, and who
# finds none at all waits. A program that reads in one thread opens one.
_SQLITE_CONNECTIONS = 32
# Seconds between two attempts to begin a transaction that writes. Another process may have several, one after the
# other, and whoever waits has to come in between.
_SQLITE_WRITE_INTERVAL = 0.0005
_CACHE = -32_000  # KB, as SQLite wants it
_LARGE_CACHE = -256_000
COPY_TO_WRITE = "copy the workspace with all of its files to a folder that you may write to, and name it with -w"
_STATE = "state"  # of the file that a connection for reading was opened in
_FRESH = "fresh"  # it was opened just now
_COPIED_IN_MEMORY = 64 << 20  # bytes; a larger file is copied to a temporary one while it is rewritten


class _FileState(NamedTuple):
    """What of an SQLite file changes when somebody writes to it.

    Attributes:
        logged: whether its log has something.
        modified: time, ns.
        size: bytes.
    """

    logged: bool
    modified: int
    size: int


class DatabaseBackend(Protocol):
    """What differs between databases.

    Attributes:
        engine: SQLAlchemy's engine.
        display_name: path or URL, without secrets.
        advice_if_unavailable: next step when the database cannot be read or written.
        advice_if_damaged: next step when its contents are damaged.
    """

    engine: Engine
    display_name: str
    advice_if_unavailable: str
    advice_if_damaged: str

    def size(self) -> int:
        """Size in bytes."""
        ...

    def rewrite(self, tables: Iterable[str]) -> None:
        """Rewrite tables without the bytes of deleted rows."""
        ...

    def rewrite_table(self, table: str) -> None:
        """Rewrite one small table without the bytes of its deleted and overwritten rows."""
        ...

    def empty_log(self) -> None:
        """Remove earlier states from the log, as far as it is under our control."""
        ...

    def writer_lock(self, wait: float) -> contextlib.AbstractContextManager[None]:
        """The lock of the one writer, also among processes that do not share the workspace's folder."""
        ...

    def write_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that writes; other writers wait for it."""
        ...

    def keeping_pages(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """A part of a transaction that writes to all parts of large tables, in no order."""
        ...

    def schema_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that may change tables."""
        ...

    def unchanged(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """A part in which a connection reads, after which it is certain that it has read one state."""
        ...


def open_backend(where: Path | str) -> DatabaseBackend:
    """The backend for the path of an SQLite file or the URL of a PostgreSQL database."""
    return SQLite(where) if isinstance(where, Path) else PostgreSQL(where)


class SQLite:
    """An SQLite database.

    Where nothing can be written beside the file, it is opened for reading: with its log, if others have written to
    that; else as a file that does not change, because SQLite would have to create a log to see whether it does.
    Whether it did is compared before and after every use (`unchanged`), by time and size of the file, and its log.

    Args:
        path: of the file; created if it is missing.
    """

    advice_if_unavailable = "free some space or check the permissions, then run the same command again"
    advice_if_damaged = "restore records.db from a backup"

    def __init__(self, path: Path) -> None:
        self.display_name = str(path)
        self._path = path
        self._log = path.with_name(f"{path.name}-wal")
        self._read_only = path.exists() and not os.access(path.parent, os.W_OK)
        url = URL.create("sqlite", database=str(path))
        self.engine = create_engine(
            url, connect_args={"timeout": _SQLITE_TIMEOUT}, hide_parameters=True, pool_size=_SQLITE_CONNECTIONS
        )
        self._writing = self.engine.execution_options(writing=True)
        if self._read_only:
            self.advice_if_unavailable = COPY_TO_WRITE
            event.listen(self.engine, "do_connect", self._open_for_reading)
            event.listen(self.engine, "checkout", self._refuse_outdated)
            event.listen(self.engine, "connect", _configure_for_reading)
        else:
            event.listen(self.engine, "do_connect", self._create_privately)
            event.listen(self.engine, "connect", _configure)
        event.listen(self.engine, "begin", _begin)

    def _create_privately(self, *_: object) -> None:
        """Create a missing file for its owner alone, before SQLite does so for everybody; its log is alike."""
        with contextlib.suppress(OSError):  # SQLite says what is wrong
            if not self._path.exists():
                open_private(self._path, "ab").close()

    def _open_for_reading(self, _: object, record: Any, arguments: list[Any], options: dict[str, Any]) -> None:
        """Say how the driver opens the file; it is that state of it that the connection belongs to."""
        state = self._state()
        record.info.update({_STATE: state, _FRESH: True})
        arguments[0] = f"{self._path.resolve().as_uri()}?mode=ro{'' if state.logged else '&immutable=1'}"
        options["uri"] = True

    def _refuse_outdated(self, _: object, record: Any, __: object) -> None:
        """Replace a connection to an earlier state by a new one.

        Raises:
            DisconnectionError: it is one; the pool opens another.
        """
        if not record.info.pop(_FRESH, False) and record.info[_STATE] != self._state():
            raise DisconnectionError

    def _state(self) -> _FileState:
        file = self._path.stat()
        logged = self._log.exists() and self._log.stat().st_size > 0
        return _FileState(logged, file.st_mtime_ns, file.st_size)

    @contextlib.contextmanager
    def unchanged(self, connection: Connection) -> Iterator[None]:
        """A part in which a connection reads, after which it is certain that it has read one state.

        Raises:
            StorageError: another process has written to a file that is opened as one that does not change.
        """
        before: _FileState | None = connection.info.get(_STATE)
        cause = None
        try:
            yield
        except DatabaseError as error:
            cause = error
        if before is not None and not before.logged and before[1:] != self._state()[1:]:
            raise StorageError(
                "The database changed while it was read",
                got=f"another process is writing to {self.display_name}, where this one can only read",
                next_step="run the same command again",
            ) from cause
        if cause is not None:
            raise cause

    def size(self) -> int:
        """Size of the file in bytes."""
        return self._path.stat().st_size

    def rewrite(self, tables: Iterable[str]) -> None:
        """Rewrite the whole file.

        ``secure_delete`` overwrites freed cells, but the B-tree leaves copies in the gaps of pages that are still
        in use; only rewriting removes them.
        """
        with self._own_connection(in_memory=self.size() <= _COPIED_IN_MEMORY) as connection:
            connection.exec_driver_sql("VACUUM")
        self.empty_log()

    def rewrite_table(self, table: str) -> None:
        """Rewrite one table: empty it, which overwrites all of its pages, and insert its rows again."""
        with self._own_connection(in_memory=True) as connection:
            # With foreign keys rows would be deleted one by one, and rows of other tables with them.
            connection.exec_driver_sql("PRAGMA foreign_keys=OFF")
            _begin_to_write(connection)
            connection.exec_driver_sql(f'CREATE TEMP TABLE rewritten AS SELECT * FROM main."{table}"')
            connection.exec_driver_sql(f'DELETE FROM main."{table}"')
            connection.exec_driver_sql(f'INSERT INTO main."{table}" SELECT * FROM temp.rewritten')
            connection.exec_driver_sql("COMMIT")
        self.empty_log()

    @contextlib.contextmanager
    def _own_connection(self, *, in_memory: bool) -> Iterator[Connection]:
        """A connection that is used for nothing else: its settings and what it has not committed end with it.

        Args:
            in_memory: whether its temporary tables are in memory.
        """
        connection = self.engine.connect()
        drivers: Any = connection.connection.dbapi_connection
        with contextlib.closing(drivers), connection:  # an interruption leaves it open otherwise
            connection.execution_options(isolation_level="AUTOCOMMIT")
            connection.detach()
            connection.exec_driver_sql(f"PRAGMA temp_store={'MEMORY' if in_memory else 'DEFAULT'}")
            yield connection

    def empty_log(self) -> None:
        """Empty the write-ahead log.

        Raises:
            StorageError: another program was still reading it when the time ran out.
        """
        with self.engine.connect() as connection:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")

            # What can be copied while others write is copied first; to truncate keeps them waiting.
            autocommit.exec_driver_sql("PRAGMA wal_checkpoint(PASSIVE)")

            def truncate_log() -> bool:
                return not autocommit.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()[0]

            # SQLite waits for readers by itself, but not for a checkpoint that another connection's commit
            # started.
            if not _retry_until(truncate_log, _SQLITE_TIMEOUT, _POLL_INTERVAL):
                raise StorageError(
                    "Cannot empty the database's log, which may hold deleted bytes",
                    got=f"another program is reading {self.display_name}",
                    next_step="let it finish, then run 'lmeraser purge'",
                )

    @contextlib.contextmanager
    def writer_lock(self, wait: float) -> Iterator[None]:
        """Nothing to do: whoever can open the file shares the workspace's folder, and so its lock file."""
        yield

    def write_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """A transaction that writes; other writers wait for it."""
        return self._writing.begin()

    @contextlib.contextmanager
    def keeping_pages(self, connection: Connection) -> Iterator[None]:
        """Keep more pages in memory: else one is written to the log and read again for nearly every row."""
        connection.exec_driver_sql(f"PRAGMA cache_size={_LARGE_CACHE}")
        try:
            yield
        finally:
            connection.exec_driver_sql(f"PRAGMA cache_size={_CACHE}")

    @contextlib.contextmanager
    def schema_transaction(self) -> Iterator[Connection]:
        """A transaction in which a table can be replaced without cascading deletions in other tables.

        Raises:
            CorruptError: rows would violate a foreign key; nothing was changed.
        """
        event.listen(self.engine, "connect", _without_foreign_keys)
        try:
            with self.engine.begin() as connection:
                yield connection
                if orphans := connection.exec_driver_sql("PRAGMA foreign_key_check").all():
                    raise CorruptError(
                        "Rows violate a foreign key",
                        got=f"{len(orphans)} rows in {self.display_name}",
                        next_step=self.advice_if_damaged,
                    )
        finally:
            event.remove(self.engine, "connect", _without_foreign_keys)
            self.engine.dispose()


def _configure(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    # Without foreign_keys, features would outlive their record; without secure_delete, its bytes would.
    # A cache of 32 MB holds the sufficient statistics, so that their pages are written once. The page size is
    # fixed when the file is created: larger pages hold several records' features, which nearly halves the time of
    # rewriting.
    pragmas = ("page_size=16384", "journal_mode=WAL", "foreign_keys=ON", "secure_delete=ON", "synchronous=FULL")
    for pragma in (*pragmas, f"cache_size={_CACHE}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _configure_for_reading(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA cache_size={_CACHE}")


def _without_foreign_keys(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA foreign_keys=OFF")  # has no effect within a transaction
    cursor.close()


def _begin(connection: Connection) -> None:
    # By itself, the driver begins at the first change; what was read before that may be of another state.
    options = connection.get_execution_options()
    if options.get("isolation_level") == "AUTOCOMMIT":
        return
    if options.get("writing"):
        _begin_to_write(connection)
    else:
        connection.exec_driver_sql("BEGIN")


def _begin_to_write(connection: Connection) -> None:
    """Begin a transaction that writes, as soon as the one before it has ended.

    SQLite's own waiting polls at ever longer intervals and would be up to a tenth of a second late.
    """
    driver: Any = connection.connection.dbapi_connection  # an error of SQLAlchemy's costs more than all the rest

    def begin() -> bool:
        try:
            driver.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY:
                return False
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises it as SQLAlchemy's
        return True

    connection.exec_driver_sql("PRAGMA busy_timeout=0")
    try:
        if not _retry_until(begin, _SQLITE_TIMEOUT, _SQLITE_WRITE_INTERVAL):
            connection.exec_driver_sql("BEGIN IMMEDIATE")  # raises the error
    finally:
        connection.exec_driver_sql(f"PRAGMA busy_timeout={1000 * _SQLITE_TIMEOUT}")


def _retry_until(attempt: Callable[[], bool], timeout: float, interval: float) -> bool:
    """Repeat an attempt until it succeeds or time runs out.

    Args:
        attempt: whether it succeeded.
        timeout: seconds after which no further attempt is made; there is always one.
        interval: seconds between two attempts.

    Returns:
        Whether an attempt succeeded.
    """
    deadline = time.monotonic() + timeout
    while not attempt():
        if time.monotonic() >= deadline:
            return False
        time.sleep(interval)
    return True


class PostgreSQL:
    """A database on a PostgreSQL server (extra ``postgresql``); each workspace has its own.

    Args:
        url: ``postgresql://USER@HOST/NAME``. Keep the password in ``~/.pgpass`` or ``PGPASSWORD``.

    Raises:
        ConfigError: it is not such a URL, or the driver is not installed.
    """

    advice_if_unavailable = (
        "check that the server runs, has space and accepts your login, then run the same command again"
    )
    advice_if_damaged = "restore the database from a backup"

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
            if isinstance(error, ImportError):
                raise ConfigError(
                    "PostgreSQL driver not installed",
                    got=str(error),
                    next_step="pip install 'lmeraser[postgresql]'",
                ) from None
            # The message of an ArgumentError contains the URL, password and all: it is not shown.
            raise ConfigError(
                "storage.database is not the URL of a PostgreSQL database",
                next_step="write it as postgresql://USER@HOST/NAME",
            ) from None
        self.display_name = parsed.render_as_string(hide_password=True)

    def size(self) -> int:
        """Size of the database in bytes."""
        with self.engine.connect() as connection:
            return int(connection.execute(text("SELECT pg_database_size(current_database())")).scalar_one())

    def rewrite(self, tables: Iterable[str]) -> None:
        """Rewrite tables. The server's log and its archive keep old bytes; content is encrypted there, too."""
        with self.engine.connect() as connection:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")
            for table in tables:
                autocommit.exec_driver_sql(f'VACUUM (FULL) "{table}"')

    def rewrite_table(self, table: str) -> None:
        """Rewrite one table, as `rewrite`."""
        self.rewrite([table])

    def empty_log(self) -> None:
        """Nothing to do: a client cannot empty the server's log."""

    @contextlib.contextmanager
    def write_transaction(self) -> Iterator[Connection]:
        """A transaction that writes; other writers wait for it."""
        with self.engine.begin() as connection:
            # LOCK TABLE is the one statement that runs before the transaction's snapshot is taken (REPEATABLE
            # READ).
            connection.exec_driver_sql("LOCK TABLE facts IN SHARE ROW EXCLUSIVE MODE")
            yield connection

    def keeping_pages(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: the server has its own memory."""
        return contextlib.nullcontext()

    def schema_transaction(self) -> contextlib.AbstractContextManager[Connection]:
        """An ordinary transaction: PostgreSQL's cover changes of tables, too."""
        return self.engine.begin()

    def unchanged(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """Nothing to do: the server gives every transaction one state."""
        return contextlib.nullcontext()

    @contextlib.contextmanager
    def writer_lock(self, wait: float) -> Iterator[None]:
        """An advisory lock, held by a connection of its own; the server releases it when the process ends.

        Args:
            wait: seconds to wait for it.

        Raises:
            LockedError: another process still held it when the time ran out.
        """
        with self.engine.connect() as connection:
            autocommit = connection.execution_options(isolation_level="AUTOCOMMIT")

            def try_lock() -> bool:
                return bool(
                    autocommit.execute(text(f"SELECT pg_try_advisory_lock({_ADVISORY_LOCK})")).scalar_one()
                )

            if not _retry_until(try_lock, wait, _POLL_INTERVAL):
                raise LockedError(
                    "Workspace is locked",
                    got=f"another process is writing to {self.display_name}",
                    next_step="wait for it to finish, or give a longer --wait",
                )
            try:
                yield
            finally:
                autocommit.execute(text(f"SELECT pg_advisory_unlock({_ADVISORY_LOCK})"))
