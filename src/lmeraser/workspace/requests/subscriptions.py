"""Who wants to be told what becomes of a request, and what they were told last.

A subscription is made in the transaction that accepts the request. From then on a notice is due whenever the
request's state is another one than was told last: nothing has to be queued by those who change states, and nothing
is lost by a crash. A state that ends before it was told is passed over. Told of the end, a subscription is
deleted; so is one that could not be told for too long. Its URL is sealed, because callers may put anything into
it.

Follows `database` and `requests`; knows nothing about HTTP.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Integer, String, Table, delete, func, insert, select, update

from lmeraser.core.time import from_text, to_text
from lmeraser.storage.database import Database, encrypted, schema
from lmeraser.workspace.requests.repository import table as requests
from lmeraser.workspace.requests.state import State

_FIRST_DELAY, _LONGEST_DELAY = timedelta(seconds=2), timedelta(hours=1)
_ENDS: tuple[State, ...] = ("completed", "cancelled")

_subscriptions = Table(
    "subscriptions",
    schema,
    Column("number", Integer, primary_key=True),
    Column("request", String, nullable=False, index=True),
    Column("told", String, nullable=False),
    Column("tries", Integer, nullable=False),
    Column("since", String, nullable=False),
    Column("next", String, nullable=False),
    Column("slot", Integer, nullable=False),
    encrypted("sealed_url", what="callback", slot="slot"),
)


@dataclass(frozen=True)
class Notice:
    """Something that is to be told.

    Attributes:
        subscription: its number.
        request: id of the request.
        state: of the request.
        url: who is told.
        tries: how often it was tried.
        since: of when the first try was.
    """

    subscription: int
    request: str
    state: State
    url: str
    tries: int
    since: datetime


class Subscriptions:
    """The subscriptions of one workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, connection: Connection, request: str, urls: Sequence[str], *, now: datetime) -> None:
        """Tell these URLs of every change of a request that is pending, from now on."""
        for url in dict.fromkeys(urls):
            slot = self._database.new_keys(connection, 1).start
            values = {
                "request": request,
                "told": "pending",
                "tries": 0,
                "since": to_text(now),
                "next": to_text(now),
            }
            url_sealed = self._database.keys.encrypt(slot, "callback", url.encode())
            connection.execute(insert(_subscriptions).values(**values, slot=slot, sealed_url=url_sealed))

    def due(self, now: datetime) -> list[Notice]:
        """What is to be told now. A failed request is told as one that is still in progress."""
        state = requests.c.state
        query = (
            select(*_subscriptions.c, state.label("state"))
            .join_from(_subscriptions, requests, _subscriptions.c.request == requests.c.id)
            .where(_subscriptions.c.told != state, state != "failed", _subscriptions.c.next <= to_text(now))
            .order_by(_subscriptions.c.next, _subscriptions.c.number)
        )
        return self._database.fetch(query, lambda row: self._notice(row, now))

    def waiting(self) -> int:
        """How many subscriptions there are."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(_subscriptions)).scalar_one())

    def told(self, notice: Notice) -> None:
        """Note that a notice arrived."""
        with self._database.transaction() as connection:
            if notice.state in _ENDS:
                self._drop(connection, notice)
            else:
                self._set(connection, notice, told=notice.state, tries=0)
        self._database.erase()

    def missed(self, notice: Notice, *, now: datetime, patience: timedelta) -> bool:
        """Note that a notice did not arrive; whether it will be tried again."""
        again = now - notice.since < patience
        with self._database.transaction() as connection:
            if again:
                delay = min(_FIRST_DELAY * 2 ** min(notice.tries, 20), _LONGEST_DELAY)
                since, later = to_text(notice.since), to_text(now + delay)
                self._set(connection, notice, tries=notice.tries + 1, since=since, next=later)
            else:
                self._drop(connection, notice)
        self._database.erase()
        return again

    def _notice(self, row: Any, now: datetime) -> Notice:
        url = self._database.keys.decrypt(row.slot, "callback", row.sealed_url).decode()
        since = from_text(row.since) if row.tries else now
        return Notice(row.number, row.request, row.state, url, row.tries, since)

    def _set(self, connection: Connection, notice: Notice, **values: Any) -> None:
        mine = _subscriptions.c.number == notice.subscription
        connection.execute(update(_subscriptions).where(mine).values(**values))

    def _drop(self, connection: Connection, notice: Notice) -> None:
        mine = _subscriptions.c.number == notice.subscription
        slots = connection.execute(select(_subscriptions.c.slot).where(mine)).scalars().all()
        self._database.schedule_erasure(connection, slots)
        connection.execute(delete(_subscriptions).where(mine))
