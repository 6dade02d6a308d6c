"""Deletion requests as they are stored: found by id, state, view or law, and what each of them selects.

Knows nothing about how they change (`changes`). `personal_data` has what requests hold of people, and until when.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, bindparam, func, select

from lmeraser.config.deployment import RequestsConfig
from lmeraser.data.records import Records
from lmeraser.errors import InputError
from lmeraser.evidence.hash_chain import Entry, LedgerHead
from lmeraser.evidence.ledger import Ledger
from lmeraser.storage.database import Database
from lmeraser.workspace.requests.listing import VIEWS, Order, View, in_order, in_view
from lmeraser.workspace.requests.personal_data import PersonalData
from lmeraser.workspace.requests.selection import Selection, resolve_each
from lmeraser.workspace.requests.state import Regulation, Request, State, parse_id, seconds_until
from lmeraser.workspace.requests.table import request_of, table

_BY_ID = select(table).where(table.c.id == bindparam("wanted"))  # to build it takes longer than to run it


class Requests:
    """The deletion requests of one workspace, for reading.

    Args:
        database: where they are.
        records: what they delete from.
        ledger: has every change of their states.
        config: how long references are kept.
    """

    def __init__(self, database: Database, records: Records, ledger: Ledger, config: RequestsConfig) -> None:
        self._database = database
        self._records = records
        self._ledger = ledger
        self._personal_data = PersonalData(database, config)

    def all(self, *states: State, connection: Connection | None = None) -> list[Request]:
        """The requests in these states (or all), the earliest due first."""
        query = select(table).order_by(table.c.due, table.c.id)
        if states:
            query = query.where(table.c.state.in_(states))
        with self._database.reading(connection) as inner:
            return [request_of(row) for row in inner.execute(query)]

    def listed(
        self,
        now: datetime,
        view: View = "all",
        *,
        regulation: Regulation | Literal[""] = "",
        states: Collection[State] = (),
        order: Order = "due",
        offset: int = 0,
        limit: int | None = None,
    ) -> tuple[int, list[Request]]:
        """A part of the list of requests.

        Args:
            now: the time.
            view: only requests that belong to it.
            regulation: only requests under this law; '': any.
            states: only requests in one of these; none: any.
            order: of the list.
            offset: how many to leave out at its beginning.
            limit: how many to return at most; None: all others.

        Returns:
            How many requests the whole list has, and those of the part.
        """
        conditions = [in_view(view, now)]
        if regulation:
            conditions.append(table.c.regulation == regulation)
        if states:
            conditions.append(table.c.state.in_(states))
        part = select(table).where(*conditions).order_by(*in_order(order)).offset(offset).limit(limit)
        with self._database.reading() as connection:
            total = connection.execute(select(func.count()).select_from(table).where(*conditions)).scalar_one()
            return total, [request_of(row) for row in connection.execute(part)]

    def counts(self, now: datetime) -> dict[View, int]:
        """How many requests belong to each view."""
        counts = [func.count().filter(in_view(view, now)).label(view) for view in VIEWS]
        with self._database.reading() as connection:
            row = connection.execute(select(*counts).select_from(table)).one()
        return dict(zip(VIEWS, row, strict=True))

    def states_to_start(self, now: datetime) -> set[State]:
        """The states among `pending` and `in_progress` of the requests whose grace period is over.

        As `Request.seconds_to_start` says, for all requests at once and without reading them.
        """
        starts = func.min(func.coalesce(table.c.starts, ""))
        query = select(table.c.state, starts.label("starts")).group_by(table.c.state)
        with self._database.reading() as connection:
            rows = connection.execute(query.where(table.c.state.in_(("pending", "in_progress")))).all()
        return {row.state for row in rows if row.state != "pending" or not seconds_until(row.starts, now)}

    def by_id(self, ids: Iterable[str], connection: Connection | None = None) -> dict[str, Request]:
        """The requests with these ids, by their ids."""
        found = self._database.fetch_where_in(select(table), table.c.id, list(ids), request_of, connection)
        return {one.id: one for one in found}

    def get(self, request_id: str, connection: Connection | None = None) -> Request | None:
        """One request, or None."""
        with self._database.reading(connection) as inner:
            row = inner.execute(_BY_ID, {"wanted": request_id}).one_or_none()
        return request_of(row) if row is not None else None

    def with_ledger(self, *, head: LedgerHead | None = None) -> tuple[list[Request], list[Entry]]:
        """All requests and all entries of the ledger, checked, of one moment.

        Args:
            head: exported earlier; the ledger has to contain it.

        Raises:
            VerificationError: the ledger is broken.
            StorageError: the file cannot be read.
        """
        requests = self.all()
        while True:
            entries = self._ledger.entries(head=head)
            before, requests = requests, self.all()
            if before == requests:  # every change of one is a change of the other
                return requests, entries

    def require(self, request_id: str, connection: Connection | None = None) -> Request:
        """One request.

        Raises:
            InputError: there is none with this id.
        """
        request = self.get(parse_id(request_id), connection)
        if request is None:
            raise InputError("Request not found", got=request_id, next_step="'lmeraser requests' lists them")
        return request

    def reference(self, request_id: str) -> str | None:
        """The desk's reference of a request, if it was given one and it is not erased yet."""
        return self._personal_data.reference(request_id)

    def references(self) -> dict[str, str]:
        """All references that are not erased yet, by the ids of their requests."""
        return self._personal_data.references()

    def selection(self, request: Request, connection: Connection | None = None) -> Selection:
        """The records that a pending request selects now."""
        return self.selections([request], connection)[0]

    def selections(self, requests: Sequence[Request], connection: Connection | None = None) -> list[Selection]:
        """The records that each of these requests selects now, by the names that are not erased yet."""
        ids = [request.id for request in requests]

        def read(inner: Connection) -> list[Selection]:
            return resolve_each(self._records, self._personal_data.selectors(ids, inner))

        return read(connection) if connection is not None else self._database.read_consistently(read)

    def pending_selection(self) -> Selection:
        """The records that all pending requests together select now."""

        def read(connection: Connection) -> Selection:
            return Selection.union(self.selections(self.all("pending", connection=connection), connection))

        return self._database.read_consistently(read)
