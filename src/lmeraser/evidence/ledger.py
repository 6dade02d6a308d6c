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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Connection, Integer, String, Table, delete, insert, select, true

from lmeraser.core.atomic_files import append, storage_errors, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.core.time import to_text
from lmeraser.errors import CorruptError, InputError, StorageError
from lmeraser.evidence.hash_chain import Entry, LedgerHead, broken, check
from lmeraser.storage.database import Database, tables, workspace_metadata

_FACT = "ledger"  # the name under which the database knows where the ledger ends
_TRIES = 20

_outbox = Table(
    "outbox",
    tables,
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
    def head(self) -> LedgerHead:
        """Where it ends, with what waits in the outbox."""
        end = self._end()
        return LedgerHead(end.entries, end.digest)

    def next_position(self, connection: Connection) -> int:
        """Position of the entry that is noted next in this transaction."""
        return self._end(connection).entries

    def note(self, connection: Connection, kind: str, body: Mapping[str, Any], *, now: datetime) -> Entry:
        """Note an entry in the caller's transaction; `flush` appends it after the transaction."""
        end = self._end(connection)
        entry = Entry(end.entries, end.digest, to_text(now), kind, body)
        line = entry.line()
        Entry.parse(line)  # what cannot be read back is not written
        connection.execute(insert(_outbox).values(position=end.entries, line=line.decode()))
        after = {"entries": end.entries + 1, "bytes": end.size + len(line), "digest": entry.digest}
        self._database.set_metadata(connection, _FACT, json.dumps(after))
        return entry

    def extend(self, connection: Connection, entries: Sequence[Entry]) -> None:
        """Take over entries that a longer copy of this ledger has, as if they had been noted here.

        Args:
            connection: of the caller's transaction.
            entries: those that follow the last one here.
        """
        end = self._end(connection)
        lines = [entry.line() for entry in entries]
        rows = [
            {"position": entry.position, "line": line.decode()} for entry, line in zip(entries, lines, strict=True)
        ]
        if rows:
            connection.execute(insert(_outbox), rows)
            size = end.size + sum(map(len, lines))
            after = {"entries": end.entries + len(rows), "bytes": size, "digest": entries[-1].digest}
            self._database.set_metadata(connection, _FACT, json.dumps(after))

    def flush(self) -> None:
        """Append what was noted; harmless to repeat.

        Raises:
            CorruptError: the file does not end where the database says.
            StorageError: the disk refused; the next writer appends it.
        """
        end, rows = self._snapshot()
        waiting = "".join(line for _, line in rows).encode()
        start = end.size - len(waiting)
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
            connection.execute(delete(_outbox).where(_outbox.c.position <= rows[-1][0]))

    def entries(self, *, head: LedgerHead | None = None) -> list[Entry]:
        """All entries, checked against the chain, the database (rule 5) and a head exported earlier.

        Raises:
            VerificationError: says where it breaks.
        """
        for _ in range(_TRIES):
            end, rows = self._snapshot()
            data = self._read()
            if (end, rows) == self._snapshot():
                break
        else:
            raise StorageError(
                "A ledger can be read while nobody writes to it.",
                got=f"{_TRIES} changes while it was read",
                next_step="try again when the other command has finished",
            )
        waiting = "".join(line for _, line in rows).encode()
        missing = waiting[max(0, len(data) - (end.size - len(waiting))) :]
        found = check(data + missing, head=head)
        if len(found) != end.entries or (found[-1].digest if found else None) != end.digest:
            raise broken(f"{len(found)} entries; the database knows of {end.entries}, the last one {end.digest}")
        return found

    def export(self, target: Path) -> None:
        """Write the checked ledger to another file, for an auditor."""
        write_atomic(target, b"".join(entry.line() for entry in self.entries()))

    def _read(self) -> bytes:
        with storage_errors(self.path):
            return self.path.read_bytes() if self.path.exists() else b""

    def _snapshot(self) -> tuple[_End, list[tuple[int, str]]]:
        """Where the ledger ends, and what waits in the outbox, at one moment."""
        together = workspace_metadata.outerjoin(_outbox, true())
        query = select(workspace_metadata.c.value, _outbox.c.position, _outbox.c.line).select_from(together)
        query = query.where(workspace_metadata.c.name == _FACT).order_by(_outbox.c.position)
        with self._database.reading() as connection:
            rows = connection.execute(query).all()
        waiting = [(row.position, row.line) for row in rows if row.position is not None]
        return _End.parse(rows[0].value if rows else None), waiting

    def _end(self, connection: Connection | None = None) -> _End:
        return _End.parse(self._database.get_metadata(_FACT, connection))


@dataclass(frozen=True)
class _End:
    """Entries, bytes and last digest of a ledger, what waits in the outbox included."""

    entries: int
    size: int
    digest: Digest | None

    @classmethod
    def parse(cls, value: str | None) -> _End:
        if value is None:
            return cls(0, 0, None)
        try:
            end = json.loads(value)
            return cls(int(end["entries"]), int(end["bytes"]), Digest(end["digest"]))
        except (ValueError, TypeError, KeyError, InputError) as error:
            raise CorruptError(
                "The database says where the ledger ends.", got=repr(value), next_step="restore it from a backup"
            ) from error
