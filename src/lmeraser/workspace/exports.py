"""Copies of the model outside of the workspace: who holds them, and what their holders have been told.

What a copy is and which erased records it still holds follows from the ledger (`evidence.copies`). The database
has a row for each copy, with the holder encrypted, because a contact may be a person. A holder with a URL is
notified by the service (`service.callbacks`) whenever more records were erased than it was told of; a holder
without one is told by hand. Nothing personal is in the ledger.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Integer, String, Table, insert, select, update

from lmeraser.core.time import from_text, to_text
from lmeraser.errors import InputError
from lmeraser.evidence.copies import OutsideCopy, copies_outside, recalled_copies
from lmeraser.evidence.entries import ExportConfirmed, ExportRecalled, ModelExported, events_of
from lmeraser.evidence.hash_chain import Entry, LedgerHead
from lmeraser.evidence.ledger import Ledger
from lmeraser.storage.database import Database, encrypted, schema
from lmeraser.workspace.requests.subscriptions import retry_delay

_LONGEST = 1000  # characters of a URL or contact

# "tries", "since" and "next" are of the notification that is due, as in the table of subscriptions.
_table = Table(
    "exports",
    schema,
    Column("id", String, primary_key=True),
    Column("tries", Integer, nullable=False),
    Column("since", String, nullable=False),
    Column("next", String, nullable=False),
    Column("slot", Integer, nullable=True),
    encrypted("sealed_holder", what="holder", slot="slot", nullable=True),
)


@dataclass(frozen=True)
class Holder:
    """Who holds a copy.

    Attributes:
        url: where a recall is delivered, if anywhere.
        contact: whom to tell, in words.
    """

    url: str | None = None
    contact: str | None = None

    def __post_init__(self) -> None:
        for value in (self.url, self.contact):
            if value is not None and not (0 < len(value) <= _LONGEST and value.isprintable()):
                raise InputError(
                    "Holder is not a line of text",
                    got=f"{len(value)} characters (possible: 1 to {_LONGEST}, all of them printable)",
                    next_step="give a URL or a contact on one line",
                )


@dataclass(frozen=True)
class HeldCopy:
    """A copy together with its holder.

    Attributes:
        copy: what the ledger records of it.
        holder: whom to tell of a recall; empty where nobody was named.
    """

    copy: OutsideCopy
    holder: Holder

    def to_json(self) -> dict[str, object]:
        """The copy as JSON values."""
        return {**self.copy.to_json(), "holder_url": self.holder.url, "holder_contact": self.holder.contact}


@dataclass(frozen=True)
class RecallNotice:
    """A recall that is to be delivered.

    Attributes:
        copy: as it is now.
        url: where to deliver it.
        tries: how often delivery was tried.
        since: when it was tried first.
    """

    copy: OutsideCopy
    url: str
    tries: int
    since: datetime


class Exports:
    """The copies of one workspace's model.

    Args:
        database: holds the rows.
        ledger: records every copy, recall and confirmation.
    """

    def __init__(self, database: Database, ledger: Ledger) -> None:
        self._database = database
        self._ledger = ledger
        self._known: tuple[LedgerHead, list[OutsideCopy]] | None = None  # checking a long ledger takes a while

    # --- reading ---------------------------------------------------------------------------------------

    def ids(self) -> set[str]:
        """Ids of all copies in the database."""
        return set(self._database.fetch(select(_table.c.id), lambda row: row.id))

    def copies(self) -> list[OutsideCopy]:
        """All copies in the order in which they were made.

        Raises:
            VerificationError: the ledger is broken.
        """
        head = self._ledger.head
        if self._known is None or self._known[0] != head:
            # An entry that came after the head was read is read again next time.
            self._known = (head, copies_outside(self._ledger.entries()))
        return self._known[1]

    def all(self) -> list[HeldCopy]:
        """All copies with their holders."""
        holders = self._database.read_consistently(self._holders)
        return [HeldCopy(copy, holders.get(copy.id, Holder())) for copy in self.copies()]

    def recalled(self, head: LedgerHead) -> list[dict[str, object]]:
        """The copies with influence of erased records, as certificates list them.

        Args:
            head: of the ledger; what its later entries tell is left out.
        """
        if not self.ids():
            return []
        return recalled_copies(copies_outside(self._ledger.entries()[: head.entries]))

    def require(self, export: str) -> HeldCopy:
        """One copy.

        Raises:
            InputError: there is none with this id.
        """
        wanted = _parse_id(export)
        for held in self.all():
            if held.copy.id == wanted:
                return held
        raise InputError("Export not found", got=export, next_step="'lmeraser exports' lists them")

    def due(self, now: datetime) -> list[RecallNotice]:
        """The recalls that are to be delivered now."""
        if not self.ids():
            return []
        waiting = {copy.id: copy for copy in self.copies() if copy.state == "recalled"}
        overdue = {export: copy for export, copy in waiting.items() if copy.outdated > copy.told_of}
        if not overdue:
            return []

        def read(connection: Connection) -> list[RecallNotice]:
            rows = connection.execute(select(_table).where(_table.c.next <= to_text(now))).all()
            holders = self._holders(connection)
            return [
                RecallNotice(overdue[row.id], url, row.tries, from_text(row.since) if row.tries else now)
                for row in rows
                if row.id in overdue and (url := holders[row.id].url) is not None
            ]

        return self._database.read_consistently(read)

    def _holders(self, connection: Connection) -> dict[str, Holder]:
        return {row.id: self._holder(row) for row in connection.execute(select(_table))}

    def _holder(self, row: Any) -> Holder:
        if row.sealed_holder is None:
            return Holder()
        return Holder(**json.loads(self._database.keys.decrypt(row.slot, "holder", row.sealed_holder)))

    # --- changing --------------------------------------------------------------------------------------

    def add(self, connection: Connection, event: ModelExported, holder: Holder, *, now: datetime) -> None:
        """Record a copy in the caller's transaction, before it is handed out."""
        self._ledger.note(connection, event, now=now)
        self._insert(connection, event.export, holder, to_text(now))

    def take_over(self, connection: Connection, entries: Iterable[Entry]) -> None:
        """Take over copies that a longer copy of the ledger records; their holders are not known any more."""
        known = set(connection.execute(select(_table.c.id)).scalars())
        for entry, event in events_of(entries, ModelExported):
            if event.export not in known:
                self._insert(connection, event.export, Holder(), entry.time)

    def _insert(self, connection: Connection, export: str, holder: Holder, time: str) -> None:
        values: dict[str, Any] = {"id": export, "tries": 0, "since": time, "next": time}
        if holder != Holder():
            (slot,) = self._database.new_keys(connection, 1)
            sealed = self._database.keys.encrypt(slot, "holder", json.dumps(asdict(holder)).encode())
            values |= {"slot": slot, "sealed_holder": sealed}
        connection.execute(insert(_table).values(**values))

    def told(self, connection: Connection, copy: OutsideCopy, *, now: datetime) -> None:
        """Record in the caller's transaction that a holder was told what was erased."""
        self._ledger.note(connection, ExportRecalled(export=copy.id, records=copy.outdated), now=now)
        self._set(connection, copy.id, tries=0)

    def confirm(self, connection: Connection, export: str, *, now: datetime) -> None:
        """Record in the caller's transaction that a copy is deleted; harmless to repeat.

        Raises:
            InputError: there is no such copy.
        """
        if self.require(export).copy.confirmed is None:
            self._ledger.note(connection, ExportConfirmed(export=_parse_id(export)), now=now)

    def failed(self, notice: RecallNotice, *, now: datetime, patience: timedelta) -> bool:
        """Note that a recall was not delivered; returns whether it will be tried again soon.

        After ``patience`` it is tried once a day: a copy that is out stays recalled.
        """
        soon = now - notice.since < patience
        delay = retry_delay(notice.tries) if soon else timedelta(days=1)
        with self._database.transaction() as connection:
            later = to_text(now + delay)
            since = to_text(notice.since)
            self._set(connection, notice.copy.id, tries=notice.tries + 1, since=since, next=later)
        return soon

    def _set(self, connection: Connection, export: str, **values: Any) -> None:
        connection.execute(update(_table).where(_table.c.id == export).values(**values))


def _parse_id(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise InputError(
            "Export id is not a UUID", got=repr(text), next_step="'lmeraser exports' lists them"
        ) from error
