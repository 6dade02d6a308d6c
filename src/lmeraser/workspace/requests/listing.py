"""Which requests a list shows, in which order, and in which words: the same on pages, over HTTP and in the shell.

What belongs to a view is a condition of SQL, so that a page of a long list costs what the page costs
(`repository.Requests.listed`). The rest are pure functions of requests that were read before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal, get_args

from sqlalchemy import ColumnElement, UnaryExpression, true

from lmeraser.core.time import from_text, to_text
from lmeraser.workspace.requests.state import OPEN_STATES, Request
from lmeraser.workspace.requests.table import table

View = Literal["open", "week", "late", "done", "all"]
Order = Literal["due", "received", "changed"]
VIEWS: tuple[View, ...] = get_args(View)
_WEEK = timedelta(days=7)


def in_view(view: View, now: datetime) -> ColumnElement[bool]:
    """Whether a row belongs to a view: open, due within a week, late, done (completed), or all.

    Times are compared as texts, which `to_text` makes equally long.
    """
    is_open = table.c.state.in_(OPEN_STATES)
    late = table.c.due < to_text(now)
    conditions: dict[View, ColumnElement[bool]] = {
        "open": is_open,
        "week": is_open & ~late & (table.c.due <= to_text(now + _WEEK)),
        "late": is_open & late,
        "done": table.c.state == "completed",
        "all": true(),
    }
    return conditions[view]


def in_order(order: Order) -> list[UnaryExpression[str]]:
    """The order of a list: earliest due first, or latest received or changed first."""
    columns = (table.c[order], table.c.id)
    return [column.asc() if order == "due" else column.desc() for column in columns]


def search(requests: Sequence[Request], references: Mapping[str, str], words: str) -> list[Request]:
    """The requests whose id begins so, or whose reference contains this, whatever its case; of no words, none.

    Args:
        requests: to search in; their order is kept.
        references: of those that have one, by the ids of their requests (`Requests.references`).
        words: to search for.
    """
    key = words.strip().casefold()
    return [
        request
        for request in requests
        if key and (request.id.startswith(key) or key in references.get(request.id, "").casefold())
    ]


def timeliness(request: Request, now: datetime) -> str:
    """Whether it is in time, in words: how many days are left, or how many it is late."""
    late = request.days_late(now)
    if late is None:
        return "cancelled"
    if late:
        return f"late by {late} day{'' if late == 1 else 's'}"
    if not request.open:
        return "in time"
    days = (from_text(request.due) - now) // timedelta(days=1)
    return f"{days} day{'' if days == 1 else 's'} left" if days else "due within a day"
