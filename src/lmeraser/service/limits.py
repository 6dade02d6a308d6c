"""How much a caller may send: calls in a time, and bytes in a call. Knows nothing about what is sent."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmeraser.service.problems import Problem

_MOST = 10_000  # names that are remembered; beyond, those that are full again are forgotten


class Buckets:
    """Token buckets: each name may do ``burst`` things at once, and ``rate`` a second in the long run.

    Args:
        rate: per second.
        burst: at once.
        clock: seconds that never go back.
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rate, self._burst, self._clock = rate, float(burst), clock
        self._left: dict[str, tuple[float, float]] = {}  # tokens, and when that was
        self._lock = threading.Lock()

    def take(self, name: str) -> None:
        """Count one call.

        Raises:
            Problem: too many; says when to come again.
        """
        now = self._clock()
        with self._lock:
            tokens, then = self._left.get(name, (self._burst, now))
            tokens = min(self._burst, tokens + (now - then) * self._rate)
            allowed = tokens >= 1
            self._left[name] = (tokens - allowed, now)
            if len(self._left) > _MOST:
                self._forget(now)
        if not allowed:
            wait = str(math.ceil((1 - tokens) / self._rate))
            raise Problem(429, "rate", "A key makes so many calls a second.", headers={"Retry-After": wait})

    def _forget(self, now: float) -> None:
        full = (self._burst - 1) / self._rate
        self._left = {name: one for name, one in self._left.items() if now - one[1] < full}


class BodyLimit:
    """Refuses bodies that are too large, before they are read where their length is told.

    Args:
        app: what answers.
        most: bytes, for every path that ``larger`` does not name. Such a body may be read before anybody knows
            whether the caller has a key.
        larger: bytes for single paths.
    """

    def __init__(self, app: ASGIApp, most: int, larger: Mapping[str, int]) -> None:
        self._app, self._most, self._larger = app, most, larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        most = self._larger.get(scope["path"], self._most)
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if not told.isdigit() or int(told) > most:
            await _refusal(most)(scope, receive, send)
            return
        seen, answered = 0, False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > most:  # whoever reads is told that the body ends here, and its answer is replaced
                return {"type": "http.request", "body": b"", "more_body": False}
            return message

        async def checked(message: Message) -> None:
            nonlocal answered
            if seen <= most:
                await send(message)
            elif not answered:
                answered = True
                await _refusal(most)(scope, receive, send)

        await self._app(scope, counted, checked)


def _refusal(most: int) -> ASGIApp:
    rule = f"This takes at most {most} bytes."
    return Problem(413, "too-large", rule, headers={"Connection": "close"}).response()
