"""Sessions end when they should, and no cookie or token is taken that was not made here."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.service.dashboard import sessions as sessions_module
from lmeraser.service.dashboard.sessions import LIFETIME, Sessions

KEY = "0123456789ab"


def test_a_cookie_gives_back_its_session_and_holds_no_more_than_the_keys_id() -> None:
    sessions = Sessions()
    session, cookie = sessions.open(KEY)
    assert sessions.read(cookie) == session
    assert session.key == KEY
    assert "lme_" not in cookie
    assert sessions.open(KEY)[0].id != session.id
    assert sessions.open()[0].key is None


def test_a_session_ends_after_some_hours_and_at_once_when_it_is_ended() -> None:
    now = [1000.0]
    sessions = Sessions(lambda: now[0])
    (one, first), (_, second) = sessions.open(KEY), sessions.open(KEY)
    sessions.end(one)
    assert sessions.read(first) is None
    assert sessions.read(second) is not None
    now[0] += LIFETIME
    assert sessions.read(second) is None
    sessions.end(one)  # those that ended by themselves are not remembered
    assert sessions.read(first) is None


def test_ended_sessions_are_remembered_within_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions_module, "_MAX_ENDED", 10)
    now = [1000.0]
    sessions = Sessions(lambda: now[0])
    for _ in range(50):
        sessions.end(sessions.open()[0])
    assert not sessions._ended, "without a key there is nothing to end"
    ended = []
    for _ in range(50):
        now[0] += 1
        session, cookie = sessions.open(KEY)
        ended.append(cookie)
        sessions.end(session)
        assert len(sessions._ended) <= 10
    assert not any(map(sessions.read, ended))
    assert sessions.read(sessions.open(KEY)[1]) is not None


def test_another_process_takes_no_cookie_and_no_token_of_this_one() -> None:
    one, other = Sessions(), Sessions()
    session, cookie = one.open(KEY)
    assert other.read(cookie) is None
    assert not other.verify_csrf_token(session, one.csrf_token(session))


@given(st.data())
def test_a_cookie_with_one_other_character_is_none(data: st.DataObject) -> None:
    sessions = Sessions()
    _, cookie = sessions.open(KEY)
    # Cookies are random and differ in length, so what is drawn may depend on neither.
    at = data.draw(st.integers(0, 999)) % len(cookie)
    other = data.draw(st.characters(codec="utf-8"))
    if other == cookie[at]:
        other = "A" if other != "A" else "B"
    assert sessions.read(cookie[:at] + other + cookie[at + 1 :]) is None


@pytest.mark.parametrize("cookie", ["", ".", "...", "a.b.c.d", "é.-.1.2", "x" * 5000])
def test_what_is_no_cookie(cookie: str) -> None:
    assert Sessions().read(cookie) is None


def test_a_token_is_of_one_session() -> None:
    sessions = Sessions()
    (one, _), (other, _) = sessions.open(KEY), sessions.open(KEY)
    assert sessions.verify_csrf_token(one, sessions.csrf_token(one))
    assert not sessions.verify_csrf_token(other, sessions.csrf_token(one))
    assert not sessions.verify_csrf_token(one, "")
    assert not sessions.verify_csrf_token(one, "é")
    assert not sessions.verify_csrf_token(one, one.id)
