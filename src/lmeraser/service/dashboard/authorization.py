"""Authentication and authorization of page views: the session's API key, looked up again for every page.

Revoking a key ends its sessions at once. Every form is checked for its session's CSRF token. Calls are rate
limited by key, forms without a session or with a wrong token by address, as those of the API are (`access`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, Request
from starlette.responses import Response

from lmeraser.service.access import client_address
from lmeraser.service.dashboard.pages import SECURE_COOKIE, NotLoggedIn, cookie_name, session_of, sessions_of
from lmeraser.service.dashboard.sessions import LIFETIME
from lmeraser.service.problems import Problem
from lmeraser.service.service import service_of
from lmeraser.workspace.api_keys import ApiKey, Scope


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
    def can_find(self) -> bool:
        """Whether the user may find out what is held of a person."""
        return self.key.may(["find"])

    @property
    def can_see_records(self) -> bool:
        """Whether the user may see what is in a record."""
        return self.key.may(["records"])

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


def check_csrf_token(request: Request, token: Annotated[str, Form(max_length=200)] = "") -> None:
    """A dependency of every route that receives a form: the form comes from a page of the same session.

    Raises:
        Problem: it does not.
    """
    session = session_of(request)
    if session is None:
        raise NotLoggedIn
    if not sessions_of(request).verify_csrf_token(session, token):
        service_of(request).rate_limiter.take(client_address(request))
        raise Problem(403, "form", "The form is out of date; open its page again and repeat your input")


def set_session_cookie(request: Request, response: Response, cookie: str) -> None:
    """Store a session in the browser."""
    name = cookie_name(request)
    response.set_cookie(
        name, cookie, max_age=LIFETIME, path="/", httponly=True, samesite="strict", secure=name == SECURE_COOKIE
    )


def delete_session_cookie(request: Request, response: Response) -> None:
    """Remove the session from the browser."""
    name = cookie_name(request)
    response.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=name == SECURE_COOKIE)
