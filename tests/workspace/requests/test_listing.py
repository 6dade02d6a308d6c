"""Views and order of lists of requests, and what is found by words."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert

from lmeraser.config.deployment import RequestsConfig
from lmeraser.core.time import from_text, to_text
from lmeraser.storage.database import Database
from lmeraser.workspace.requests.listing import VIEWS, View, search, timeliness
from lmeraser.workspace.requests.repository import Requests
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.requests.table import table

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def request(number: int, days: float, **changes: object) -> Request:
    """An open request that is due after so many days."""
    made = Request(
        id=str(uuid.UUID(int=number)),
        regulation="gdpr",
        state="pending",
        received=to_text(NOW),
        due=to_text(NOW + timedelta(days=days)),
        changed=to_text(NOW),
        names=1,
        audit=False,
    )
    return replace(made, **changes)  # type: ignore[arg-type]


LATER, SOON, LATE = request(1, 20), request(2, 3), request(3, -1.5, regulation="ccpa")
DONE, GONE = request(4, 1, state="completed"), request(5, 1, state="cancelled")
NOW_DUE = request(6, 0)
IN_A_WEEK, AFTER_A_WEEK = request(7, 7, state="failed"), request(8, 7 + 1 / 86400, state="in_progress")
ALL = [LATER, SOON, LATE, DONE, GONE, NOW_DUE, IN_A_WEEK, AFTER_A_WEEK]


@pytest.fixture
def requests(tmp_path: Path) -> Iterator[Requests]:
    """All of them, in a database."""
    with contextlib.closing(Database(tmp_path / "records.db")) as database:
        with database.transaction() as connection:
            for one in ALL:
                connection.execute(insert(table).values(**one.__dict__, selector=""))
        unused: Any = None
        yield Requests(database, unused, unused, RequestsConfig())


def belongs(one: Request, view: View) -> bool:
    """What the words say, of a request that was read."""
    days = (from_text(one.due) - NOW) / timedelta(days=1)
    words = {
        "open": one.open,
        "week": one.open and not one.late(NOW) and days <= 7,
        "late": one.open and one.late(NOW),
        "done": one.state == "completed",
        "all": True,
    }
    return words[view]


def test_what_belongs_to_a_view(requests: Requests) -> None:
    assert requests.counts(NOW) == {"open": 6, "week": 3, "late": 1, "done": 1, "all": 8}
    for view in VIEWS:
        total, listed = requests.listed(NOW, view)
        assert total == len(listed) == requests.counts(NOW)[view]
        assert {one.id for one in listed} == {one.id for one in ALL if belongs(one, view)}


def test_order_and_parts_of_a_list(requests: Requests) -> None:
    assert requests.listed(NOW, "open") == (6, [LATE, NOW_DUE, SOON, IN_A_WEEK, AFTER_A_WEEK, LATER])
    assert requests.listed(NOW, "open", offset=1, limit=2) == (6, [NOW_DUE, SOON])
    assert requests.listed(NOW, "open", offset=9) == (6, [])
    assert requests.listed(NOW, regulation="ccpa") == (1, [LATE])
    assert requests.listed(NOW, states=["completed", "cancelled"], order="received") == (2, [GONE, DONE])
    assert requests.listed(NOW, order="changed", limit=1) == (8, [AFTER_A_WEEK])


def test_what_is_found_by_words() -> None:
    references = {SOON.id: "Ticket 4711 (Müller)", LATE.id: "ticket 4712"}
    assert search(ALL, references, " TICKET 47 ") == [SOON, LATE]
    assert search(ALL, references, "müller") == [SOON]
    assert search(ALL, references, LATER.id[:30].upper()) == ALL, "an id begins so"
    assert search(ALL, references, LATER.id) == [LATER]
    assert search(ALL, references, "9") == search(ALL, {}, "ticket") == []
    assert search(ALL, references, " ") == []


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (request(1, 20), "20 days left"),
        (request(1, 1.5), "1 day left"),
        (request(1, 0.5), "due within a day"),
        (request(3, -1.5), "late by 2 days"),
        (request(1, -1), "late by 1 day"),
        (request(4, 1, state="completed"), "in time"),
        (request(1, -0.5, state="completed"), "late by 1 day"),
        (request(5, 1, state="cancelled"), "cancelled"),
    ],
)
def test_whether_it_is_in_time_in_words(one: Request, words: str) -> None:
    assert timeliness(one, NOW) == words
