"""One line for each call, and nothing personal in any: the outermost layer of the service.

A line has the method, the route's template (never the path, into which callers may put anything), the status, the
time, and the id of the key. An error that nobody expected becomes a problem; its line has the kind and where it
was raised, never its text, which may quote what was sent. Follows `problems`.
"""

from __future__ import annotations

import logging
import time
import traceback
from pathlib import Path

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lmeraser.service.metrics import Metrics
from lmeraser.service.problems import problem_of

log = logging.getLogger("lmeraser.service")


class Logged:
    """Tells of every call.

    Args:
        app: what answers.
        metrics: told of it, too.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one call."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            log.error("%s at %s", type(error).__name__, place_of(error))
            if not status:
                await problem_of(error).response()(scope, receive, watched)
        finally:
            seconds = time.perf_counter() - started
            route = getattr(scope.get("route"), "path", "-")
            method = scope["method"] if route != "-" else "-"
            key = scope.get("state", {}).get("key", "-")
            log.info("%s %s %d %.1f ms key %s", method, route, status, 1000 * seconds, key)
            self._metrics.calls.labels(route, method, str(status)).observe(seconds)


def place_of(error: BaseException) -> str:
    """Where an error was raised, without its text."""
    frames = traceback.extract_tb(error.__traceback__)[-5:]
    return " < ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in reversed(frames))
