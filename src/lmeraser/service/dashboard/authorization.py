"""Authentication and authorization of page views: the session's API key, looked up again for every page.

Revoking a key ends its sessions at once. Every form is checked for its session's CSRF token. Calls are rate
limited by key, as those of the API are (`access`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, Request
from starlette.responses import Response

from lmeraser.service.addresses import is_loopback
from lmeraser.service.dashboard.pages import NotLoggedIn, sessions_of
from lmeraser.service.dashboard.sessions import LIFETIME, Session
from lmeraser.service.problems import Problem
from lmeraser.service.service import service_of
from lmeraser.workspace.api_keys import ApiKey, Scope

_COOKIE = "lmeraser"
_SECURE_COOKIE = "__Host-lmeraser"  # browsers accept it only over TLS and from this host


@dataclass(frozen=True)
class User:
    """A user who is logged in.

    Attributes:
        key: the API key that was used to log in.
    """

    key: ApiKey

    @property
    def can_read(self) -> bool:
        """Whether the user may see all requests, the model and the ledger."""
        return self.key.may(["read"])

    @property
    def can_request(self) -> bool:
        """Whether the user may file and cancel requests."""
        return self.key.may(["request"])


def require_scope(*scopes: Scope) -> Callable[[Request], User]:
    """A dependency that admits users whose API key has one of these scopes."""

    def authorize(request: Request) -> User:
        service = service_of(request)
        session = session_of(request)
        key = service.workspace.api_keys.get(session.key) if session is not None and session.key else None
        if session is None or key is None:
            raise NotLoggedIn
        user = User(key)
        request.state.key = key.id
        request.state.session = session
        request.state.user = user
        service.rate_limiter.take(key.id)
        if not key.may(scopes):
            raise Problem(403, "scope", f"This page needs an API key with the scope {' or '.join(scopes)}")
        return user

    return authorize


def session_of(request: Request) -> Session | None:
    """The session of a call, if it has one."""
    return sessions_of(request).read(request.cookies.get(_cookie_name(request), ""))


def check_csrf_token(request: Request, token: Annotated[str, Form(max_length=200)] = "") -> None:
    """A dependency of every route that receives a form: the form comes from a page of the same session.

    Raises:
        Problem: it does not.
    """
    session = session_of(request)
    if session is None:
        raise NotLoggedIn
    if not sessions_of(request).verify_csrf_token(session, token):
        raise Problem(403, "form", "The form is out of date; open its page again and repeat your input")


def set_session_cookie(request: Request, response: Response, cookie: str) -> None:
    """Store a session in the browser."""
    name = _cookie_name(request)
    response.set_cookie(
        name, cookie, max_age=LIFETIME, path="/", httponly=True, samesite="strict", secure=name == _SECURE_COOKIE
    )


def delete_session_cookie(request: Request, response: Response) -> None:
    """Remove the session from the browser."""
    name = _cookie_name(request)
    response.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=name == _SECURE_COOKIE)


def _cookie_name(request: Request) -> str:
    """Without TLS only on loopback; for other hosts, TLS ends here or at a proxy."""
    insecure = request.url.scheme == "http" and is_loopback(request.url.hostname or "")
    return _COOKIE if insecure else _SECURE_COOKIE
