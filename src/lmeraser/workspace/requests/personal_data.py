"""What requests hold of people: the names they select, and the desk's references; when each of them is erased.

- The names are encrypted under a key of the request, which is erased when their records are deleted or the request
  is cancelled.
- The keyed digest of the names, by which a repeated request is recognised and guesses could be tested, is removed
  when the request is closed.
- The reference is encrypted under a key of its own, which is erased when the request is closed, or
  ``requests.reference_days`` later.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, select, update

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.time import to_text
from lmeraser.storage.database import Database, chunked
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.requests.table import table

_FORGOTTEN = ""  # instead of a selector's digest


class PersonalData:
    """The names and references of all requests.

    Args:
        database: where they are.
        config: how long references are kept.
    """

    def __init__(self, database: Database, config: RequestsConfig) -> None:
        self._database = database
        self._config = config

    def encrypted(self, connection: Connection, selector: Selector, reference: str | None) -> dict[str, Any]:
        """The columns that hold a selector and a reference, encrypted under new keys.

        Args:
            connection: of the transaction that stores them.
            selector: of a new request.
            reference: of the desk; None: it has none.
        """
        (slot,) = self._database.new_keys(connection, 1)
        names = self._database.keys.encrypt(slot, "names", selector.to_bytes())
        columns = {"slot": slot, "sealed_names": names}
        if reference:
            (slot,) = self._database.new_keys(connection, 1)
            sealed = self._database.keys.encrypt(slot, "reference", reference.encode())
            columns |= {"reference_slot": slot, "sealed_reference": sealed}
        return columns

    def selectors(self, ids: Sequence[str], connection: Connection | None) -> list[Selector]:
        """The selectors of the requests with these ids; empty ones where the names are erased."""
        query = select(table.c.id, table.c.slot, table.c.sealed_names).where(table.c.slot.is_not(None))
        found = dict(self._database.fetch_where_in(query, table.c.id, ids, self._selector, connection))
        return [found.get(request_id, Selector()) for request_id in ids]

    def reference(self, request_id: str) -> str | None:
        """The reference of a request, if it was given one and it is not erased yet."""

        def read(connection: Connection) -> str | None:
            query = select(table.c.id, table.c.reference_slot, table.c.sealed_reference)
            row = connection.execute(query.where(table.c.id == request_id)).one_or_none()
            return None if row is None or row.reference_slot is None else self._reference(row)[1]

        return self._database.read_consistently(read)

    def references(self) -> dict[str, str]:
        """All references that are not erased yet, by the ids of their requests."""
        query = select(table.c.id, table.c.reference_slot, table.c.sealed_reference)
        return dict(self._database.fetch(query.where(table.c.reference_slot.is_not(None)), self._reference))

    def forget_names(self, connection: Connection, requests: Iterable[Request]) -> None:
        """Erase the names, in the caller's transaction."""
        for chunk in chunked(request.id for request in requests):
            chosen = table.c.id.in_(chunk)
            query = select(table.c.slot).where(chosen, table.c.slot.is_not(None))
            self._database.schedule_erasure(connection, connection.execute(query).scalars().all())
            connection.execute(update(table).where(chosen).values(slot=None, sealed_names=None))

    def close(self, connection: Connection, requests: Sequence[Request]) -> None:
        """Remove what requests that end now no longer need, in the caller's transaction.

        That is the digest of the names and, unless it is kept for a while, the reference.
        """
        for chunk in chunked(request.id for request in requests):
            connection.execute(update(table).where(table.c.id.in_(chunk)).values(selector=_FORGOTTEN))
        self._database.mark_compaction_due(connection, table=table.name)
        if not self._config.reference_days:
            self._forget_references(connection, [request.id for request in requests])

    def forget_expired_references(self, *, now: datetime) -> bool:
        """Schedule the erasure of references of closed requests that were kept for as long as the settings say.

        Args:
            now: the time.

        Returns:
            Whether there were any.
        """
        expired = to_text(now - timedelta(days=self._config.reference_days))
        query = select(table.c.id).where(
            table.c.reference_slot.is_not(None),
            table.c.state.in_(("completed", "cancelled")),
            table.c.changed <= expired,
        )
        if not self._database.fetch(query.limit(1), lambda row: row.id):
            return False
        with self._database.transaction() as connection:
            ids = connection.execute(query).scalars().all()
            self._forget_references(connection, ids)
        return True

    def _forget_references(self, connection: Connection, ids: Iterable[str]) -> None:
        for chunk in chunked(ids):
            theirs = table.c.id.in_(chunk)
            slots = connection.execute(select(table.c.reference_slot).where(theirs)).scalars().all()
            self._database.schedule_erasure(connection, [slot for slot in slots if slot is not None])
            connection.execute(update(table).where(theirs).values(reference_slot=None, sealed_reference=None))

    def _selector(self, row: Any) -> tuple[str, Selector]:
        return row.id, Selector.parse(self._database.keys.decrypt(row.slot, "names", row.sealed_names))

    def _reference(self, row: Any) -> tuple[str, str]:
        sealed = self._database.keys.decrypt(row.reference_slot, "reference", row.sealed_reference)
        return row.id, sealed.decode()
