"""Pages: the list of requests, and the details of one request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query
from fastapi import Request as Call
from pydantic import UUID4
from starlette.responses import RedirectResponse, Response

from lmeraser.errors import InputError, LmeraserError, VerificationError
from lmeraser.evidence.certificate import verify, verify_in_ledger
from lmeraser.service.dashboard.authorization import User, check_csrf_token, require_scope
from lmeraser.service.dashboard.pages import HOME, PageRoute, render, session_of, time_left
from lmeraser.service.routes import erasure, events
from lmeraser.service.routes.planning import plan_deletion
from lmeraser.service.service import Service, service_of
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.certificate_forms import MEDIA_TYPES, SUFFIXES, CertificateForm, verification_key
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.state import Request

router = APIRouter(route_class=PageRoute, include_in_schema=False)

ReadUser = Annotated[User, Depends(require_scope("read"))]
FollowUser = Annotated[User, Depends(require_scope("request", "read"))]
RequestUser = Annotated[User, Depends(require_scope("request"))]
_MAX_CLOSED = 100  # closed requests on the list


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
def list_requests(call: Call, user: ReadUser) -> Response:
    """List requests: open ones, the earliest due first; closed ones, the last closed first."""
    service = service_of(call)
    now = service.workspace.clock()
    requests = service.workspace.requests.all()
    open_requests = [(request, *time_left(request.due, now)) for request in requests if request.open]
    closed = [request for request in requests if not request.open]
    closed.sort(key=lambda request: (request.changed, request.id), reverse=True)
    return render(
        call,
        "requests.html",
        open_requests=open_requests,
        closed=closed[:_MAX_CLOSED],
        closed_count=len(closed),
    )


@router.get(f"{HOME}/requests/{{request_id}}")
def show_request(request_id: UUID4, call: Call, user: FollowUser, plan: bool = False) -> Response:
    """Show the progress of a request, the clusters it affects, and its verified certificate."""
    service = service_of(call)
    request = erasure.find_request(service, str(request_id))
    overdue, time_text = time_left(request.due, service.workspace.clock())
    return render(
        call,
        "request.html",
        request=request,
        overdue=overdue,
        time_text=time_text,
        late=not request.open and request.late(service.workspace.clock()),
        progress=service.supervisor.progress,
        clusters=_affected_clusters(service, request),
        plan=_plan(service, request, user) if plan and request.state == "pending" else None,
        certificate=_check_certificate(service, request) if request.state == "completed" else None,
    )


@router.post(f"{HOME}/requests/{{request_id}}/cancel", dependencies=[Depends(check_csrf_token)])
def cancel(request_id: UUID4, call: Call, user: RequestUser) -> Response:
    """Cancel a request."""
    service = service_of(call)
    request = erasure.find_request(service, str(request_id))
    try:
        erasure.submit_cancellation(service, request.id, user.key).result()
    except InputError:
        raise erasure.not_pending() from None
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
        return service.planner.run_blocking(user.key.id, plan_deletion, service, Selector.of(ids=ids))
    except LmeraserError as error:
        return error.message


def _check_certificate(service: Service, request: Request) -> CertificateCheck:
    workspace = service.workspace
    try:
        data = erasure.certificate_as(service, request.id)
        facts = verify(data, verification_key(workspace, data))
    except LmeraserError as error:
        return CertificateCheck(None, error.summary, "not checked")
    try:
        verify_in_ledger(data, facts, b"".join(entry.line() for entry in workspace.ledger.entries()))
    except VerificationError as error:
        return CertificateCheck(facts, "", error.summary)
    return CertificateCheck(facts, "", "")
