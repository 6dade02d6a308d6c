"""Calls and bytes are counted, and what is too much is refused with a problem."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.service import limits
from lmeraser.service.limits import BodySizeLimit, Budget, RateLimiter, StartLimit
from lmeraser.service.problems import Problem


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def taken(buckets: RateLimiter, name: str, tokens: int = 1) -> bool:
    try:
        buckets.take(name, tokens)
    except Problem as problem:
        return not (problem.status == 429 and int(problem.headers["Retry-After"]) >= 1)
    return True


def test_so_many_at_once_and_then_so_many_a_second() -> None:
    clock = Clock()
    buckets = RateLimiter(2.0, 3, clock)
    assert [taken(buckets, "a") for _ in range(5)] == [True, True, True, False, False]
    assert taken(buckets, "b"), "others have their own"
    clock.now = 0.5
    assert [taken(buckets, "a") for _ in range(2)] == [True, False]
    clock.now = 1000.0
    assert [taken(buckets, "a") for _ in range(5)] == [True, True, True, False, False]


@given(st.lists(st.floats(0, 5), min_size=1, max_size=60), st.floats(0.1, 5), st.integers(1, 5))
def test_never_more_than_the_rate_allows(pauses: list[float], rate: float, burst: int) -> None:
    clock = Clock()
    buckets, times = RateLimiter(rate, burst, clock), list[float]()
    for pause in pauses:
        clock.now += pause
        if taken(buckets, "a"):
            times.append(clock.now)
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + rate * (times[last] - start) + 1e-6


def test_names_that_are_full_again_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_BUCKETS", 10)
    clock = Clock()
    buckets = RateLimiter(1.0, 2, clock)
    for number in range(100):
        clock.now += 1
        buckets.take(f"address {number}")
    assert len(buckets._buckets) <= 11


def test_a_call_that_costs_more_takes_more_tokens_and_at_most_a_whole_bucket() -> None:
    clock = Clock()
    buckets = RateLimiter(2.0, 10, clock)
    buckets.take("a", 9)
    assert not taken(buckets, "a", 2)
    assert taken(buckets, "a", 1)
    with pytest.raises(Problem) as caught:
        buckets.take("a", 1000)
    assert caught.value.headers["Retry-After"] == "5"
    clock.now = 5.0
    assert taken(buckets, "a", 1000)


def test_many_callers_do_not_make_a_call_expensive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "_MAX_BUCKETS", 10)
    dropped: list[int] = []
    clock = Clock()
    buckets = RateLimiter(1.0, 1000, clock)
    drop = buckets._drop_full_buckets
    buckets._crowded = 10

    def dropping(now: float) -> None:
        dropped.append(1)
        drop(now)

    monkeypatch.setattr(buckets, "_drop_full_buckets", dropping)
    for number in range(1000):
        buckets.take(f"address {number}")
    assert len(dropped) < 12


def test_a_budget_is_shared_and_nobody_holds_more_than_a_share() -> None:
    budget = Budget(10, 6)
    with budget.reserve("a", 4) as mine, budget.reserve("b", 3) as theirs:
        with pytest.raises(Problem, match="busy"):
            mine.add(3)  # more than a share
        with pytest.raises(Problem, match="busy"):
            theirs.add(4)  # more than there is
        mine.add(2)
        assert budget.held == 9
        mine.release()
        mine.release()
        assert budget.held == 3
        theirs.add(3)
    assert budget.held == 0


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Reads the body and answers with its length."""
    length, more = 0, True
    while more:
        message = await receive()
        length += len(message["body"])
        more = message.get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": str(length).encode()})


def answered(parts: list[bytes], headers: list[tuple[bytes, bytes]], path: str = "/") -> tuple[int, bytes]:
    """Status and body of an answer to a body that comes in parts."""
    last = len(parts) - 1
    messages: Iterator[dict[str, Any]] = iter(
        [{"type": "http.request", "body": part, "more_body": n < last} for n, part in enumerate(parts)]
    )
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(
        BodySizeLimit(echo, 10, {"/more": 1000, "/below/": 1000, "/below/not": 10})(
            {"type": "http", "path": path, "headers": headers}, receive, send
        )
    )
    assert [message["type"] for message in sent] == ["http.response.start", "http.response.body"]
    return sent[0]["status"], sent[1]["body"]


@pytest.mark.parametrize("parts", [[b""], [b"x" * 10], [b"x" * 5, b"x" * 5], [b"x"] * 10])
def test_a_small_body_passes(parts: list[bytes]) -> None:
    assert answered(parts, []) == (200, str(sum(map(len, parts))).encode())


@pytest.mark.parametrize("parts", [[b"x" * 11], [b"x" * 5, b"x" * 6], [b"x"] * 11, [b"x"] * 500])
@pytest.mark.parametrize("told", [None, b"5", b"11", b"-1", b"1e3", b""])
def test_a_large_body_is_refused_whatever_length_is_told(parts: list[bytes], told: bytes | None) -> None:
    status, body = answered(parts, [] if told is None else [(b"content-length", told)])
    assert status == 413
    if told is None:
        assert answered(parts, [], "/more")[0] == 200
        assert answered(parts, [], "/below/it")[0] == 200
        assert answered(parts, [], "/below/not")[0] == 413
    assert json.loads(body)["type"] == "urn:lmeraser:problem:too-large"


@pytest.mark.parametrize(
    ("headers", "read", "closes"),
    [
        ([(b"content-length", b"5000000")], False, True),
        ([(b"content-length", b"2000000")], False, False),
        ([(b"transfer-encoding", b"chunked")], False, True),
        ([(b"content-length", b"5000000")], True, False),
        ([(b"transfer-encoding", b"chunked")], True, False),
        ([], False, False),
    ],
)
def test_a_call_that_is_answered_before_its_body_came_loses_its_connection(
    headers: list[tuple[bytes, bytes]], read: bool, closes: bool
) -> None:
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if read:
            await receive()
        await send({"type": "http.response.start", "status": 503, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b""})

    async def receive() -> Any:
        return {"type": "http.request", "body": b"x" * 500, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(
        BodySizeLimit(application, 1 << 23, {})({"type": "http", "path": "/", "headers": headers}, receive, send)
    )
    assert sent[0]["headers"] == [(b"a", b"b"), *[(b"connection", b"close")] * closes]


class Starting:
    """An application in which calls are where the test leaves them."""

    def __init__(self, most: int) -> None:
        self.limited = StartLimit(self.app, most)
        self.reached: list[str] = []
        self.may_end = asyncio.Event()
        self.start: dict[str, Any] = {}

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        self.reached.append(scope["path"])
        self.start[scope["path"]] = scope.get("state", {}).get(limits.STARTED)
        await self.may_end.wait()

    def call(self, path: str, key: bytes | None) -> asyncio.Task[None]:
        headers = [] if key is None else [(b"authorization", key)]
        scope = {"type": "http", "path": path, "headers": headers}
        return asyncio.ensure_future(self.limited(scope, receive_nothing, send_nothing))


async def receive_nothing() -> Any:
    raise AssertionError


async def send_nothing(_: Any) -> None:
    raise AssertionError


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def test_few_calls_with_the_same_key_start_at_a_time_and_no_other_waits_for_them() -> None:
    async def run() -> None:
        starting = Starting(most=2)
        calls = [starting.call(f"a{number}", b"a") for number in range(5)]
        await settled()
        assert starting.reached == ["a0", "a1"]
        calls += [starting.call("b0", b"b"), *(starting.call(f"open {number}", None) for number in range(3))]
        await settled()
        assert starting.reached[2:] == ["b0", "open 0", "open 1", "open 2"]
        starting.start["a0"]()
        starting.start["a0"]()  # harmless
        await settled()
        assert starting.reached[6:] == ["a2"]
        calls[3].cancel()  # a caller who went away while waiting
        starting.start["a1"]()
        await settled()
        assert starting.reached[7:] == ["a4"]
        starting.may_end.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert calls[3].cancelled()
        assert (len(starting.limited._starting), len(starting.limited._waiting)) == (0, 0)

    asyncio.run(run())


def test_a_turn_that_comes_as_its_call_is_given_up_is_the_next_ones() -> None:
    async def run() -> None:
        starting = Starting(most=1)
        calls = [starting.call(f"a{number}", b"a") for number in range(3)]
        await settled()
        starting.start["a0"]()  # the turn of the second
        calls[1].cancel()
        await settled()
        assert starting.reached == ["a0", "a2"]
        starting.may_end.set()
        await asyncio.gather(*calls, return_exceptions=True)
        assert not starting.limited._starting

    asyncio.run(run())
