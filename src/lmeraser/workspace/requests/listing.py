"""Which requests a list shows, in which order, and in which words: the same on pages, over HTTP and in the shell.

Pure functions of requests that were read before.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

from lmeraser.core.time import from_text
from lmeraser.workspace.requests.state import Regulation, Request

View = Literal["open", "week", "late", "done", "all"]
Order = Literal["due", "received", "changed"]
_WEEK = timedelta(days=7)


def belongs(request: Request, view: View, now: datetime) -> bool:
    """Whether a request belongs to a view: open, due within a week, late, done (completed), or all."""
    if view == "week":
        return request.open and not request.late(now) and from_text(request.due) - now <= _WEEK
    tests: dict[View, Callable[[], bool]] = {
        "open": lambda: request.open,
        "late": lambda: request.open and request.late(now),
        "done": lambda: request.state == "completed",
        "all": lambda: True,
    }
    return tests[view]()


def count_views(requests: Sequence[Request], now: datetime) -> dict[str, int]:
    """How many requests belong to each view of the first screen."""
    views: tuple[View, ...] = ("open", "week", "late", "done")
    return {view: sum(belongs(request, view, now) for request in requests) for view in views}


def choose(
    requests: Sequence[Request], view: View, regulation: Regulation | Literal[""], order: Order, now: datetime
) -> list[Request]:
    """The requests of a view under a law ('' for any): earliest due first, or latest received or changed first."""
    chosen = [one for one in requests if belongs(one, view, now) and regulation in ("", one.regulation)]
    return sorted(chosen, key=lambda one: (getattr(one, order), one.id), reverse=order != "due")


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
