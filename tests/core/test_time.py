"""A moment and its text are one, whatever the offset, and a month later is the same day or the month's last."""

from __future__ import annotations

import calendar
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.time import add_months, from_text, to_text, utc_now
from lmeraser.errors import InputError

NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_seconds = st.datetimes(datetime(1000, 1, 2), datetime(9999, 12, 30)).map(
    lambda naive: naive.replace(microsecond=0)
)
_moments = _seconds.map(lambda naive: naive.replace(tzinfo=UTC))
_zones = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
_days = st.datetimes(datetime(1900, 1, 1), datetime(2200, 12, 31)).map(lambda naive: naive.replace(tzinfo=UTC))


@given(_moments)
def test_a_moment_comes_back_from_its_text(moment: datetime) -> None:
    assert from_text(to_text(moment)) == moment
    assert from_text(to_text(moment)).tzinfo is UTC
    assert to_text(from_text(to_text(moment))) == to_text(moment)


@given(_moments, _zones)
def test_the_offset_makes_no_difference(moment: datetime, zone: timezone) -> None:
    elsewhere = moment.astimezone(zone)
    assert to_text(elsewhere) == to_text(moment)
    assert from_text(elsewhere.isoformat()) == moment


@given(_seconds)
def test_text_without_an_offset_is_utc(naive: datetime) -> None:
    assert from_text(naive.isoformat()) == naive.replace(tzinfo=UTC)


@pytest.fixture
def _in_tokyo(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "JST-9")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("_in_tokyo")
def test_the_place_of_the_machine_makes_no_difference() -> None:
    assert datetime(2026, 1, 31, 12).astimezone().utcoffset() == timedelta(hours=9)
    assert from_text("2026-01-31T12:00:00") == NOON
    assert to_text(NOON) == "2026-01-31T12:00:00Z"
    assert utc_now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-31T12:00:00Z",
        "2026-01-31T12:00:00+00:00",
        "2026-01-31T13:00:00+01:00",
        "2026-01-31T00:30:00-11:30",
        "2026-02-01T02:00:00+14:00",
        "2026-01-31T12:00:00",
        "2026-01-31 12:00:00",
        "2026-01-31T12:00:00.999Z",
    ],
)
def test_the_same_moment_in_many_forms(text: str) -> None:
    assert from_text(text) == NOON
    assert to_text(from_text(text)) == "2026-01-31T12:00:00Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "tomorrow",
        "31.01.2026",
        "2026-02-29T12:00:00Z",
        "2026-01-31T25:00:00Z",
        "2026-01-31T12:00:00+25:00",
        "2026-01-31T12:00:00Z and more",
        "0001-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "\x00",
    ],
)
def test_text_that_is_no_moment_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="RFC 3339") as caught:
        from_text(text)
    assert caught.value.got == repr(text)


def test_the_clock_is_in_whole_seconds_of_utc() -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    now = utc_now()
    assert before < now <= datetime.now(UTC)
    assert (now.tzinfo, now.microsecond) == (UTC, 0)
    assert from_text(to_text(now)) == now


@pytest.mark.parametrize(
    ("day", "months", "expected"),
    [
        ("2026-01-31", 1, "2026-02-28"),
        ("2024-01-31", 1, "2024-02-29"),
        ("2000-01-31", 1, "2000-02-29"),
        ("2100-01-31", 1, "2100-02-28"),
        ("2024-02-29", 12, "2025-02-28"),
        ("2024-02-29", 48, "2028-02-29"),
        ("2026-11-30", 3, "2027-02-28"),
        ("2026-12-31", 1, "2027-01-31"),
        ("2026-03-31", 1, "2026-04-30"),
        ("2026-02-28", 1, "2026-03-28"),
        ("2026-01-15", 0, "2026-01-15"),
        ("2026-03-31", -1, "2026-02-28"),
        ("2026-01-31", -2, "2025-11-30"),
    ],
)
def test_months_end_on_the_same_day_or_the_last(day: str, months: int, expected: str) -> None:
    assert add_months(from_text(day), months).date().isoformat() == expected


@given(_days, st.integers(0, 60))
def test_months_later_is_the_same_day_or_the_last_of_the_right_month(moment: datetime, months: int) -> None:
    later = add_months(moment, months)
    assert (later.year - moment.year) * 12 + later.month - moment.month == months
    last = calendar.monthrange(later.year, later.month)[1]
    assert later.day == moment.day or (later.day == last and last < moment.day)
    assert (later.timetz(), later.tzinfo) == (moment.timetz(), moment.tzinfo)


@given(_days, st.integers(0, 24), st.integers(0, 24))
def test_more_months_are_never_earlier(moment: datetime, months: int, more: int) -> None:
    assert moment <= add_months(moment, months) <= add_months(moment, months + more)
