"""Routes: list deletion requests, and search for them.

Words of fixed lists and numbers may be in an address. What is searched for is sent in a body: references and names
must not get into addresses, which proxies and browsers keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, get_args

from fastapi import APIRouter, Depends, Query
from fastapi import Request as Call
from pydantic import Field
from starlette.responses import Response

from lmeraser.data.name_lookup import NameKind
from lmeraser.service.access import require_scope
from lmeraser.service.bodies import json_body, json_body_schema
from lmeraser.service.opendsr_requests import FORBID, Name, RequestModel, own_example
from lmeraser.service.opendsr_responses import FoundRequests, RequestStatus, Status, StatusList, opendsr_status
from lmeraser.service.problems import Problem, documented, name_fields_in_problems
from lmeraser.service.routes.erasure import signed_response
from lmeraser.service.routes.people import Search, run_in_planner
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.holdings import find
from lmeraser.workspace.requests.listing import Order, View, search
from lmeraser.workspace.requests.state import Regulation, Request, State
from lmeraser.workspace.workspace import Workspace

router = APIRouter(tags=["deletion requests"])

_admit = require_scope("read")
ReadKey = Annotated[ApiKey, Depends(_admit)]


@name_fields_in_problems
class RequestFilter(RequestModel):
    """Which requests to list; those that match all that is given.

    Attributes:
        status: only requests with this status.
        view: `open`, due within a `week`, `late`, `done`, or `all`.
        regulation: only requests under this law.
        order: the earliest `due` first, or the latest `received` or `changed`.
        offset: how many to leave out at the beginning.
        limit: how many to list at most.
    """

    model_config = FORBID

    status: Status | None = Field(default=None, description="only requests with this status")
    view: View = Field(default="all", description="open, due within a week, late, done, or all")
    regulation: Regulation | None = Field(default=None, description="only requests under this law")
    order: Order = Field(default="due", description="the earliest due first, or the latest received or changed")
    offset: int = Field(default=0, ge=0, le=10**9, description="number of requests to leave out")
    limit: int = Field(default=100, ge=1, le=1000, description="maximum number of requests")


@name_fields_in_problems
class RequestSearch(RequestFilter):
    """Which requests to find; those that match all that is given.

    Attributes:
        search: only requests whose id begins so, or whose reference contains this, whatever its case.
        subject: only pending requests that select a record of this person, in any spelling (scope `find`).
        record: only pending requests that select the record with this id (scope `find`).
    """

    model_config = own_example(search="ticket 4711")

    search: Search = ""
    subject: Name | None = None
    record: Name | None = None


@router.get(
    "/requests",
    summary="List requests",
    response_model=StatusList,
    responses=documented(400, 401, 403, 429, 503),
)
def list_requests(call: Call, key: ReadKey, wanted: Annotated[RequestFilter, Query()]) -> Response:
    """List requests, the earliest due first (scope `read`); `POST /requests/search` takes words and names."""
    service = service_of(call)
    now = service.workspace.clock()
    total, page = _listed(service.workspace, wanted, now, offset=wanted.offset, limit=wanted.limit)
    return signed_response(StatusList(total=total, requests=_statuses(page, service, now)), service)


@router.post(
    "/requests/search",
    summary="Search for requests",
    response_model=FoundRequests,
    openapi_extra=json_body_schema(RequestSearch),
    responses=documented(400, 401, 403, 408, 413, 422, 429, 503),
)
async def search_requests(
    body: Annotated[RequestSearch, Depends(json_body(RequestSearch, _admit))], call: Call, key: ReadKey
) -> Response:
    """Search for requests by id, reference, person or record (scope `read`; by person or record `find` as well).

    A request that was carried out or cancelled no longer tells whom it was about.
    """
    service = service_of(call)
    if (body.subject is not None or body.record is not None) and not key.may(["find"]):
        raise Problem(403, "scope", "The API key lacks the required scope (find, for a person or a record)")
    now = service.workspace.clock()
    found, references = await run_in_planner(service, key, _search, body, now)
    page = found[body.offset : body.offset + body.limit]
    shown = {one.id: references[one.id] for one in page if one.id in references}
    statuses = _statuses(page, service, now)
    return signed_response(FoundRequests(total=len(found), requests=statuses, references=shown), service)


def _search(workspace: Workspace, body: RequestSearch, now: datetime) -> tuple[list[Request], dict[str, str]]:
    """The requests that match, and the references of all."""
    references = workspace.requests.references()
    _, found = _listed(workspace, body, now)
    if body.search.strip():
        found = search(found, references, body.search)
    names: list[tuple[NameKind, str | None]] = [("subject", body.subject), ("id", body.record)]
    for kind, name in names:
        if name is not None:
            selecting = {request.id for request in find(workspace, kind, name).requests}
            found = [request for request in found if request.id in selecting]
    return found, references


def _listed(
    workspace: Workspace, wanted: RequestFilter, now: datetime, *, offset: int = 0, limit: int | None = None
) -> tuple[int, list[Request]]:
    states = [state for state in get_args(State) if wanted.status in (None, opendsr_status(state))]
    law = wanted.regulation or ""
    return workspace.requests.listed(
        now, wanted.view, regulation=law, states=states, order=wanted.order, offset=offset, limit=limit
    )


def _statuses(requests: Sequence[Request], service: Service, now: datetime) -> list[RequestStatus]:
    return [RequestStatus.of(request, service.config, now) for request in requests]
