"""Views and order of lists of requests, and what is found by words."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lmeraser.core.time import to_text
from lmeraser.workspace.requests.listing import belongs, choose, count_views, search, timeliness
from lmeraser.workspace.requests.state import Request

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
ALL = [LATER, SOON, LATE, DONE, GONE]


def test_what_belongs_to_a_view() -> None:
    assert count_views(ALL, NOW) == {"open": 3, "week": 1, "late": 1, "done": 1}
    assert [belongs(one, "all", NOW) for one in ALL] == [True] * 5
    assert choose(ALL, "open", "", "due", NOW) == [LATE, SOON, LATER]
    assert choose(ALL, "open", "ccpa", "due", NOW) == [LATE]
    assert choose(ALL, "all", "", "received", NOW)[0] == GONE


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
