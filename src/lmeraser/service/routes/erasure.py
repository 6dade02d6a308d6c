"""Deletion requests: file, follow, take back, and get the certificate."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi import Request as Call
from pydantic import UUID4, BaseModel
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmeraser.core.time import from_text
from lmeraser.errors import InputError
from lmeraser.service.access import needs
from lmeraser.service.answers import (
    Cancellation,
    Discovery,
    Receipt,
    RequestStatus,
    Status,
    StatusList,
    status_of,
)
from lmeraser.service.callbacks import check_urls, headers
from lmeraser.service.problems import Problem, documented
from lmeraser.service.service import Service, service_of
from lmeraser.service.wire import ErasureRequest
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.requests.state import Request

router = APIRouter(tags=["deletion requests"])

Filing = Annotated[ApiKey, Depends(needs("request"))]
Following = Annotated[ApiKey, Depends(needs("request", "read"))]
Reading = Annotated[ApiKey, Depends(needs("read"))]

_CERTIFICATE = {
    "description": "The certificate, a DSSE envelope",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


@router.post(
    "/requests",
    status_code=201,
    response_model=Receipt,
    responses={
        200: {"model": Receipt, "description": "Accepted before"},
        **documented(400, 401, 403, 409, 413, 422, 429, 503),
    },
)
async def file_request(wanted: ErasureRequest, call: Call, key: Filing) -> Response:
    """File a deletion request (scope `request`).

    It is on the disk before this answers, and from then on no prediction uses the clusters or the global head that
    hold its records. Repeat it with the same id if no answer came.
    """
    service = service_of(call)
    body = await call.body()
    check(wanted, service)
    try:
        request, new = await asyncio.wrap_future(filed(service, wanted))
    except InputError as error:
        raise _conflict(error) from None
    return signed(Receipt.of(request, body, service.config), service, 201 if new else 200)


@router.get("/requests", response_model=StatusList, responses=documented(400, 401, 403, 429, 503))
def list_requests(
    call: Call,
    key: Reading,
    status: Annotated[Status | None, Query(description="only those of this status")] = None,
    limit: Annotated[int, Query(ge=1, le=1000, description="at most so many")] = 100,
) -> Response:
    """List requests, the earliest due first (scope `read`)."""
    service = service_of(call)
    now, found = service.workspace.clock(), service.workspace.requests.all()
    chosen = [one for one in found if status is None or status_of(one.state) == status][:limit]
    return signed(StatusList(requests=[RequestStatus.of(one, service.config, now) for one in chosen]), service)


@router.get(
    "/requests/{subject_request_id}",
    response_model=RequestStatus,
    responses=documented(400, 401, 403, 404, 429, 503),
)
def follow_request(subject_request_id: UUID4, call: Call, key: Following) -> Response:
    """Tell how far a request is (scope `request` or `read`)."""
    service = service_of(call)
    request = found(service, str(subject_request_id))
    return signed(RequestStatus.of(request, service.config, service.workspace.clock()), service)


@router.delete(
    "/requests/{subject_request_id}",
    status_code=202,
    response_model=Cancellation,
    responses=documented(400, 401, 403, 404, 409, 429, 503),
)
async def cancel_request(subject_request_id: UUID4, call: Call, key: Filing) -> Response:
    """Take a request back while it is pending (scope `request`)."""
    service = service_of(call)
    name = str(subject_request_id)
    await run_in_threadpool(found, service, name)
    try:
        request = await asyncio.wrap_future(cancelled(service, name))
    except InputError:
        raise Problem(409, "not-pending", "A request can be taken back while it is pending.") from None
    return signed(Cancellation.of(request, service.config, from_text(request.changed)), service, 202)


@router.get(
    "/requests/{subject_request_id}/certificate",
    response_class=Response,
    responses={200: _CERTIFICATE, **documented(400, 401, 403, 404, 429, 503)},
)
def certificate(subject_request_id: UUID4, call: Call, key: Following) -> Response:
    """Get the certificate of a completed request (scope `request` or `read`); `lmeraser verify` checks it."""
    data = certificate_of(service_of(call), str(subject_request_id))
    return Response(data, media_type="application/json")


@router.get("/discovery", response_model=Discovery, responses=documented(500))
def discovery(call: Call) -> Response:
    """Tell what is supported; needs no key."""
    service = service_of(call)
    return signed(Discovery(processor_certificate=f"https://{service.config.domain}/signing.pub"), service)


@router.get(
    "/signing.pub",
    response_class=Response,
    responses={200: {"description": "PEM", "content": {"application/x-pem-file": {"schema": {"type": "string"}}}}},
)
def signing_key(call: Call) -> Response:
    """Get the public key that verifies signatures and certificates; needs no key."""
    return Response(service_of(call).workspace.signing_key.public.pem, media_type="application/x-pem-file")


def signed(answer: BaseModel, service: Service, status: int = 200) -> Response:
    """An answer with its signature."""
    body = answer.model_dump_json().encode()
    more = headers(body, service.workspace.signing_key, service.config)
    return Response(body, status, headers={"Cache-Control": "no-store", **more}, media_type="application/json")


def found(service: Service, request_id: str) -> Request:
    """A request.

    Raises:
        Problem: there is none.
    """
    request = service.workspace.requests.get(request_id)
    if request is None:
        raise Problem(404, "unknown-request", "A request is one that was filed here.")
    return request


def certificate_of(service: Service, request_id: str) -> bytes:
    """The certificate of a request.

    Raises:
        Problem: there is no such request, or it is not completed.
    """
    request = found(service, request_id)
    path = service.workspace.certificates / f"{request.id}.json"
    if request.state != "completed" or not path.is_file():
        raise Problem(404, "no-certificate", "A request has a certificate when it is completed.")
    return path.read_bytes()


def filed(service: Service, wanted: ErasureRequest) -> Future[tuple[Request, bool]]:
    """File a request that was checked; whether it is a new one."""
    return service.intake.make(partial(_accepted, service, wanted))


def cancelled(service: Service, request_id: str) -> Future[Request]:
    """Take a request back; an `InputError` if it is not pending."""
    now = service.workspace.clock()
    return service.intake.make(lambda c: service.workspace.requests.cancel(c, request_id, now=now))


def check(wanted: ErasureRequest, service: Service) -> None:
    """Whether this service carries such a request out.

    Raises:
        Problem: it does not.
    """
    if wanted.subject_request_type != "erasure":
        rule = "Only erasure is carried out: a model holds no copy of anything that could be handed out."
        raise Problem(422, "request-type", rule)
    if len(wanted.subject_identities) > service.config.max_names:
        raise Problem(422, "too-many", f"A request names at most {service.config.max_names} identities.")
    check_urls(wanted.status_callback_urls, service.config)


def _accepted(service: Service, wanted: ErasureRequest, connection: Connection) -> tuple[Request, bool]:
    """Accept a request; whether it is a new one."""
    workspace = service.workspace
    now = workspace.clock()
    new = workspace.requests.get(str(wanted.subject_request_id), connection) is None
    request = workspace.requests.accept(wanted.draft(now), now=now, connection=connection)
    if new:
        workspace.subscriptions.add(connection, request.id, wanted.status_callback_urls, now=now)
    return request, new


def _conflict(error: InputError) -> Exception:
    if type(error) is InputError:  # what else it could be was checked before
        return Problem(409, "other-names", "A request's id belongs to one request: repeated, it names the same.")
    return error
