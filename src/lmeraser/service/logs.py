"""The access log: one line per call, without personal data; the outermost middleware of the service.

A line has the method if it is one of HTTP's, the route's template (never the path, which may contain anything a
caller sends), the status, the duration, and the id of the API key. The labels of metrics are the same few words.
An unexpected exception becomes a problem; the log has its type and the place where it was raised, never its text,
which may quote what was sent. A client that goes away is no error.
"""

from __future__ import annotations

import logging
import time
import traceback
from pathlib import Path

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmeraser.service.metrics import Metrics
from lmeraser.service.problems import problem_of

log = logging.getLogger("lmeraser.service")

_METHODS = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}  # others are anything that a caller sends
_CLIENT_GONE = 499  # nginx's status of a call whose client went away before the answer


class AccessLog:
    """Middleware that logs and measures every call.

    Args:
        app: the application.
        metrics: receives the durations.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        status = 0

        async def send_observed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, send_observed)
        except ClientDisconnect:
            pass  # nobody is left to answer
        except Exception as error:
            log.error("%s at %s", type(error).__name__, location_of(error))
            if not status:
                await problem_of(error).response()(scope, receive, send_observed)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "-")
            method = scope["method"] if route != "-" and scope["method"] in _METHODS else "-"
            key = scope.get("state", {}).get("key", "-")
            status = status or _CLIENT_GONE
            log.info("%s %s %d %.1f ms key %s", method, route, status, 1000 * seconds, key)
            self._metrics.calls.labels(route, method, str(status)).observe(seconds)


def location_of(error: BaseException) -> str:
    """Where an exception was raised, innermost frame first, without its text."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
