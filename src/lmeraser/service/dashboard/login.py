"""Pages: in and out. The key is sent once, in the body of a form, and kept nowhere."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import RedirectResponse, Response

from lmeraser.service.dashboard.pages import HOME, LOGIN, STATIC, PageRoute, page, sessions_of, static
from lmeraser.service.dashboard.visitors import Visitor, genuine, give_cookie, needs, session_of, take_cookie
from lmeraser.service.problems import Problem
from lmeraser.service.service import service_of

router = APIRouter(route_class=PageRoute, include_in_schema=False)

_REFUSED = "This key is not known here, or it was revoked."
_OF_NO_USE = "This key is for predictions only. These pages need one with the scope read, request or admin."


@router.get(HOME)
def home(visitor: Annotated[Visitor, Depends(needs("read", "request"))]) -> Response:
    """Go to the first page that the key may see."""
    return RedirectResponse(f"{HOME}/requests" if visitor.reads else f"{HOME}/file", 303)


@router.get(LOGIN)
def ask(request: Request) -> Response:
    """Ask for a key."""
    return _form(request)


@router.post(LOGIN, dependencies=[Depends(genuine)])
def login(request: Request, key: Annotated[str, Form(max_length=200)] = "") -> Response:
    """Open a session for a key."""
    service = service_of(request)
    found = service.workspace.api_keys.find(key.strip())
    if found is None:
        service.buckets.take(f"address {request.client.host if request.client else ''}")
        return _form(request, _REFUSED)
    service.buckets.take(found.id)
    if not found.may(["read", "request"]):
        return _form(request, _OF_NO_USE)
    if (before := session_of(request)) is not None:
        sessions_of(request).end(before)
    _, cookie = sessions_of(request).open(found.id)
    response = RedirectResponse(HOME, 303)
    give_cookie(request, response, cookie)
    return response


@router.post(f"{HOME}/logout", dependencies=[Depends(genuine)])
def logout(request: Request) -> Response:
    """End the session."""
    if (session := session_of(request)) is not None:
        sessions_of(request).end(session)
    response = RedirectResponse(LOGIN, 303)
    take_cookie(request, response)
    return response


@router.get(f"{HOME}/static/{{name}}")
def static_file(name: str) -> Response:
    """A file that pages need."""
    if name not in STATIC:
        raise Problem(404, "not-found", "Pages need no other file.")
    return Response(static(name), media_type=STATIC[name])


def _form(request: Request, refusal: str = "") -> Response:
    session, cookie = session_of(request), None
    if session is None or session.key is not None:
        session, cookie = sessions_of(request).open()
    request.state.session = session
    response = page(request, "login.html", code=403 if refusal else 200, refusal=refusal)
    if cookie is not None:  # else the forms of other windows would not be taken any more
        give_cookie(request, response, cookie)
    return response
