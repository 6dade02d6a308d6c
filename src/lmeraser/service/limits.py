"""Rate limits and size limits of calls. Knows nothing about their content."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmeraser.service.problems import Problem

_MAX_BUCKETS = 10_000  # beyond, buckets that are full again are dropped


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
        self._lock = threading.Lock()

    def take(self, caller: str) -> None:
        """Take one token from a caller's bucket.

        Raises:
            Problem: the bucket is empty; has the time to wait as ``Retry-After``.
        """
        now = self._clock()
        with self._lock:
            tokens, counted = self._buckets.get(caller, (self._burst, now))
            tokens = min(self._burst, tokens + (now - counted) * self._rate)
            allowed = tokens >= 1
            self._buckets[caller] = (tokens - allowed, now)
            if len(self._buckets) > _MAX_BUCKETS:
                self._drop_full_buckets(now)
        if not allowed:
            wait = str(math.ceil((1 - tokens) / self._rate))
            raise Problem(429, "rate", "Too many requests; see Retry-After", headers={"Retry-After": wait})

    def _drop_full_buckets(self, now: float) -> None:
        refill = (self._burst - 1) / self._rate
        self._buckets = {name: bucket for name, bucket in self._buckets.items() if now - bucket[1] < refill}


class BodySizeLimit:
    """Middleware that rejects bodies that are too large, before they are read if their length is declared.

    Args:
        app: the application.
        max_bytes: for every path that ``max_bytes_by_path`` does not name; such a body may be read before the
            caller is authenticated.
        max_bytes_by_path: limits of single paths.
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
        limit = self._max_bytes_by_path.get(scope["path"], self._max_bytes)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if not declared.isdigit() or int(declared) > limit:
            await _too_large(limit)(scope, receive, send)
            return
        received = 0
        rejected = False

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:  # the reader sees the body end here, and its answer is replaced
                return {"type": "http.request", "body": b"", "more_body": False}
            return message

        async def send_checked(message: Message) -> None:
            nonlocal rejected
            if received <= limit:
                await send(message)
            elif not rejected:
                rejected = True
                await _too_large(limit)(scope, receive, send)

        await self._app(scope, receive_counted, send_checked)


def _too_large(limit: int) -> ASGIApp:
    detail = f"The request body exceeds the limit of {limit} bytes"
    return Problem(413, "too-large", detail, headers={"Connection": "close"}).response()
