"""Who looks at a page, and whether they may: the session's key, looked up again for every page.

A key that was revoked ends its sessions at once. Every form is checked for its session's token. Follows `sessions`
and `access`, whose counting of calls is the same.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Form, Request
from starlette.responses import Response

from lmeraser.service.dashboard.pages import NotLoggedIn, sessions_of
from lmeraser.service.dashboard.sessions import LIFETIME, Session
from lmeraser.service.problems import Problem
from lmeraser.service.service import service_of
from lmeraser.workspace.api_keys import ApiKey, Scope

_COOKIE, _SECURE_COOKIE = "lmeraser", "__Host-lmeraser"  # a browser takes the second only over TLS, from this host


@dataclass(frozen=True)
class Visitor:
    """Somebody who is logged in.

    Attributes:
        key: that they came with.
    """

    key: ApiKey

    @property
    def reads(self) -> bool:
        """Whether they may see everything that is no secret."""
        return self.key.may(["read"])

    @property
    def files(self) -> bool:
        """Whether they may file and take back requests."""
        return self.key.may(["request"])


def needs(*scopes: Scope) -> Callable[[Request], Visitor]:
    """A dependency that lets visitors pass whose key has one of these scopes."""

    def guard(request: Request) -> Visitor:
        service = service_of(request)
        session = session_of(request)
        key = service.workspace.api_keys.get(session.key) if session is not None and session.key else None
        if session is None or key is None:
            raise NotLoggedIn
        visitor = Visitor(key)
        request.state.key, request.state.session, request.state.visitor = key.id, session, visitor
        service.buckets.take(key.id)
        if not key.may(scopes):
            raise Problem(403, "scope", f"This page needs a key with the scope {' or '.join(scopes)}.")
        return visitor

    return guard


def session_of(request: Request) -> Session | None:
    """The session of a call, if it has one."""
    return sessions_of(request).read(request.cookies.get(_name(request), ""))


def genuine(request: Request, token: Annotated[str, Form(max_length=200)] = "") -> None:
    """A dependency of every route that a form leads to: it came from a page of the same session.

    Raises:
        Problem: it did not.
    """
    session = session_of(request)
    if session is None:
        raise NotLoggedIn
    if not sessions_of(request).sent(session, token):
        raise Problem(403, "form", "A form is sent from its page here. Open the page again and repeat it.")


def give_cookie(request: Request, response: Response, cookie: str) -> None:
    """Let a browser keep a session."""
    name = _name(request)
    response.set_cookie(
        name, cookie, max_age=LIFETIME, path="/", httponly=True, samesite="strict", secure=name == _SECURE_COOKIE
    )


def take_cookie(request: Request, response: Response) -> None:
    """Let a browser forget a session."""
    name = _name(request)
    response.delete_cookie(name, path="/", httponly=True, samesite="strict", secure=name == _SECURE_COOKIE)


def _name(request: Request) -> str:
    """Only a browser on this machine may come without TLS; a proxy has it if somebody else does."""
    plain = request.url.scheme == "http" and _is_loopback(request.url.hostname or "")
    return _COOKIE if plain else _SECURE_COOKIE


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
