"""The SQL database of a workspace: connections, transactions, named values, and removal of deleted bytes.

Every change of private records, deletion requests and the ledger's outbox is one transaction, so that after a
crash either all of it happened or nothing.

Content that must be forgettable is encrypted (`keystore`). A transaction schedules keys for erasure, and after it
they are overwritten, so that no copy of the deleted content can be read any more, wherever it is. Large values may
be in files of their own (`encrypted_files`). What is not encrypted (numbers, keyed digests, trie keys) stays in
free pages until the database is compacted: at once while it is small.

Uses `engines` and SQLAlchemy Core. Other modules declare their own tables in `schema`; names of tables and columns
are a stored format, which is why some of them keep 0.1's words (``facts``, ``doomed``).
"""

from __future__ import annotations

import contextlib
import itertools
import secrets
from array import array
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
    bindparam,
    cast,
    delete,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.exc import DatabaseError, IntegrityError, OperationalError

from lmeraser.errors import CorruptError, StorageError
from lmeraser.storage.encrypted_files import EncryptedFiles
from lmeraser.storage.engines import open_backend
from lmeraser.storage.keystore import FIRST_SLOT, ErasedError, KeyStore
from lmeraser.storage.migrate import prepare

T = TypeVar("T")

_IN_CHUNK = 500  # values per SQL statement; databases limit the number of parameters
_FEW_ROWS = 20_000  # of a table that is rewritten alone
_QUICK_TO_COMPACT = 64 << 20  # bytes; a database of this size is rewritten within about a second
_READ_ATTEMPTS = 10  # while others delete what is being read

IN_FILE = b""  # in place of an encrypted value, which is never empty: it is in a file

# Values of the named value "compaction", which is missing before the first deletion.
_DUE = "due"  # followed by a random number, by which compaction sees that nothing more was deleted meanwhile
_DUE_IN_TABLE = "due in "  # followed by the name of the only table and such a number
_COMPACTED = "done"

schema = MetaData()  # the tables of all modules
CodePointString = String().with_variant(String(collation="C"), "postgresql")  # sorted alike everywhere
workspace_metadata = Table(
    "facts", schema, Column("name", String, primary_key=True), Column("value", String, nullable=False)
)
# Built once: to build them takes longer than to run them, and accepting a request runs them several times.
_METADATA_VALUE = select(workspace_metadata.c.value).where(workspace_metadata.c.name == bindparam("wanted"))
_SET_METADATA = (
    update(workspace_metadata)
    .where(workspace_metadata.c.name == bindparam("wanted"))
    .values(value=bindparam("new_value"))
)
_RESERVE_SLOTS = (
    update(workspace_metadata)
    .where(workspace_metadata.c.name == "slots")
    .values(value=cast(cast(workspace_metadata.c.value, Integer) + bindparam("count"), String))
)
_erasures = Table("doomed", schema, Column("slot", Integer, primary_key=True, autoincrement=False))


def per_record_table(name: str, *columns: Column[Any] | Index) -> Table:
    """A table with at most one row per record, which is deleted with the record."""
    record = ForeignKey("records.number", ondelete="CASCADE", onupdate="CASCADE")
    return Table(name, schema, Column("number", Integer, record, primary_key=True), *columns)


def encrypted(
    name: str, *, what: str, slot: str = "number", nullable: bool = False, in_files: bool = False
) -> Column[Any]:
    """A column of encrypted bytes.

    Args:
        name: of the column.
        what: kind of the content; authenticated by the encryption, so it is a stored format.
        slot: name of the column that holds the slot of the key.
        nullable: whether it may be NULL.
        in_files: whether large values are in files, and the column has `IN_FILE` instead (`encrypted_files`).
    """
    info = {"what": what, "slot": slot, "in_files": in_files}
    return Column(name, LargeBinary, nullable=nullable, info=info)


class Database:
    """A database with the tables of all modules.

    Args:
        where: the SQLite file, created if it is missing; or the URL of a PostgreSQL database.
        keys: the file of keys; None: beside the SQLite file.

    Raises:
        FormatError: the database has the tables of another version of lmeraser.
    """

    def __init__(self, where: Path | str, *, keys: Path | None = None) -> None:
        self._backend = open_backend(where)
        self._engine = self._backend.engine
        self.keys = KeyStore(keys or Path(where).with_suffix(".keys"))
        self.files = EncryptedFiles(self.keys.path.with_suffix(".files"), self.keys)
        try:
            with self._translate_errors():
                prepare(self._backend)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Release the connections."""
        self._engine.dispose()

    @contextlib.contextmanager
    def reading(self, connection: Connection | None = None) -> Iterator[Connection]:
        """A connection for reading; everything it reads is of one state of the database.

        Args:
            connection: an open one to reuse.

        Raises:
            StorageError: the database cannot be read.
            CorruptError: the file is damaged.
        """
        if connection is not None:
            yield connection
            return
        with self._translate_errors(), self._engine.connect() as own, self._backend.unchanged(own):
            yield own

    @contextlib.contextmanager
    def transaction(self, connection: Connection | None = None) -> Iterator[Connection]:
        """A transaction: committed at the end, rolled back on any exception. Other writers wait for it.

        Args:
            connection: of an open transaction to take part in.

        Raises:
            StorageError: the database cannot write (disk full, read-only, locked by another program).
            CorruptError: the file is damaged.
        """
        if connection is not None:
            yield connection
            return
        with self._translate_errors(), self._backend.write_transaction() as own:
            yield own
            self.keys.flush()  # before anything that is encrypted under them is committed

    def keeping_pages(self, connection: Connection) -> contextlib.AbstractContextManager[None]:
        """A part of a transaction that inserts many rows, whose random numbers put them anywhere in the tables."""
        return self._backend.keeping_pages(connection)

    @contextlib.contextmanager
    def _translate_errors(self) -> Iterator[None]:
        """Turn SQLAlchemy's errors into lmeraser's."""
        try:
            yield
        except (OperationalError, IntegrityError) as error:
            raise StorageError(
                "Cannot read or write the database",
                got=f"{self._backend.display_name}: {error.orig}",
                next_step=self._backend.advice_if_unavailable,
            ) from error
        except DatabaseError as error:
            raise CorruptError(
                "Database is damaged",
                got=f"{self._backend.display_name}: {error.orig}",
                next_step=self._backend.advice_if_damaged,
            ) from error

    # --- reading and named values ------------------------------------------------------------------------

    def fetch(self, query: Any, convert: Callable[[Any], T], connection: Connection | None = None) -> list[T]:
        """The rows of ``query``, each converted by ``convert``.

        Args:
            query: a SQLAlchemy select.
            convert: applied to each row.
            connection: of an open transaction to read in.
        """

        def read(inner: Connection) -> list[T]:
            return [convert(row) for row in inner.execute(query)]

        return read(connection) if connection is not None else self.read_consistently(read)

    def fetch_where_in(
        self,
        query: Any,
        column: Any,
        values: Iterable[Any],
        convert: Callable[[Any], T],
        connection: Connection | None = None,
    ) -> Iterator[T]:
        """The rows of ``query`` in which ``column`` has one of ``values``, however many there are; see `fetch`."""
        for chunk in chunked(values):
            yield from self.fetch(query.where(column.in_(chunk)), convert, connection)

    def read_consistently(self, read: Callable[[Connection], T]) -> T:
        """The result of ``read`` in one state of the database, whatever others write meanwhile.

        Between the start of a read and the decryption of a row, another process may delete the row and erase its
        key. The state after that is as good, so the read is started again.

        Args:
            read: reads from a connection; may be called several times.

        Raises:
            ErasedError: keys are erased, but the rows encrypted under them are still there.
        """
        for _ in range(_READ_ATTEMPTS):
            with contextlib.suppress(ErasedError), self.reading() as connection:
                return read(connection)
        with self.reading() as connection:
            return read(connection)

    def get_metadata(self, name: str, connection: Connection | None = None) -> str | None:
        """A value of the workspace by its name; None if it was never set."""
        with self.reading(connection) as own:
            return own.execute(_METADATA_VALUE, {"wanted": name}).scalar_one_or_none()

    def set_metadata(self, connection: Connection, name: str, value: str) -> None:
        """Set a value of the workspace by its name."""
        updated = connection.execute(_SET_METADATA, {"wanted": name, "new_value": value})
        if updated.rowcount == 0:
            connection.execute(insert(workspace_metadata).values(name=name, value=value))

    # --- deleted bytes ---------------------------------------------------------------------------------

    def new_keys(self, connection: Connection, count: int) -> list[int]:
        """Create keys for the rows that this transaction writes; returns their slots, in random order."""
        return SlotDraw(self, connection, count).take(count)

    def reserve_slots(self, connection: Connection, count: int) -> range:
        """Slots without keys that no transaction but this one ever gets."""
        # Written before it is read: from then on no other writer can take these slots.
        updated = connection.execute(_RESERVE_SLOTS, {"count": count})
        if updated.rowcount == 0:
            self.set_metadata(connection, "slots", str(FIRST_SLOT + count))
        stop = int(self.get_metadata("slots", connection) or 0)
        slots = range(stop - count, stop)
        self.keys.clear(slots)
        return slots

    def schedule_erasure(self, connection: Connection, slots: Iterable[int]) -> None:
        """Schedule the keys of rows that this transaction deletes; `erase` overwrites them after it."""
        for chunk in chunked({"slot": slot} for slot in slots):
            connection.execute(insert(_erasures), chunk)

    def erase(self, connection: Connection | None = None) -> None:
        """Overwrite the keys that are scheduled, so that no copy of what they encrypt can be read.

        Args:
            connection: of a transaction of the caller's that begins with this; None: one of its own.
        """
        query = select(_erasures.c.slot)
        if not self.fetch(query.limit(1), lambda row: row.slot, connection):
            return
        with self.transaction(connection) as inner:  # in which no other process unschedules one of them
            slots = self.fetch(query, lambda row: row.slot, inner)
            self.keys.erase(slots)
            for chunk in chunked(slots):
                inner.execute(delete(_erasures).where(_erasures.c.slot.in_(chunk)))

    def cancel_erasure(self, connection: Connection, slots: Iterable[int]) -> None:
        """Keep keys that an earlier transaction scheduled for erasure in case this one would not happen."""
        for chunk in chunked(slots):
            connection.execute(delete(_erasures).where(_erasures.c.slot.in_(chunk)))

    def discard_files(self) -> None:
        """Remove the files of large values that no row has any more; for the one writer, between transactions."""
        if not self.files.folder.exists():
            return
        columns = [column for column in _encrypted_columns() if column.info["in_files"]]

        def discard(connection: Connection) -> None:
            in_file = [select(column.table.c[column.info["slot"]]).where(column == IN_FILE) for column in columns]
            self.files.discard_others(slot for query in in_file for slot in connection.execute(query).scalars())

        self.read_consistently(discard)

    def decrypted_values(self) -> Iterator[tuple[str, bytes]]:
        """Name of the table and decrypted content of every encrypted value whose key is not erased."""
        columns = _encrypted_columns()
        for column in columns:
            what, slot = column.info["what"], column.table.c[column.info["slot"]]
            with self.reading() as connection:
                rows = connection.execute(select(slot, column).where(column.is_not(None)))
                for number, data in rows.yield_per(_IN_CHUNK):
                    with contextlib.suppress(ErasedError):
                        yield column.table.name, self.decrypt(number, what, data)

    def decrypt(self, slot: int, what: str, data: bytes) -> bytes:
        """Decrypt a value of a column that may have large values in files. Raises as `KeyStore.decrypt`."""
        return self.files.read(slot, what) if data == IN_FILE else self.keys.decrypt(slot, what, data)

    @property
    def compaction_due(self) -> bool:
        """Whether rows were deleted since the database was last compacted."""
        return self.get_metadata("compaction") not in (None, _COMPACTED)

    @property
    def quick_to_compact(self) -> bool:
        """Whether what is to be compacted is small enough for doing it at every deletion."""
        with self.reading() as connection:
            if self._table_due(connection) is not None:
                return True
        with self._translate_errors():
            return self._backend.size() <= _QUICK_TO_COMPACT

    def mark_compaction_due(self, connection: Connection, *, table: str | None = None) -> None:
        """Record that rows were deleted or overwritten, in their transaction.

        Args:
            connection: of the transaction.
            table: name of the small table that is the only one in which they were; None: in any.
        """
        before = self.get_metadata("compaction", connection)
        alone = table is not None and (before in (None, _COMPACTED) or _table_of(before) == table)
        due = f"{_DUE_IN_TABLE}{table}" if alone else _DUE
        self.set_metadata(connection, "compaction", f"{due} {secrets.token_hex(8)}")

    def mark_purged(self, connection: Connection, *, table: str | None = None) -> None:
        """As `mark_compaction_due`, for rows that only earlier models needed; not before the first deletion."""
        if self.get_metadata("compaction", connection) is not None:
            self.mark_compaction_due(connection, table=table)

    def _table_due(self, connection: Connection) -> str | None:
        """The only table that has to be compacted, if it is small; None: none has, or all have."""
        table = schema.tables.get(_table_of(self.get_metadata("compaction", connection)) or "")
        if table is None or connection.execute(select(func.count()).select_from(table)).scalar_one() > _FEW_ROWS:
            return None
        return str(table.name)

    def compact(self) -> None:
        """Rewrite the database without the bytes of deleted rows. Compaction stays due until this is done.

        Raises:
            StorageError: there is no space for the rewritten file, or another program reads the old one.
        """
        with self.reading() as connection:
            before = self.get_metadata("compaction", connection)
            table = self._table_due(connection)
        with self._translate_errors():
            if table is not None:
                self._backend.rewrite_table(table)
            else:
                self._backend.rewrite(schema.tables)
        with self.transaction() as connection:
            if self.get_metadata("compaction", connection) == before:  # else rows were deleted meanwhile
                self.set_metadata(connection, "compaction", _COMPACTED)
        with self._translate_errors():
            self._backend.empty_log()

    def writer_lock(self, wait: float) -> contextlib.AbstractContextManager[None]:
        """The lock of the one writer, also among processes that do not share the workspace's folder.

        Args:
            wait: seconds to wait for it.
        """
        return self._backend.writer_lock(wait)


class SlotDraw:
    """Draws slots for new keys at random, so that they do not tell in which order their owners came.

    At most half of the slots that it reserves get a key. As a slot without a key is like one whose key was erased,
    nobody can tell later where the owners of erased keys stood among the others. One draw serves one transaction.

    Args:
        database: to take slots from.
        connection: of the transaction.
        expected: how many will be taken; where it is too low, later ones tend to get higher slots.
    """

    def __init__(self, database: Database, connection: Connection, expected: int = 0) -> None:
        self._database = database
        self._connection = connection
        self._expected = expected
        self._free = array("q")
        self._taken = 0

    def take(self, count: int) -> list[int]:
        """Create so many keys; returns their slots, in random order."""
        if (missing := 2 * count + self._taken - len(self._free)) > 0:
            more = max(missing, self._taken, 0 if self._taken else 2 * self._expected)
            self._free.extend(self._database.reserve_slots(self._connection, more))
        slots = [self._draw() for _ in range(count)]
        self._taken += count
        self._database.keys.create(slots)
        return slots

    def _draw(self) -> int:
        position = secrets.randbelow(len(self._free))
        last = self._free.pop()
        if position == len(self._free):
            return last
        drawn = self._free[position]
        self._free[position] = last
        return drawn


def _encrypted_columns() -> list[Column[Any]]:
    return [column for table in schema.tables.values() for column in table.columns if column.info]


def _table_of(compaction: str | None) -> str | None:
    """The only table that has to be compacted, by the named value "compaction"."""
    if compaction is None or not compaction.startswith(_DUE_IN_TABLE):
        return None
    return compaction.removeprefix(_DUE_IN_TABLE).partition(" ")[0]


def chunked(items: Iterable[T]) -> Iterator[Sequence[T]]:
    """The items in lists that are short enough for one SQL statement."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, _IN_CHUNK)):
        yield chunk
