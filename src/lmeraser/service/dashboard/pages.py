"""Rendering of pages: templates, security headers, and errors as pages.

Everything is loaded from this host and nothing is inline, so that the content security policy can forbid
everything else: a name with markup in it is escaped, and even if it were not, it could not run. Knows nothing
about the content of pages.
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
from lmeraser.core.console import format_duration
from lmeraser.core.time import from_text
from lmeraser.errors import LmeraserError
from lmeraser.service.access import client_address
from lmeraser.service.addresses import is_loopback
from lmeraser.service.dashboard.sessions import Session, Sessions
from lmeraser.service.limits import MAX_FORM_BYTES, tokens_of_body
from lmeraser.service.logs import location_of, log
from lmeraser.service.problems import Problem, problem_of
from lmeraser.service.service import service_of

HOME = "/ui"
LOGIN = f"{HOME}/login"
SECURE_COOKIE = "__Host-lmeraser"  # browsers accept it only over TLS and from this host
_COOKIE = "lmeraser"
STATIC_FILES = {"style.css": "text/css", "follow.js": "text/javascript", "icon.svg": "image/svg+xml"}
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
_HEADINGS = {
    400: "Invalid input",
    401: "API key not valid",
    403: "Permission denied",
    404: "Not found",
    409: "Not possible any more",
    422: "Request cannot be processed",
    429: "Too many requests; wait a moment",
    503: "Temporarily unavailable; try again",
}


class NotLoggedIn(Exception):  # noqa: N818 - not an error: the user is redirected to the login
    """A page was requested without a session."""


class PageRoute(APIRoute):
    """A route whose responses have the security headers, and whose errors are pages."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The handler of the route."""
        handle = super().get_route_handler()

        async def handle_page(request: Request) -> Response:
            response: Response
            try:
                _count_form(request)
                response = await handle(request)
            except NotLoggedIn:
                response = RedirectResponse(LOGIN, 303)
            except (Problem, LmeraserError, RequestValidationError, HTTPException) as error:
                response = render_problem(request, problem_of(error))
            except Exception as error:
                log.error("%s at %s", type(error).__name__, location_of(error))
                response = render_problem(request, problem_of(error))
            for name, value in _HEADERS.items():
                response.headers.setdefault(name, value)
            return response

        return handle_page


def sessions_of(request: Request) -> Sessions:
    """The sessions of the service that handles a call."""
    sessions: Sessions = request.app.state.sessions
    return sessions


def session_of(request: Request) -> Session | None:
    """The session of a call, if it has one."""
    return sessions_of(request).read(request.cookies.get(cookie_name(request), ""))


def cookie_name(request: Request) -> str:
    """Without TLS only on loopback; for other hosts, TLS ends here or at a proxy."""
    insecure = request.url.scheme == "http" and is_loopback(request.url.hostname or "")
    return _COOKIE if insecure else SECURE_COOKIE


def _count_form(request: Request) -> None:
    """Count a form by its session's key and its size, or by address, before anything of it is read.

    Raises:
        NotLoggedIn: it comes without a session.
        Problem: there are too many.
    """
    if request.method != "POST":
        return
    limiter = service_of(request).rate_limiter
    session = session_of(request)
    if session is None:
        limiter.take(client_address(request))
        raise NotLoggedIn
    size = request.headers.get("content-length", "")
    if session.key is not None and (cost := tokens_of_body(int(size) if size.isdecimal() else MAX_FORM_BYTES)):
        limiter.take(session.key, cost)


def render(call: Request, template: str, /, *, code: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template.

    Args:
        call: has the user, on whose scopes the navigation depends.
        template: its name.
        code: HTTP status code.
        values: variables of the template.
    """
    user = getattr(call.state, "user", None)
    session = getattr(call.state, "session", None)
    token = sessions_of(call).csrf_token(session) if session is not None else ""
    common = {"user": user, "token": token, "version": __version__, "here": call.url.path}
    common["noun"] = service_of(call).payload_format.noun
    common["reference_end"] = _reference_end(service_of(call).workspace.config.requests.reference_days)
    return HTMLResponse(_templates().get_template(template).render(**common, **values), code)


def _reference_end(days: int) -> str:
    """When a request's reference is erased, in words."""
    after = f"{days} day{'' if days == 1 else 's'} after the request is closed"
    return after if days else "when the request is closed"


def render_problem(request: Request, problem: Problem) -> HTMLResponse:
    """The page for a problem."""
    response = render(
        request,
        "problem.html",
        code=problem.status,
        title=_HEADINGS.get(problem.status, "Internal server error"),
        detail=problem.detail,
        faults=problem.faults,
    )
    response.headers.update(problem.headers)
    return response


def format_time(text: str) -> str:
    """An RFC 3339 time for people."""
    return from_text(text).strftime("%Y-%m-%d %H:%M UTC")


def time_left(due: str, now: datetime) -> tuple[bool, str]:
    """Whether a request is overdue, and by how much, or how much time is left."""
    seconds = int((from_text(due) - now).total_seconds())
    if seconds < 0:
        return True, f"overdue by {format_duration(-seconds)}"
    return False, f"{format_duration(seconds)} left"


def read_static_file(name: str) -> bytes:
    """The content of a static file."""
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
    environment.filters["time"] = format_time
    environment.filters["day"] = lambda text: from_text(text).strftime("%Y-%m-%d")
    environment.filters["duration"] = lambda seconds: format_duration(int(seconds))
    environment.filters["short"] = lambda digest: str(digest).removeprefix("sha256:")[:12]
    environment.globals["home"] = HOME
    return environment
