"""The ledger of a workspace: an append-only file that records what happened to the records and the model.

Its lines form a hash chain (`hash_chain`). Beyond the chain's rules, the file ends where the database says that it
ends, which detects a shortened ledger. A head that was exported earlier also detects a ledger that was replaced
together with its database.

An entry is first written to an outbox, in the same SQL transaction as the change it records, and appended to the
file right after; if a crash comes in between, the next writer appends it. So neither change nor entry can exist
without the other, and an append that was cut off by a crash can be told from tampering. Entries hold no personal
data. Knows nothing about what events mean.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from sqlalchemy import Column, Connection, Integer, String, Table, delete, insert, select, true

from lmeraser.core.atomic_files import append, storage_errors, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.core.time import to_text
from lmeraser.errors import CorruptError, InputError
from lmeraser.evidence.entries import Event
from lmeraser.evidence.hash_chain import Entry, LedgerHead, broken, check
from lmeraser.storage.database import Database, schema, workspace_metadata

_METADATA_NAME = "ledger"  # of the row in which the database keeps where the ledger ends

_outbox = Table(
    "outbox",
    schema,
    Column("position", Integer, primary_key=True),
    Column("line", String, nullable=False),
)


class Ledger:
    """The ledger of a workspace.

    Args:
        path: the file.
        database: holds the outbox and where the file has to end.
    """

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self._database = database

    @property
    def head(self) -> LedgerHead:
        """The head, entries in the outbox included."""
        end = self._end()
        return LedgerHead(end.entries, end.digest)

    def next_position(self, connection: Connection) -> int:
        """Position of the entry that is noted next in this transaction."""
        return self._end(connection).entries

    def note(self, connection: Connection, event: Event, *, now: datetime) -> Entry:
        """Record an event in the caller's transaction; `flush` appends it to the file after the transaction.

        Args:
            connection: of the transaction.
            event: what happened.
            now: the time.
        """
        return self.note_all(connection, [event], now=now)[0]

    def note_all(self, connection: Connection, events: Sequence[Event], *, now: datetime) -> list[Entry]:
        """Record events one after the other, as `note` does."""
        end = self._end(connection)
        position, digest = end.entries, end.digest
        entries = list[Entry]()
        lines = list[bytes]()
        for event in events:
            entry = Entry(position, digest, to_text(now), event.kind, event.body())
            line = entry.line()
            Entry.parse(line)  # an entry that cannot be read back is not written
            entries.append(entry)
            lines.append(line)
            position, digest = position + 1, entry.digest
        self._append(connection, end, entries, lines)
        return entries

    def extend(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Take over the entries of a longer copy of this ledger, as if they had been noted here.

        Args:
            connection: of the caller's transaction.
            entries: those that follow the last entry here.
        """
        self._append(connection, self._end(connection), entries, [entry.line() for entry in entries])

    def _append(
        self, connection: Connection, end: _LedgerEnd, entries: Sequence[Entry], lines: Sequence[bytes]
    ) -> None:
        if not entries:
            return
        rows = [
            {"position": entry.position, "line": line.decode()} for entry, line in zip(entries, lines, strict=True)
        ]
        connection.execute(insert(_outbox), rows)
        size = end.size + sum(map(len, lines))
        self._move_end(connection, _LedgerEnd(end.entries + len(rows), size, entries[-1].digest))

    def flush(self, connection: Connection | None = None) -> None:
        """Append the entries of the outbox to the file; harmless to repeat.

        Args:
            connection: of a transaction of the caller's that has noted nothing yet; None: one of its own.

        Raises:
            CorruptError: the file does not end where the database says.
            StorageError: the disk refused; the next writer appends them.
        """
        end, outbox = self._snapshot(connection)
        pending = _lines(outbox)
        expected_size = end.size - len(pending)
        with storage_errors(self.path):
            size = self.path.stat().st_size if self.path.exists() else 0
            torn = self._read(expected_size) if size >= expected_size else None
        if torn is None or not pending.startswith(torn):
            raise CorruptError(
                "The ledger does not end where the database says",
                got=f"{self.path}: {size} bytes instead of {expected_size}",
                next_step="restore ledger and records.db from the same backup",
            )
        if not outbox:
            return
        append(self.path, pending[len(torn) :])
        with self._database.transaction(connection) as inner:
            inner.execute(delete(_outbox).where(_outbox.c.position <= outbox[-1][0]))

    def entries(self, *, head: LedgerHead | None = None) -> list[Entry]:
        """All entries, checked against the chain, the database and a head exported earlier.

        Raises:
            VerificationError: the ledger is broken; says where.
            StorageError: the file cannot be read.
        """
        end, outbox = self._snapshot()
        data = self._read()
        if len(data) <= self._end().size:  # what follows the end was appended after the snapshot
            data = data[: end.size]
        pending = _lines(outbox)
        flushed_size = end.size - len(pending)
        not_in_file = pending[max(0, len(data) - flushed_size) :]
        entries = check(data + not_in_file, head=head)
        last_digest = entries[-1].digest if entries else None
        if len(entries) != end.entries or last_digest != end.digest:
            raise broken(f"{len(entries)} entries; the database knows of {end.entries}, the last one {end.digest}")
        return entries

    def export(self, target: Path) -> None:
        """Check the ledger, then write it to another file, for an auditor."""
        write_atomic(target, b"".join(entry.line() for entry in self.entries()))

    def _read(self, start: int = 0) -> bytes:
        with storage_errors(self.path):
            if not self.path.exists():
                return b""
            with self.path.open("rb") as file:
                file.seek(start)
                return file.read()

    def _snapshot(self, connection: Connection | None = None) -> tuple[_LedgerEnd, list[tuple[int, str]]]:
        """Where the ledger ends, and position and line of the entries in the outbox, read in one transaction."""
        joined = workspace_metadata.outerjoin(_outbox, true())
        query = select(workspace_metadata.c.value, _outbox.c.position, _outbox.c.line).select_from(joined)
        query = query.where(workspace_metadata.c.name == _METADATA_NAME).order_by(_outbox.c.position)
        with self._database.reading(connection) as inner:
            rows = inner.execute(query).all()
        outbox = [(row.position, row.line) for row in rows if row.position is not None]
        return _LedgerEnd.parse(rows[0].value if rows else None), outbox

    def _end(self, connection: Connection | None = None) -> _LedgerEnd:
        return _LedgerEnd.parse(self._database.get_metadata(_METADATA_NAME, connection))

    def _move_end(self, connection: Connection, end: _LedgerEnd) -> None:
        self._database.set_metadata(connection, _METADATA_NAME, end.to_json())


def _lines(outbox: Sequence[tuple[int, str]]) -> bytes:
    return "".join(line for _, line in outbox).encode()


@dataclass(frozen=True)
class _LedgerEnd:
    """Where a ledger ends, entries in the outbox included.

    Attributes:
        entries: number of entries.
        size: bytes of all lines.
        digest: of the last entry.
    """

    entries: int
    size: int
    digest: Digest | None

    def to_json(self) -> str:
        """The value that the database keeps."""
        return json.dumps({"entries": self.entries, "bytes": self.size, "digest": self.digest})

    @classmethod
    def parse(cls, value: str | None) -> _LedgerEnd:
        """The end from what `to_json` gave; None: an empty ledger.

        Raises:
            CorruptError: it is not such a value.
        """
        if value is None:
            return cls(0, 0, None)
        try:
            end = json.loads(value)
            return cls(int(end["entries"]), int(end["bytes"]), Digest(end["digest"]))
        except (ValueError, TypeError, KeyError, InputError) as error:
            raise CorruptError(
                "The database does not say where the ledger ends",
                got=repr(value),
                next_step="restore it from a backup",
            ) from error
