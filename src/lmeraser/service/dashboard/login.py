"""Pages: log in and out. The API key is sent once, in the body of a form, and stored nowhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from lmeraser.service.access import client_address
from lmeraser.service.dashboard.authorization import (
    User,
    check_csrf_token,
    delete_session_cookie,
    require_scope,
    set_session_cookie,
)
from lmeraser.service.dashboard.pages import (
    HOME,
    LOGIN,
    STATIC_FILES,
    PageRoute,
    read_static_file,
    render,
    session_of,
    sessions_of,
)
from lmeraser.service.problems import Problem
from lmeraser.service.service import service_of
from lmeraser.workspace.api_keys import Scope

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_UNKNOWN_KEY = "This API key is not valid or was revoked"
_PAGE_SCOPES: tuple[Scope, ...] = ("read", "request", "find")
_INSUFFICIENT_SCOPE = "This API key opens no page; pages need the scope read, request, find or admin"


@router.get(HOME)
def redirect_to_first_page(user: Annotated[User, Depends(require_scope(*_PAGE_SCOPES))]) -> Response:
    """Redirect to the first page that the user may see."""
    first = "requests" if user.can_read else "file" if user.can_request else "people"
    return RedirectResponse(f"{HOME}/{first}", 303)


@router.get(LOGIN)
def show_login(request: Request) -> Response:
    """Ask for an API key."""
    return _render_form(request)


@router.post(LOGIN, dependencies=[Depends(check_csrf_token)])
def login(request: Request, key: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Open a session for an API key."""
    service = service_of(request)
    api_key = service.workspace.api_keys.find(key.strip())
    if api_key is None:
        service.rate_limiter.take(client_address(request))
        return _render_form(request, _UNKNOWN_KEY)
    service.rate_limiter.take(api_key.id)
    if not api_key.may(_PAGE_SCOPES):
        return _render_form(request, _INSUFFICIENT_SCOPE)
    if (anonymous := session_of(request)) is not None:
        sessions_of(request).end(anonymous)
    _, cookie = sessions_of(request).open(api_key.id)
    response = RedirectResponse(HOME, 303)
    set_session_cookie(request, response, cookie)
    return response


@router.post(f"{HOME}/logout", dependencies=[Depends(check_csrf_token)])
def logout(request: Request) -> Response:
    """End the session."""
    if (session := session_of(request)) is not None:
        sessions_of(request).end(session)
    response = RedirectResponse(LOGIN, 303)
    delete_session_cookie(request, response)
    return response


@router.get(f"{HOME}/static/{{name}}")
def static_file(name: str) -> Response:
    """A static file of the pages."""
    if name not in STATIC_FILES:
        raise Problem(404, "not-found", "There is no such file")
    return Response(read_static_file(name), media_type=STATIC_FILES[name])


def _render_form(request: Request, error: str = "") -> Response:
    session = session_of(request)
    new_cookie = None
    if session is None or session.key is not None:
        session, new_cookie = sessions_of(request).open()
    request.state.session = session
    response = render(request, "login.html", code=403 if error else 200, error=error)
    if new_cookie is not None:  # a session is kept if there is one: its forms in other windows stay valid
        set_session_cookie(request, response, new_cookie)
    return response
