"""Limits of calls: their rate, the size of their bodies, and what all of them together may hold in memory.

Knows nothing about the content of calls.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmeraser.service.problems import Problem

P = ParamSpec("P")
R = TypeVar("R")

_MAX_BUCKETS = 10_000  # beyond, buckets that are full again are dropped
MAX_FORM_BYTES = 256 << 10
MAX_LOGIN_BYTES = 4 << 10  # anyone may send a login form
_DISCARDED = 4 << 20  # bytes of a body that are received for nothing after its answer
STARTED = "started"  # in the state of a call: a function to call once its key was looked up
_BYTES_PER_TOKEN = 64 << 10  # of a body: reading and checking it costs about as much as a small call


class RateLimiter:
    """Token buckets: each caller may make ``burst`` calls at once, and ``rate`` per second in the long run.

    Args:
        rate: tokens per second.
        burst: capacity of a bucket.
        clock: monotonic seconds.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate = rate
        self._burst = float(burst)
        self._clock = clock
        self._buckets: dict[str, tuple[float, float]] = {}  # tokens, and the time at which they were counted
        self._crowded = _MAX_BUCKETS  # number of buckets at which full ones are dropped
        self._lock = threading.Lock()

    def take(self, caller: str, tokens: int = 1) -> None:
        """Take tokens from a caller's bucket; a call that costs more than a whole bucket costs a whole one.

        Raises:
            Problem: the bucket has too few; has the time to wait as ``Retry-After``.
        """
        now = self._clock()
        cost = min(float(tokens), self._burst)
        with self._lock:
            left, counted = self._buckets.get(caller, (self._burst, now))
            left = min(self._burst, left + (now - counted) * self._rate)
            allowed = left >= cost
            self._buckets[caller] = (left - cost if allowed else left, now)
            if len(self._buckets) > self._crowded:
                self._drop_full_buckets(now)
        if not allowed:
            wait = str(max(1, math.ceil((cost - left) / self._rate)))
            raise Problem(429, "rate", "Too many requests; see Retry-After", headers={"Retry-After": wait})

    def _drop_full_buckets(self, now: float) -> None:
        refill = (self._burst - 1) / self._rate
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if now - bucket[1] < refill}
        self._crowded = max(_MAX_BUCKETS, 2 * len(self._buckets))  # so that a call costs no more with many callers


def tokens_of_body(size: int) -> int:
    """Tokens that a body of this many bytes costs besides its call."""
    return size // _BYTES_PER_TOKEN


class Budget:
    """An amount of memory or work that all calls share.

    Args:
        total: that may be reserved at the same time.
        share: that one caller may hold; None: all of it.
    """

    def __init__(self, total: int, share: int | None = None) -> None:
        self.total = total
        self.share = total if share is None else share
        self._held: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def held(self) -> int:
        """How much is reserved now."""
        return sum(self._held.values())

    def reserve(self, caller: str, amount: int = 0) -> Reservation:
        """Reserve an amount for a caller until the reservation is released.

        Raises:
            Problem: there is not enough left.
        """
        reservation = Reservation(self, caller)
        reservation.add(amount)
        return reservation

    def _change(self, caller: str, amount: int) -> None:
        with self._lock:
            if amount > 0 and (self.held + amount > self.total or self._held[caller] + amount > self.share):
                raise Problem(503, "busy", "Too much is waiting; see Retry-After", headers={"Retry-After": "1"})
            self._held[caller] += amount
            if self._held[caller] <= 0:
                del self._held[caller]


class Reservation:
    """What one call has reserved of a budget; a context manager that releases it."""

    def __init__(self, budget: Budget, caller: str) -> None:
        self._budget = budget
        self._caller = caller
        self._amount = 0

    def add(self, amount: int) -> None:
        """Reserve more. Raises as `Budget.reserve`."""
        self._budget._change(self._caller, amount)
        self._amount += amount

    def release(self) -> None:
        """Give it back; harmless to repeat."""
        amount = self._amount
        self._amount = 0
        self._budget._change(self._caller, -amount)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class SharedThread:
    """One thread for work that is long, in a queue in which no caller can take all places.

    Args:
        name: of the thread.
        places: in the queue, of which one caller may have half.
    """

    def __init__(self, name: str, places: int) -> None:
        self._budget = Budget(places, places // 2)
        self._executor = ThreadPoolExecutor(1, name)

    async def run(self, caller: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Call a function there, and wait for its result without blocking the event loop.

        Raises:
            Problem: the queue is full.
        """
        with self._budget.reserve(caller, 1):
            return await asyncio.wrap_future(self._executor.submit(function, *args, **kwargs))

    def run_blocking(self, caller: str, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """As `run`, for callers in a thread of their own."""
        with self._budget.reserve(caller, 1):
            return self._executor.submit(function, *args, **kwargs).result()

    def stop(self) -> None:
        """Drop what waits, and end the thread."""
        self._executor.shutdown(cancel_futures=True)


class StartLimit:
    """Middleware that lets few calls with the same credentials start at a time; the others wait.

    Whoever sends hundreds of calls at once would otherwise be ahead of everybody who comes later: the event loop
    finds their routes, and threads look up their keys, in the order in which they came. A call that waits costs
    next to nothing. It has started when its key was looked up (`access`), or when it ends. Calls without
    credentials do not wait: they are health checks, pages, or refused.

    Args:
        app: the application.
        most: calls with the same credentials that start at a time.
    """

    def __init__(self, app: ASGIApp, most: int) -> None:
        self._app = app
        self._most = most
        self._starting: Counter[bytes] = Counter()
        self._waiting: dict[bytes, deque[asyncio.Future[None]]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one call."""
        caller = next((value for name, value in scope.get("headers", ()) if name == b"authorization"), None)
        if scope["type"] != "http" or caller is None:
            await self._app(scope, receive, send)
            return
        await self._wait_for_turn(caller)
        started = False

        def start() -> None:
            nonlocal started
            if not started:
                started = True
                self._pass_turn(caller)

        scope.setdefault("state", {})[STARTED] = start
        try:
            await self._app(scope, receive, send)
        finally:
            start()

    async def _wait_for_turn(self, caller: bytes) -> None:
        if self._starting[caller] < self._most:
            self._starting[caller] += 1
            return
        turn = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(caller, deque()).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():  # it came, and is another's now
                self._pass_turn(caller)
            raise

    def _pass_turn(self, caller: bytes) -> None:
        """Give a turn to the one who waits longest, if somebody does."""
        waiting = self._waiting.get(caller, deque())
        while waiting:
            turn = waiting.popleft()
            if not waiting:
                del self._waiting[caller]
            if not turn.done():
                turn.set_result(None)
                return
        self._starting[caller] -= 1
        if not self._starting[caller]:
            del self._starting[caller]


class BodySizeLimit:
    """Middleware that rejects bodies that are too large, before they are read if their length is declared.

    A call that is answered before its body arrived, for instance because its key is unknown or too much is
    waiting, loses its connection if much of the body is missing: the rest would be received for nothing. A caller
    who goes on sending may miss the answer then, so small bodies are received.

    Args:
        app: the application.
        max_bytes: for every path that ``max_bytes_by_path`` does not name.
        max_bytes_by_path: limits of single paths and, where they end with a slash, of all paths below.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_bytes_by_path: Mapping[str, int]) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._max_bytes_by_path = max_bytes_by_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = self._limit(scope["path"])
        headers = dict(scope["headers"])
        declared = headers.get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        received = 0
        complete = False
        rejected = False

        async def receive_counted() -> Message:
            nonlocal received, complete
            message = await receive()
            received += len(message.get("body", b""))
            complete = complete or not message.get("more_body", False)
            if received > limit:  # the reader sees the body end here, and its answer is replaced
                return {"type": "http.request", "body": b"", "more_body": False}
            return message

        async def send_checked(message: Message) -> None:
            nonlocal rejected
            if received <= limit:
                expected = limit if b"transfer-encoding" in headers else int(declared)
                cut = not complete and expected - received > _DISCARDED
                if cut and message["type"] == "http.response.start":
                    message = {**message, "headers": [*message.get("headers", ()), (b"connection", b"close")]}
                await send(message)
            elif not rejected:
                rejected = True
                await _too_large(limit)(scope, receive, send)

        await self._app(scope, receive_counted, send_checked)

    def _limit(self, path: str) -> int:
        prefixes = (
            prefix for prefix in self._max_bytes_by_path if prefix.endswith("/") and path.startswith(prefix)
        )
        return self._max_bytes_by_path.get(path, self._max_bytes_by_path.get(next(prefixes, ""), self._max_bytes))


def _too_large(limit: int) -> ASGIApp:
    detail = f"The request body exceeds the limit of {limit} bytes"
    return Problem(413, "too-large", detail, headers={"Connection": "close"}).response()
