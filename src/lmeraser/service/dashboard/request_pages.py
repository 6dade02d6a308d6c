"""Pages: the list of requests, and the details of one request."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Form, Query
from fastapi import Request as Call
from pydantic import UUID4
from starlette.responses import RedirectResponse, Response

from lmeraser.core.time import from_text, to_text
from lmeraser.errors import InputError, LmeraserError, VerificationError
from lmeraser.evidence.certificate import verify, verify_in_ledger
from lmeraser.service.dashboard.authorization import User, check_csrf_token, require_scope
from lmeraser.service.dashboard.listing import Page, as_csv
from lmeraser.service.dashboard.pages import HOME, PageRoute, render, session_of
from lmeraser.service.routes import erasure, events
from lmeraser.service.routes.planning import PLAN_TOKENS, plan_deletion
from lmeraser.service.service import Service, service_of
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.certificate_forms import (
    MEDIA_TYPES,
    SUFFIXES,
    CertificateForm,
    read_certificate,
    verification_key,
)
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.listing import Order, View, search, timeliness
from lmeraser.workspace.requests.state import (
    CancellationReason,
    ExtensionReason,
    Regulation,
    Request,
    urgency,
)
from lmeraser.workspace.workspace import Workspace

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ReadUser = Annotated[User, Depends(require_scope("read"))]
FollowUser = Annotated[User, Depends(require_scope("request", "read"))]
RequestUser = Annotated[User, Depends(require_scope("request"))]
_MAX_FOUND = 200  # requests that a search shows
REGULATIONS = {"gdpr": "GDPR", "ccpa": "CCPA", "other": "another one, or none"}
CANCELLATION_REASONS = {
    "withdrawn": "the person withdrew it",
    "unverified": "the person could not be identified",
    "mistake": "it was filed by mistake",
    "other": "another reason",
}
EXTENSION_REASONS = {
    "complexity": "the request is complex",
    "number": "there are many requests",
    "other": "another reason (not under the GDPR)",
}


@dataclass(frozen=True)
class RequestLine:
    """A request in a list.

    Attributes:
        request: the request.
        reference: the desk's name for it, if it was given one and it is not erased yet.
        timeliness: whether it is in time, in words.
        urgency: 'past', 'near' or 'later'; '' if it is closed.
        days_late: how many days it is late; None: it was cancelled.
    """

    request: Request
    reference: str
    timeliness: str
    urgency: str
    days_late: int | None


@dataclass(frozen=True)
class CertificateCheck:
    """The result of verifying a certificate.

    Attributes:
        facts: what it states; None if its signature is invalid.
        signature_error: what is wrong with its signature; '' if it is valid.
        ledger_error: what is wrong with its entry in the ledger; '' if it is valid.
    """

    facts: dict[str, Any] | None
    signature_error: str
    ledger_error: str


@router.get(f"{HOME}/requests")
def list_requests(
    call: Call,
    user: ReadUser,
    view: View = "open",
    law: Regulation | Literal[""] = "",
    order: Order = "due",
    page: Annotated[int, Query(ge=1, le=100_000)] = 1,
) -> Response:
    """The first screen: how many requests are open, due, late and done; and the requests of one view."""
    service = service_of(call)
    now = service.workspace.clock()
    _, requests = service.workspace.requests.listed(now, view, regulation=law, order=order)
    return _render_list(call, Page.of(requests, page), now, view=view, law=law, order=order)


@router.post(f"{HOME}/requests", dependencies=[Depends(check_csrf_token)])
def search_requests(call: Call, user: ReadUser, words: Annotated[str, Form(max_length=200)] = "") -> Response:
    """The requests whose id begins so, or whose reference contains this; it is sent in the body."""
    service = service_of(call)
    now = service.workspace.clock()
    _, requests = service.workspace.requests.listed(now, order="changed")
    found = search(requests, service.workspace.requests.references(), words)
    chosen = Page.of(found, 1, _MAX_FOUND)
    return _render_list(call, chosen, now, view="all", law="", order="changed", words=words.strip())


@router.get(f"{HOME}/requests.{{suffix}}")
def export_requests(
    suffix: Literal["csv", "json"],
    call: Call,
    user: ReadUser,
    view: View = "all",
    law: Regulation | Literal[""] = "",
    order: Order = "due",
) -> Response:
    """Download the requests of a view, without references."""
    service = service_of(call)
    now = service.workspace.clock()
    _, requests = service.workspace.requests.listed(now, view, regulation=law, order=order)
    return download([request.to_json(now) for request in requests], "requests", suffix)


@router.get(f"{HOME}/requests/{{request_id}}")
def show_request(request_id: UUID4, call: Call, user: FollowUser, plan: bool = False) -> Response:
    """Show the progress of a request, the clusters it affects, and its verified certificate."""
    service = service_of(call)
    request = erasure.find_request(service, str(request_id))
    now = service.workspace.clock()
    return render(
        call,
        "request.html",
        request=request,
        reference=service.workspace.requests.reference(request.id),
        timeliness=timeliness(request, now),
        urgency=urgency(from_text(request.due), now) if request.open else "",
        late=request.late(now),
        seconds_to_start=request.seconds_to_start(now),
        extended_due=to_text(
            service.workspace.config.requests.extended_due(
                request.regulation, from_text(request.asked or request.received)
            )
        ),
        extensible=request.open and request.extended is None and not request.late(now),
        filed_by=_key_name(service, request.filed_by),
        regulations=REGULATIONS,
        cancellation_reasons=CANCELLATION_REASONS,
        extension_reasons=EXTENSION_REASONS,
        progress=service.supervisor.progress,
        clusters=_affected_clusters(service, request),
        plan=_plan(service, request, user) if plan and request.state == "pending" else None,
        certificate=_check_certificate(service, request) if request.state == "completed" else None,
    )


@router.post(f"{HOME}/requests/{{request_id}}/cancel", dependencies=[Depends(check_csrf_token)])
def cancel(
    request_id: UUID4,
    call: Call,
    user: RequestUser,
    reason: Annotated[CancellationReason | None, Form()] = None,
) -> Response:
    """Cancel a request."""
    service = service_of(call)
    request = erasure.find_request(service, str(request_id))
    try:
        erasure.submit_cancellation(service, request.id, user.key, reason).result()
    except InputError:
        raise erasure.not_pending() from None
    return RedirectResponse(f"{HOME}/requests/{request_id}", 303)


@router.post(f"{HOME}/requests/{{request_id}}/start", dependencies=[Depends(check_csrf_token)])
def start(request_id: UUID4, call: Call, user: RequestUser) -> Response:
    """End the grace period of a request."""
    service = service_of(call)
    request = erasure.find_request(service, str(request_id))
    try:
        erasure.submit_start(service, request.id, user.key).result()
    except InputError:
        raise erasure.not_started() from None
    return RedirectResponse(f"{HOME}/requests/{request_id}", 303)


@router.post(f"{HOME}/requests/{{request_id}}/extend", dependencies=[Depends(check_csrf_token)])
def extend(
    request_id: UUID4, call: Call, user: RequestUser, reason: Annotated[ExtensionReason, Form()]
) -> Response:
    """Extend the time for the answer."""
    service = service_of(call)
    request = erasure.find_request(service, str(request_id))
    try:
        erasure.submit_extension(service, request.id, user.key, reason).result()
    except InputError as error:
        raise erasure.not_extended(error) from None
    return RedirectResponse(f"{HOME}/requests/{request_id}", 303)


@router.get(f"{HOME}/requests/{{request_id}}/certificate")
def download_certificate(
    request_id: UUID4,
    call: Call,
    user: FollowUser,
    form: Annotated[CertificateForm, Query(alias="format")] = "json",
) -> Response:
    """Download the certificate in one of its forms."""
    data = erasure.certificate_as(service_of(call), str(request_id), form)
    disposition = f'attachment; filename="certificate-{request_id}{SUFFIXES[form]}"'
    return Response(data, media_type=MEDIA_TYPES[form], headers={"Content-Disposition": disposition})


@router.get(f"{HOME}/requests/{{request_id}}/events")
def follow(request_id: UUID4, call: Call, user: FollowUser) -> Response:
    """Send the page the events of its request."""
    service = service_of(call)
    erasure.find_request(service, str(request_id))
    return events.stream(service, str(request_id), user.key.id, session_open=lambda: session_of(call) is not None)


def download(rows: Sequence[dict[str, Any]], name: str, suffix: Literal["csv", "json"]) -> Response:
    """Rows of plain values as a file to save."""
    headers = {"Content-Disposition": f'attachment; filename="{name}.{suffix}"'}
    if suffix == "csv":
        return Response(as_csv(rows), headers=headers, media_type="text/csv")
    return Response(json.dumps(rows, indent=1), headers=headers, media_type="application/json")


def _render_list(
    call: Call,
    page: Page[Request],
    now: datetime,
    *,
    view: View,
    law: str,
    order: Order,
    words: str = "",
) -> Response:
    workspace = service_of(call).workspace
    references = workspace.requests.references()
    counts = workspace.requests.counts(now)
    lines = [
        RequestLine(
            request,
            references.get(request.id, ""),
            timeliness(request, now),
            urgency(from_text(request.due), now) if request.open else "",
            request.days_late(now),
        )
        for request in page.lines
    ]
    return render(
        call,
        "requests.html",
        lines=lines,
        page=page,
        counts=counts,
        view=view,
        law=law,
        order=order,
        words=words,
        regulations=REGULATIONS,
        next_step=_next_step(workspace) if not counts["all"] else "",
    )


def _next_step(workspace: Workspace) -> str:
    """What comes first in a workspace without requests."""
    if workspace.records.count() == 0:
        return "add"
    return "train" if workspace.generations.current() is None else "file"


def _key_name(service: Service, key_id: str | None) -> str:
    """The name of the key that filed a request."""
    if key_id is None:
        return "a command"
    names = {key.id: key.name for key in service.workspace.api_keys.all()}
    return f"{names.get(key_id, 'a key')} ({key_id})"


def _affected_clusters(service: Service, request: Request) -> list[int] | None:
    """The clusters that its records are or were in; None if there are none or they are unknown."""
    if request.before is not None:
        return list(request.before.clusters)
    model = service.workspace.generations.current()
    if request.state != "pending" or model is None or not model.tuned:
        return None
    ids = service.workspace.requests.selection(request).ids
    trie_keys = service.workspace.records.derived.trie_keys(model.partition.key, ids)
    return sorted(set(model.cluster_numbers(trie_keys).values()))


def _plan(service: Service, request: Request, user: User) -> Plan | str:
    """The plan of a pending request, or why there is none."""
    try:
        ids = service.workspace.requests.selection(request).ids
        if not ids:
            return "All of its records have been deleted"
        service.rate_limiter.take(user.key.id, PLAN_TOKENS)
        return service.planner.run_blocking(user.key.id, plan_deletion, service, Selector.of(ids=ids))
    except LmeraserError as error:
        return error.message


def _check_certificate(service: Service, request: Request) -> CertificateCheck:
    workspace = service.workspace
    try:
        data = read_certificate(workspace, request)
        facts = verify(data, verification_key(workspace, data))
    except LmeraserError as error:
        return CertificateCheck(None, error.summary, "not checked")
    try:
        verify_in_ledger(data, facts, b"".join(entry.line() for entry in workspace.ledger.entries()))
    except VerificationError as error:
        return CertificateCheck(facts, "", error.summary)
    return CertificateCheck(facts, "", "")
