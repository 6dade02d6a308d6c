"""Pages of lists; words for whether a request is in time; rows that a spreadsheet only shows."""

from __future__ import annotations

import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from lmeraser.core.time import to_text
from lmeraser.service.dashboard.listing import Page, as_csv, timeliness
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


LATER, LATE = request(1, 20), request(3, -1.5)
DONE, GONE = request(4, 1, state="completed"), request(5, 1, state="cancelled")


@pytest.mark.parametrize(
    ("one", "words"),
    [
        (LATER, "20 days left"),
        (request(1, 1.5), "1 day left"),
        (request(1, 0.5), "due within a day"),
        (LATE, "late by 2 days"),
        (request(1, -1), "late by 1 day"),
        (DONE, "in time"),
        (request(1, -0.5, state="completed"), "late by 1 day"),
        (GONE, "cancelled"),
    ],
)
def test_whether_it_is_in_time_in_words(one: Request, words: str) -> None:
    assert timeliness(one, NOW) == words


def test_pages_of_a_list() -> None:
    lines = list(range(5))
    assert Page.of(lines, 1, 2) == Page([0, 1], 1, 3, 5)
    assert Page.of(lines, 99, 2) == Page([4], 3, 3, 5)
    assert Page.of([], 1, 2) == Page([], 1, 1, 0)


def test_rows_are_no_formulas() -> None:
    assert as_csv([]) == ""
    rows: list[dict[str, Any]] = [{"a": "=1+1", "b": None, "c": ("x", "y")}, {"a": "-2", "b": 3, "c": ()}]
    assert as_csv(rows) == "a,b,c\r\n'=1+1,,x y\r\n'-2,3,\r\n"
