"""Times and legal periods: RFC 3339 text in UTC, and the periods within which the law requires an answer.

A period in months ends on the same day of a later month, or on its last day if that day does not exist there
(Regulation (EEC, Euratom) No 1182/71, Article 3). The clock is read at the edge of the program and passed in.
"""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime

from lmeraser.errors import InputError


def utc_now() -> datetime:
    """The current time, in whole seconds."""
    return datetime.now(UTC).replace(microsecond=0)


def to_text(moment: datetime) -> str:
    """Format a time as RFC 3339 in UTC.

    >>> to_text(datetime(2026, 1, 31, 12, tzinfo=UTC))
    '2026-01-31T12:00:00Z'
    """
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="seconds") + "Z"


def from_text(text: str) -> datetime:
    """Parse RFC 3339 text; without an offset it is taken as UTC.

    Raises:
        InputError: the text is not a time.
    """
    try:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC).replace(microsecond=0)
    except (ValueError, OverflowError) as error:
        raise InputError(
            "Malformed time", got=repr(text), next_step="write it as in RFC 3339: 2026-01-31T12:00:00Z"
        ) from error


def to_moment(value: date | str) -> datetime:
    """A time from a time, a day or RFC 3339 text; a day begins, and a time without a zone is, in UTC.

    >>> to_text(to_moment(date(2026, 1, 31)))
    '2026-01-31T00:00:00Z'

    Raises:
        InputError: it is none of these.
    """
    if isinstance(value, str):
        return from_text(value)
    if isinstance(value, date):
        return from_text(value.isoformat())
    raise InputError(
        "Malformed time",
        got=f"a value of type {type(value).__name__}",
        next_step="give a datetime, a date, or RFC 3339 text: 2026-01-31T12:00:00Z",
    )


def add_months(moment: datetime, months: int) -> datetime:
    """The same day a number of months later, or the last day of that month.

    >>> add_months(datetime(2026, 1, 31, tzinfo=UTC), 1).date().isoformat()
    '2026-02-28'
    """
    year, month = divmod(moment.year * 12 + moment.month - 1 + months, 12)
    day = min(moment.day, calendar.monthrange(year, month + 1)[1])
    return moment.replace(year=year, month=month + 1, day=day)
