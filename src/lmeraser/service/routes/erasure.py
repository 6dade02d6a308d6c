"""Routes: file, follow and cancel deletion requests, and get their certificates."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi import Request as Call
from pydantic import UUID4, BaseModel
from sqlalchemy import Connection
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from lmeraser.core.digests import Digest
from lmeraser.core.time import from_text
from lmeraser.errors import InputError, RequestConflictError, VerificationError
from lmeraser.service.access import require_scope
from lmeraser.service.bodies import check_identity_count, check_times, json_body, json_body_schema
from lmeraser.service.callbacks import check_urls, signature_headers
from lmeraser.service.opendsr_requests import ErasureRequest, ReceiptList
from lmeraser.service.opendsr_responses import (
    Cancellation,
    Discovery,
    Receipt,
    RequestStatus,
)
from lmeraser.service.problems import Problem, documented
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.certificate_forms import MEDIA_TYPES, CertificateForm, read_certificate
from lmeraser.workspace.requests.changes import RequestChanges
from lmeraser.workspace.requests.receipts import Receipt as SystemReceipt
from lmeraser.workspace.requests.selection import Unknown
from lmeraser.workspace.requests.state import CancellationReason, ExtensionReason, Request

router = APIRouter(tags=["deletion requests"])

_admit_filing = require_scope("submit", "request")
FilingKey = Annotated[ApiKey, Depends(_admit_filing)]
_admit_request = require_scope("request")
RequestKey = Annotated[ApiKey, Depends(_admit_request)]
FollowKey = Annotated[ApiKey, Depends(require_scope("request", "read"))]

_CERTIFICATE = {
    "description": "The certificate, a DSSE envelope",
    "content": {"application/json": {"schema": {"type": "object"}}},
}


@router.post(
    "/requests",
    summary="File a request",
    status_code=201,
    response_model=Receipt,
    responses={
        200: {"model": Receipt, "description": "This request was accepted before"},
        **documented(400, 401, 403, 408, 409, 413, 422, 429, 503),
    },
    openapi_extra=json_body_schema(ErasureRequest),
)
async def file_request(
    body: Annotated[ErasureRequest, Depends(json_body(ErasureRequest, _admit_filing))], call: Call, key: FilingKey
) -> Response:
    """File a deletion request (scope `submit` or `request`).

    When this responds, the request is on disk, and no prediction that begins later uses clusters or global heads
    with its records. If no response arrives, file it again with the same id; anything else under the same id is
    refused. For a key with the scope `submit` alone the answer does not depend on which names are held.
    """
    service = service_of(call)
    sent = await call.body()
    check_supported(body, service)
    if body.status_callback_urls and not key.may(["request"]):
        raise Problem(403, "scope", "Callbacks tell the outcome; they need the scope request")
    if body.extensions.lmeraser.now and not key.may(["request"]):
        raise Problem(403, "scope", "Skipping the grace period needs the scope request")
    request, new = await asyncio.wrap_future(submit_request(service, body, key))
    return signed_response(Receipt.of(request, sent, service.config), service, 201 if new else 200)


@router.get(
    "/requests/{subject_request_id}",
    summary="Get a request",
    response_model=RequestStatus,
    responses=documented(400, 401, 403, 404, 429, 503),
)
def follow_request(subject_request_id: UUID4, call: Call, key: FollowKey) -> Response:
    """Get the status of a request (scope `request` or `read`)."""
    service = service_of(call)
    request = find_request(service, str(subject_request_id))
    return signed_response(RequestStatus.of(request, service.config, service.workspace.clock()), service)


@router.delete(
    "/requests/{subject_request_id}",
    summary="Cancel a request",
    status_code=202,
    response_model=Cancellation,
    responses=documented(400, 401, 403, 404, 409, 429, 503),
)
async def cancel_request(
    subject_request_id: UUID4,
    call: Call,
    key: RequestKey,
    reason: Annotated[CancellationReason | None, Query(description="why, for the ledger")] = None,
) -> Response:
    """Take back a request that is still pending (scope `request`)."""
    service = service_of(call)
    request_id = str(subject_request_id)
    await run_in_threadpool(find_request, service, request_id)
    try:
        request = await asyncio.wrap_future(submit_cancellation(service, request_id, key, reason))
    except InputError:
        raise not_pending() from None
    return signed_response(Cancellation.of(request, service.config, from_text(request.changed)), service, 202)


@router.post(
    "/requests/{subject_request_id}/extension",
    summary="Extend the time for the answer",
    response_model=RequestStatus,
    responses=documented(400, 401, 403, 404, 409, 429, 503),
)
async def extend_request(
    subject_request_id: UUID4,
    call: Call,
    key: RequestKey,
    reason: Annotated[ExtensionReason, Query(description="why, for the ledger; `other` not under the GDPR")],
) -> Response:
    """Extend the time for the answer, once, as the law allows (scope `request`).

    The person has to be told of the extension, and why, before the answer was due at first.
    """
    service = service_of(call)
    await run_in_threadpool(find_request, service, str(subject_request_id))
    try:
        request = await asyncio.wrap_future(submit_extension(service, str(subject_request_id), key, reason))
    except InputError as error:
        raise not_extended(error) from None
    return signed_response(RequestStatus.of(request, service.config, service.workspace.clock()), service)


@router.post(
    "/requests/{subject_request_id}/start",
    summary="End the grace period",
    response_model=RequestStatus,
    responses=documented(400, 401, 403, 404, 409, 429, 503),
)
async def start_request(subject_request_id: UUID4, call: Call, key: RequestKey) -> Response:
    """Have a pending request carried out without the rest of its grace period (scope `request`)."""
    service = service_of(call)
    await run_in_threadpool(find_request, service, str(subject_request_id))
    try:
        request = await asyncio.wrap_future(submit_start(service, str(subject_request_id), key))
    except InputError:
        raise not_started() from None
    return signed_response(RequestStatus.of(request, service.config, service.workspace.clock()), service)


@router.get(
    "/requests/{subject_request_id}/certificate",
    summary="Get a certificate",
    response_class=Response,
    responses={200: _CERTIFICATE, **documented(400, 401, 403, 404, 429, 503)},
)
def certificate(
    subject_request_id: UUID4,
    call: Call,
    key: FollowKey,
    form: Annotated[
        CertificateForm, Query(alias="format", description="signed JSON, or the same facts as text or PDF")
    ] = "json",
) -> Response:
    """Get the certificate of a completed request (scope `request` or `read`).

    `lmeraser verify` verifies the JSON; text and PDF say the same for people.
    """
    data = certificate_as(service_of(call), str(subject_request_id), form)
    return Response(data, media_type=MEDIA_TYPES[form])


@router.post(
    "/requests/{subject_request_id}/receipts",
    summary="Attach receipts of other systems",
    response_model=ReceiptList,
    responses=documented(400, 401, 403, 404, 408, 409, 413, 422, 429, 503),
    openapi_extra=json_body_schema(ReceiptList),
)
async def attach_receipts(
    body: Annotated[ReceiptList, Depends(json_body(ReceiptList, _admit_request))],
    subject_request_id: UUID4,
    call: Call,
    key: RequestKey,
) -> Response:
    """Attach digests of deletion receipts of other systems to a pending request (scope `request`).

    Its certificate lists them. The names of the systems are for people, and must not name a person.
    """
    service = service_of(call)
    request_id = str(subject_request_id)
    await run_in_threadpool(find_request, service, request_id)
    receipts = [SystemReceipt(each.system, Digest(each.digest)) for each in body.receipts]

    def attach(connection: Connection) -> list[SystemReceipt]:
        held = service.workspace.requests.require(request_id, connection)
        service.workspace.receipts.attach(connection, held, receipts)
        return service.workspace.receipts.of(request_id, connection)

    try:
        attached = await asyncio.wrap_future(service.request_writer.submit(attach, key.id))
    except InputError as error:
        raise Problem(409, "not-attached", f"Receipts were not attached. {error.message}") from None
    return signed_response(ReceiptList.model_validate({"receipts": [r.to_json() for r in attached]}), service)


@router.get("/discovery", summary="Discovery", response_model=Discovery, responses=documented(500))
def discovery(call: Call) -> Response:
    """Describe what this processor supports; needs no key."""
    service = service_of(call)
    public_key = f"https://{service.config.domain}/signing.pub"
    return signed_response(Discovery(processor_certificate=public_key), service)


@router.get(
    "/signing.pub",
    summary="Get the public key",
    response_class=Response,
    responses={200: {"description": "PEM", "content": {"application/x-pem-file": {"schema": {"type": "string"}}}}},
)
def signing_key(call: Call) -> Response:
    """Get the public key that verifies signatures and certificates; needs no key."""
    return Response(service_of(call).workspace.signing_key.public.pem, media_type="application/x-pem-file")


def signed_response(body: BaseModel, service: Service, status: int = 200) -> Response:
    """A response with its signature."""
    encoded = body.model_dump_json().encode()
    signature = signature_headers(encoded, service.workspace.signing_key, service.config)
    headers = {"Cache-Control": "no-store", **signature}
    return Response(encoded, status, headers=headers, media_type="application/json")


def find_request(service: Service, request_id: str) -> Request:
    """A request by its id.

    Raises:
        Problem: there is none.
    """
    request = service.workspace.requests.get(request_id)
    if request is None:
        raise Problem(404, "unknown-request", "Request not found")
    return request


def certificate_as(service: Service, request_id: str, form: CertificateForm = "json") -> bytes:
    """The certificate of a request.

    Raises:
        Problem: there is no such request, it is not completed, or its certificate is missing or changed.
    """
    request = find_request(service, request_id)
    try:
        return read_certificate(service.workspace, request, form)
    except InputError:
        why = "its file is missing" if request.state == "completed" else "the request is not completed"
        raise Problem(404, "no-certificate", f"No certificate: {why}") from None
    except VerificationError as error:
        detail = f"The stored certificate does not verify; tell the operator of the workspace. {error.message}"
        raise Problem(500, "certificate", detail) from None


def submit_request(service: Service, body: ErasureRequest, key: ApiKey) -> Future[tuple[Request, bool]]:
    """Accept a request that `check_supported` has passed; the request, and whether it is new.

    For a key that may only submit, names that are unknown here delete nothing, and are not refused: the status and
    the certificate, which it may not read, tell how many records were deleted.
    """
    unknown: Unknown = "refuse" if key.may(["request"]) else "ignore"
    return service.request_writer.submit(partial(_accept, service, body, unknown, key.id), key.id)


def submit_cancellation(
    service: Service, request_id: str, key: ApiKey, reason: CancellationReason | None = None
) -> Future[Request]:
    """Cancel a request; fails with `InputError` if it is not pending."""
    change = partial(_changes(service).cancel, now=service.workspace.clock(), reason=reason, by=key.id)
    return service.request_writer.submit(lambda connection: change(connection, request_id), key.id)


def submit_extension(service: Service, request_id: str, key: ApiKey, reason: ExtensionReason) -> Future[Request]:
    """Extend the time for the answer; fails with `InputError` if the law does not allow it."""
    change = partial(_changes(service).extend, now=service.workspace.clock(), by=key.id)
    return service.request_writer.submit(lambda connection: change(connection, request_id, reason), key.id)


def submit_start(service: Service, request_id: str, key: ApiKey) -> Future[Request]:
    """End the grace period of a request; fails with `InputError` if it is not pending."""
    change = partial(_changes(service).start_now, now=service.workspace.clock())
    return service.request_writer.submit(lambda connection: change(connection, request_id), key.id)


def _changes(service: Service) -> RequestChanges:
    return service.workspace.request_changes


def not_pending() -> Problem:
    """The problem of a change that comes too late."""
    return Problem(409, "not-pending", "The request can no longer be cancelled: it is not pending")


def not_started() -> Problem:
    """The problem of ending a grace period that is over."""
    return Problem(409, "not-pending", "The request is not pending any more")


def not_extended(error: InputError) -> Problem:
    """The problem of an extension that is not possible; the value got names a rule and no person."""
    return Problem(409, "not-extended", f"{error.message}: {error.got.partition(': ')[2] or error.got}")


def check_supported(body: ErasureRequest, service: Service) -> None:
    """Check what this service supports beyond the format.

    Raises:
        Problem: the request is not supported.
    """
    if body.subject_request_type != "erasure":
        detail = (
            "Request type not supported; only erasure is. POST /find tells what is held of a person (scope find)"
        )
        raise Problem(422, "request-type", detail)
    draft = body.draft()
    check_times(draft, service)
    try:
        draft.check_reference()
    except InputError as error:
        raise Problem(422, "reference", f"{error.message}; {error.next_step}") from None
    check_identity_count(len(body.subject_identities), service)
    check_urls(body.status_callback_urls, service.config)


def _accept(
    service: Service, body: ErasureRequest, unknown: Unknown, by: str, connection: Connection
) -> tuple[Request, bool]:
    """Accept a request; the request, and whether it is new.

    Raises:
        RequestConflictError: its id belongs to a request with other content, or to a cancelled one.
    """
    workspace = service.workspace
    now = workspace.clock()
    known = workspace.requests.get(str(body.subject_request_id), connection)
    if known is not None and known.state == "completed":
        # What it named was erased, so that nobody can test names with its id: not even whether this is the same.
        raise RequestConflictError("Request id belongs to a completed request, whose status tells the outcome")
    grace = timedelta() if body.extensions.lmeraser.now else timedelta(seconds=service.config.grace_period)
    draft = replace(body.draft(), grace=grace, by=by)
    request = workspace.request_changes.accept(draft, now=now, connection=connection, unknown=unknown)
    if known is None:
        workspace.subscriptions.add(connection, request.id, body.status_callback_urls, now=now)
    elif workspace.subscriptions.urls(connection, request.id) != {*body.status_callback_urls}:
        raise RequestConflictError("Request id belongs to a request with other content")
    return request, known is None
