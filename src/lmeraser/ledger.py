"""The ledger of a workspace: an append-only file that tells what was done to the records and the model.

Its lines are a `chain`; beyond the chain's rules, the file ends where the database says that it ends, which
finds a shortened ledger. A head that was exported earlier finds one whose database was replaced as well.

An entry is noted in the same SQL transaction as the change that it tells of, in an outbox, and appended to the
file right after; after a crash in between, the next writer appends it. So neither can exist without the other,
and an append that a crash cut off can be told from tampering. Entries hold no personal data. Follows `database`
and `chain`; knows nothing about what entries mean.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Integer, String, Table, delete, insert, select

from lmeraser.chain import Entry, Head, broken, check
from lmeraser.database import Database, metadata
from lmeraser.errors import CorruptError, InputError
from lmeraser.files import append, storage_errors, write_atomic
from lmeraser.hashing import Digest
from lmeraser.times import to_text

_outbox = Table(
    "outbox",
    metadata,
    Column("position", Integer, primary_key=True),
    Column("line", String, nullable=False),
)


class Ledger:
    """The ledger of a workspace.

    Args:
        path: the file.
        database: holds the outbox and the expected end.
    """

    def __init__(self, path: Path, database: Database) -> None:
        self.path = path
        self._database = database

    @property
    def head(self) -> Head:
        """Where it ends, with what waits in the outbox."""
        entries, _, digest = self._end()
        return Head(entries, digest)

    def next_position(self, connection: Connection) -> int:
        """Position of the entry that is noted next in this transaction."""
        return self._end(connection)[0]

    def note(self, connection: Connection, kind: str, body: Mapping[str, Any], *, now: datetime) -> Entry:
        """Note an entry in the caller's transaction; `flush` appends it after the transaction."""
        position, size, previous = self._end(connection)
        entry = Entry(position, previous, to_text(now), kind, body)
        line = entry.line()
        connection.execute(insert(_outbox).values(position=position, line=line.decode()))
        end = {"entries": position + 1, "bytes": size + len(line), "digest": entry.digest}
        self._database.set_fact(connection, "ledger", json.dumps(end))
        return entry

    def flush(self) -> None:
        """Append what was noted; harmless to repeat.

        Raises:
            CorruptError: the file does not end where the database says.
            StorageError: the disk refused; the next writer appends it.
        """
        with self._database.reading() as connection:
            rows = connection.execute(select(_outbox).order_by(_outbox.c.position)).all()
        waiting = "".join(row.line for row in rows).encode()
        start = self._end()[1] - len(waiting)
        with storage_errors(self.path):
            size = self.path.stat().st_size if self.path.exists() else 0
            torn = self._read()[start:] if start <= size else None
        if torn is None or not waiting.startswith(torn):
            raise CorruptError(
                "The ledger ends where the database says that it ends.",
                got=f"{self.path}: {size} bytes instead of {start}",
                next_step="restore ledger and records.db from the same backup",
            )
        if not rows:
            return
        append(self.path, waiting[len(torn) :])
        with self._database.transaction() as connection:
            connection.execute(delete(_outbox).where(_outbox.c.position <= rows[-1].position))

    def entries(self, *, head: Head | None = None) -> list[Entry]:
        """All entries, checked against the chain, the database (rule 5) and a head exported earlier.

        Raises:
            VerificationError: says where it breaks.
        """
        expected, size, digest = self._end()
        with self._database.reading() as connection:
            rows = connection.execute(select(_outbox).order_by(_outbox.c.position)).all()
        flushed = self._read()
        waiting = "".join(row.line for row in rows).encode()
        missing = waiting[max(0, len(flushed) - (size - len(waiting))) :]
        found = check(flushed + missing, head=head)
        if len(found) != expected or (found[-1].digest if found else None) != digest:
            raise broken(f"{len(found)} entries; the database knows of {expected}, the last one {digest}")
        return found

    def export(self, target: Path) -> None:
        """Write the checked ledger to another file, for an auditor."""
        write_atomic(target, b"".join(entry.line() for entry in self.entries()))

    def _read(self) -> bytes:
        with storage_errors(self.path):
            return self.path.read_bytes() if self.path.exists() else b""

    def _end(self, connection: Connection | None = None) -> tuple[int, int, Digest | None]:
        """Entries, bytes and last digest, the outbox included."""
        value = self._database.fact("ledger", connection)
        if value is None:
            return 0, 0, None
        try:
            end = json.loads(value)
            return int(end["entries"]), int(end["bytes"]), Digest(end["digest"])
        except (ValueError, TypeError, KeyError, InputError) as error:
            raise CorruptError(
                "The database says where the ledger ends.", got=repr(value), next_step="restore it from a backup"
            ) from error
