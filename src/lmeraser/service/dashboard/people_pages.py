"""Pages: find out what is held of a person, or under a record id; see a record, with a scope of its own.

Names are sent in the bodies of forms only, never in an address, and no answer is to be stored (`pages`).
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Form
from fastapi import Request as Call
from starlette.responses import Response

from lmeraser.data.canonical_names import LONGEST
from lmeraser.service.dashboard.authorization import User, check_csrf_token, require_scope
from lmeraser.service.dashboard.listing import Page
from lmeraser.service.dashboard.pages import HOME, PageRoute, render
from lmeraser.service.routes.people import TOKENS, payload_response, read_payload
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.holdings import Holdings, SubjectLine, find, list_subjects

router = APIRouter(route_class=PageRoute, include_in_schema=False)

FindUser = Annotated[User, Depends(require_scope("find"))]
RecordsUser = Annotated[User, Depends(require_scope("records"))]
Kind = Literal["subject", "id"]
_MAX_RECORDS = 500  # of one person on the page


@router.get(f"{HOME}/people")
def show_search(call: Call, user: FindUser) -> Response:
    """Show an empty search."""
    return _render(call)


@router.post(f"{HOME}/people", dependencies=[Depends(check_csrf_token)])
def search(
    call: Call,
    user: FindUser,
    name: Annotated[str, Form(max_length=LONGEST)] = "",
    kind: Annotated[Kind, Form()] = "subject",
) -> Response:
    """Show what is held under a name, and names that look alike."""
    if not name.strip():
        return _render(call, kind=kind, error="Enter a name or an id")
    service = _pay(call, user)
    found = service.planner.run_blocking(user.key.id, find, service.workspace, kind, name)
    return _render(call, kind=kind, name=name, found=found)


@router.post(f"{HOME}/people/list", dependencies=[Depends(check_csrf_token)])
def list_people(
    call: Call,
    user: FindUser,
    words: Annotated[str, Form(max_length=200)] = "",
    page: Annotated[int, Form(ge=1, le=1_000_000)] = 1,
) -> Response:
    """List the people of whom records are held."""
    service = _pay(call, user)
    people = service.planner.run_blocking(user.key.id, list_subjects, service.workspace, search=words)
    return _render(call, people=Page.of(people, page), words=words)


@router.post(f"{HOME}/people/record", dependencies=[Depends(check_csrf_token)])
def download_record(
    call: Call, user: RecordsUser, record_id: Annotated[str, Form(max_length=LONGEST)] = ""
) -> Response:
    """Download what is in a record."""
    service = _pay(call, user)
    return payload_response(service.planner.run_blocking(user.key.id, read_payload, service.workspace, record_id))


def _pay(call: Call, user: User) -> Service:
    """The service, after the tokens of a look at many records were taken."""
    service = service_of(call)
    service.rate_limiter.take(user.key.id, TOKENS)
    return service


def _render(
    call: Call,
    *,
    kind: Kind = "subject",
    name: str = "",
    error: str = "",
    found: Holdings | None = None,
    people: Page[SubjectLine] | None = None,
    words: str = "",
) -> Response:
    return render(
        call,
        "people.html",
        kind=kind,
        name=name,
        error=error,
        found=found,
        people=people,
        words=words,
        most=_MAX_RECORDS,
    )
