"""Pages: templates, the headers that every page has, and errors in plain words.

Everything comes from this host and nothing is inline, so that the policy for content allows nothing else: a name
that holds markup is text, and if it ever were not, it would not run. Follows `problems`; knows nothing about what
is on a page.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lmeraser._version import __version__
from lmeraser.core.console import period
from lmeraser.core.time import from_text
from lmeraser.errors import LmeraserError
from lmeraser.service.dashboard.sessions import Sessions
from lmeraser.service.logs import log, place_of
from lmeraser.service.problems import Problem, problem_of

HOME = "/ui"
LOGIN = f"{HOME}/login"
STATIC = {"style.css": "text/css", "follow.js": "text/javascript", "icon.svg": "image/svg+xml"}
_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "no-store",
}
_PLAIN = {
    400: "That can't be understood",
    401: "This key is not known here",
    403: "Your key does not allow this",
    404: "There is nothing here",
    409: "That does not fit what is there",
    422: "That can't be carried out",
    429: "Too many calls; wait a moment",
    503: "Not at the moment; try again",
}


class NotLoggedIn(Exception):  # noqa: N818 - no error: whoever comes is shown the way in
    """A page was asked for without a session."""


class PageRoute(APIRoute):
    """A route whose answers have the headers of pages, and whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """What answers."""
        handle = super().get_route_handler()

        async def answer(request: Request) -> Response:
            response: Response
            try:
                response = await handle(request)
            except NotLoggedIn:
                response = RedirectResponse(LOGIN, 303)
            except (Problem, LmeraserError, RequestValidationError, HTTPException) as error:
                response = problem_page(request, problem_of(error))
            except Exception as error:
                log.error("%s at %s", type(error).__name__, place_of(error))
                response = problem_page(request, problem_of(error))
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return answer


def sessions_of(request: Request) -> Sessions:
    """The sessions of the service that a call is for."""
    sessions: Sessions = request.app.state.sessions
    return sessions


def page(call: Request, template: str, /, *, code: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template.

    Args:
        call: whose visitor, if there is one, decides what the navigation shows.
        template: its name.
        code: status of HTTP.
        values: for the template.
    """
    visitor = getattr(call.state, "visitor", None)
    session = getattr(call.state, "session", None)
    token = sessions_of(call).token(session) if session is not None else ""
    common = {"visitor": visitor, "token": token, "version": __version__, "here": call.url.path}
    return HTMLResponse(_templates().get_template(template).render(**common, **values), code)


def problem_page(request: Request, problem: Problem) -> HTMLResponse:
    """A problem in plain words."""
    title = _PLAIN.get(problem.status, "Something is wrong with this service")
    shown = page(
        request, "problem.html", code=problem.status, title=title, detail=problem.detail, faults=problem.faults
    )
    shown.headers.update(problem.headers)
    return shown


def moment(text: str) -> str:
    """An RFC 3339 time as people read it."""
    return from_text(text).strftime("%Y-%m-%d %H:%M UTC")


def left(due: str, now: datetime) -> tuple[bool, str]:
    """Whether an answer is late, and how much time is left in words."""
    seconds = int((from_text(due) - now).total_seconds())
    return seconds < 0, f"late by {period(-seconds)}" if seconds < 0 else f"{period(seconds)} left"


def static(name: str) -> bytes:
    """A file that pages need."""
    return files(__package__).joinpath("static", name).read_bytes()


@cache
def _templates() -> Environment:
    environment = Environment(
        loader=PackageLoader("lmeraser.service.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["moment"] = moment
    environment.filters["period"] = period
    environment.filters["short"] = lambda digest: str(digest).removeprefix("sha256:")[:12]
    environment.globals["home"] = HOME
    return environment
