"""Subscriptions: URLs that are notified when the state of a request changes.

A subscription is created in the transaction that accepts the request. From then on a notification is due whenever
the request's state differs from the one delivered last: whoever changes a state has to queue nothing, and a crash
loses nothing. A state that ends before it was delivered is skipped. A subscription is deleted when the final state
was delivered, or when delivery has failed for too long. Its URL is encrypted, because callers may put anything in
it.

Knows nothing about HTTP: `service.callbacks` delivers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, Connection, Integer, String, Table, delete, func, insert, select, update

from lmeraser.core.time import from_text, to_text
from lmeraser.storage.database import Database, encrypted, schema
from lmeraser.workspace.requests.state import State
from lmeraser.workspace.requests.table import table as requests

_FIRST_DELAY = timedelta(seconds=2)
_LONGEST_DELAY = timedelta(hours=1)
_FINAL: tuple[State, ...] = ("completed", "cancelled")

# In the stored words, "told" is the state delivered last and "since" the time of the first attempt at another one.
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
class Notification:
    """A notification that is due.

    Attributes:
        subscription: number of the subscription.
        request: id of the request.
        state: the state to notify of.
        url: where to deliver it.
        tries: how often delivery was tried.
        since: when it was tried first.
    """

    subscription: int
    request: str
    state: State
    url: str
    tries: int
    since: datetime


def retry_delay(tries: int) -> timedelta:
    """How long to wait before a delivery that failed after so many others is tried again."""
    factor: int = 2 ** min(tries, 20)
    return min(_FIRST_DELAY * factor, _LONGEST_DELAY)


class Subscriptions:
    """The subscriptions of one workspace."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, connection: Connection, request: str, urls: Sequence[str], *, now: datetime) -> None:
        """Notify these URLs of every change of a request, which is pending now."""
        for url in dict.fromkeys(urls):
            (slot,) = self._database.new_keys(connection, 1)
            values = {
                "request": request,
                "told": "pending",
                "tries": 0,
                "since": to_text(now),
                "next": to_text(now),
            }
            encrypted_url = self._database.keys.encrypt(slot, "callback", url.encode())
            connection.execute(insert(_subscriptions).values(**values, slot=slot, sealed_url=encrypted_url))

    def urls(self, connection: Connection, request: str) -> frozenset[str]:
        """The URLs that are still to be notified of a request."""
        rows = connection.execute(select(_subscriptions).where(_subscriptions.c.request == request))
        return frozenset(map(self._url, rows))

    def due(self, now: datetime) -> list[Notification]:
        """The notifications that are due now. For the URLs, a failed request is still in progress."""
        state = requests.c.state
        query = (
            select(*_subscriptions.c, state.label("state"))
            .join_from(_subscriptions, requests, _subscriptions.c.request == requests.c.id)
            .where(_subscriptions.c.told != state, state != "failed", _subscriptions.c.next <= to_text(now))
            .order_by(_subscriptions.c.next, _subscriptions.c.number)
        )
        return self._database.fetch(query, lambda row: self._notification(row, now))

    def count(self) -> int:
        """The number of subscriptions."""
        with self._database.reading() as connection:
            return int(connection.execute(select(func.count()).select_from(_subscriptions)).scalar_one())

    def delivered(self, notification: Notification) -> None:
        """Note that a notification was delivered."""
        with self._database.transaction() as connection:
            if notification.state in _FINAL:
                self._drop(connection, notification)
            else:
                self._set(connection, notification, told=notification.state, tries=0)
        self._database.erase()

    def failed(self, notification: Notification, *, now: datetime, patience: timedelta) -> bool:
        """Note that a notification was not delivered; returns whether it will be tried again."""
        again = now - notification.since < patience
        with self._database.transaction() as connection:
            if again:
                since = to_text(notification.since)
                later = to_text(now + retry_delay(notification.tries))
                self._set(connection, notification, tries=notification.tries + 1, since=since, next=later)
            else:
                self._drop(connection, notification)
        self._database.erase()
        return again

    def _notification(self, row: Any, now: datetime) -> Notification:
        since = from_text(row.since) if row.tries else now
        return Notification(row.number, row.request, row.state, self._url(row), row.tries, since)

    def _url(self, row: Any) -> str:
        return self._database.keys.decrypt(row.slot, "callback", row.sealed_url).decode()

    def _set(self, connection: Connection, notification: Notification, **values: Any) -> None:
        mine = _subscriptions.c.number == notification.subscription
        connection.execute(update(_subscriptions).where(mine).values(**values))

    def _drop(self, connection: Connection, notification: Notification) -> None:
        mine = _subscriptions.c.number == notification.subscription
        slots = connection.execute(select(_subscriptions.c.slot).where(mine)).scalars().all()
        self._database.schedule_erasure(connection, slots)
        connection.execute(delete(_subscriptions).where(mine))
