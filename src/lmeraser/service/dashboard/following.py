"""Pages: all requests, and one of them with what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import UUID4
from starlette.responses import RedirectResponse, Response

from lmeraser.errors import InputError, LmeraserError, VerificationError
from lmeraser.evidence.certificate import verify, verify_in_ledger
from lmeraser.evidence.dsse import Envelope, PublicKey
from lmeraser.service.dashboard.pages import HOME, PageRoute, left, page
from lmeraser.service.dashboard.visitors import Visitor, genuine, needs
from lmeraser.service.problems import Problem
from lmeraser.service.routes import erasure, events
from lmeraser.service.routes.planning import planned
from lmeraser.service.service import Service, service_of
from lmeraser.unlearning.plan import Plan
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.workspace import Workspace

router = APIRouter(route_class=PageRoute, include_in_schema=False)

Reader = Annotated[Visitor, Depends(needs("read"))]
Follower = Annotated[Visitor, Depends(needs("request", "read"))]
Filer = Annotated[Visitor, Depends(needs("request"))]
_SHOWN = 100  # closed requests


@dataclass(frozen=True)
class Verified:
    """What verifying a certificate found.

    Attributes:
        facts: that it states; None if its signature does not hold.
        signature: what is wrong with it; '' if it holds.
        ledger: what is wrong with its place in the ledger; '' if it holds.
    """

    facts: dict[str, Any] | None
    signature: str
    ledger: str


@router.get(f"{HOME}/requests")
def all_requests(call: Call, visitor: Reader) -> Response:
    """List requests: open ones, the earliest due first; closed ones, the last closed first."""
    service = service_of(call)
    now, every = service.workspace.clock(), service.workspace.requests.all()
    waiting = [(request, *left(request.due, now)) for request in every if request.open]
    closed = sorted((r for r in every if not r.open), key=lambda r: (r.changed, r.id), reverse=True)
    return page(call, "requests.html", waiting=waiting, closed=closed[:_SHOWN], closed_in_all=len(closed))


@router.get(f"{HOME}/requests/{{request_id}}")
def one_request(request_id: UUID4, call: Call, visitor: Follower, plan: bool = False) -> Response:
    """Show how far a request is, what it touches, and what its certificate says."""
    service = service_of(call)
    request = erasure.found(service, str(request_id))
    late, words = left(request.due, service.workspace.clock())
    return page(
        call,
        "request.html",
        request=request,
        late=late,
        words=words,
        step=service.worker.now,
        clusters=_clusters(service, request),
        plan=_plan(service, request) if plan and request.state == "pending" else None,
        verified=_verified(service, request) if request.state == "completed" else None,
    )


@router.post(f"{HOME}/requests/{{request_id}}/cancel", dependencies=[Depends(genuine)])
def cancel(request_id: UUID4, call: Call, visitor: Filer) -> Response:
    """Take a request back."""
    service = service_of(call)
    request = erasure.found(service, str(request_id))
    try:
        erasure.cancelled(service, request.id).result()
    except InputError:
        raise Problem(409, "not-pending", "A request can be taken back while it is pending.") from None
    return RedirectResponse(f"{HOME}/requests/{request_id}", 303)


@router.get(f"{HOME}/requests/{{request_id}}/certificate")
def certificate(request_id: UUID4, call: Call, visitor: Follower) -> Response:
    """Hand out the certificate."""
    data = erasure.certificate_of(service_of(call), str(request_id))
    name = f'attachment; filename="certificate-{request_id}.json"'
    return Response(data, media_type="application/json", headers={"Content-Disposition": name})


@router.get(f"{HOME}/requests/{{request_id}}/events")
def follow(request_id: UUID4, call: Call, visitor: Follower) -> Response:
    """Tell the page what happens."""
    service = service_of(call)
    erasure.found(service, str(request_id))
    return events.stream(service, str(request_id))


def _clusters(service: Service, request: Request) -> list[int] | None:
    """Clusters that its records are or were in; None where there are none, or it is not known."""
    if request.before is not None:
        return list(request.before.clusters)
    model = service.workspace.generations.current()
    if request.state != "pending" or model is None or not model.tuned:
        return None
    ids = service.workspace.requests.selection(request).ids
    trie_keys = service.workspace.records.derived.trie_keys(model.partition.key, ids)
    return sorted(set(model.cluster_numbers(trie_keys).values()))


def _plan(service: Service, request: Request) -> Plan | str:
    """What carrying it out will cost, or why that is not known."""
    try:
        selection = service.workspace.requests.selection(request)
        return planned(service, Selector.of(ids=selection.ids)) if selection.ids else "Nothing of it is left."
    except LmeraserError as error:
        return error.message


def _verified(service: Service, request: Request) -> Verified:
    workspace = service.workspace
    try:
        data = erasure.certificate_of(service, request.id)
        facts = verify(data, _key_of(workspace, data))
    except LmeraserError as error:
        return Verified(None, error.got or error.message, "not looked for")
    try:
        verify_in_ledger(data, facts, b"".join(entry.line() for entry in workspace.ledger.entries()))
    except VerificationError as error:
        return Verified(facts, "", error.got)
    return Verified(facts, "", "")


def _key_of(workspace: Workspace, data: bytes) -> PublicKey:
    """The key that a certificate says it was signed by, if it is or was this workspace's; else the present one."""
    present = workspace.signing_key.public
    earlier = [PublicKey.read(path) for path in sorted(workspace.root.glob("signing-*.pub"))]
    signer = Envelope.parse(data).key_id
    return next((key for key in earlier if key.key_id == signer), present)
