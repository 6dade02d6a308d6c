"""Routes for a privacy desk: find a person or a record, and list those that are held.

Names are sent in bodies, never in an address, which proxies and browsers keep. Answers are not to be stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, Depends
from fastapi import Request as Call
from pydantic import BaseModel, Field, StringConstraints
from starlette.responses import Response

from lmeraser.errors import UnknownRecordError
from lmeraser.service.access import require_scope
from lmeraser.service.bodies import json_body, json_body_schema
from lmeraser.service.opendsr_requests import IdentityType, Name, RequestModel, own_example
from lmeraser.service.problems import Problem, documented, name_fields_in_problems
from lmeraser.service.routes.planning import NearMiss
from lmeraser.service.service import Service, service_of
from lmeraser.workspace.api_keys import ApiKey
from lmeraser.workspace.holdings import RecordLine, SubjectLine, find, list_records, list_subjects

router = APIRouter(tags=["people and records"])

L = TypeVar("L", RecordLine, SubjectLine)

TOKENS = 10  # of the rate limit, besides the call's: metadata of many records are decrypted
_admit = require_scope("find")
_admit_to_records = require_scope("records")
FindKey = Annotated[ApiKey, Depends(_admit)]
RecordsKey = Annotated[ApiKey, Depends(_admit_to_records)]
Search = Annotated[str, StringConstraints(max_length=200)]


@name_fields_in_problems
class FindRequest(RequestModel):
    """A person or a record.

    Attributes:
        identity_type: a person (`controller_customer_id`) or a record (`lmeraser_record_id`).
        identity_value: the name or id, in any spelling.
    """

    model_config = own_example(identity_type="controller_customer_id", identity_value="patient 17")

    identity_type: IdentityType
    identity_value: Name


@name_fields_in_problems
class SubjectsRequest(RequestModel):
    """Which people to list.

    Attributes:
        search: only names that contain this, whatever its case, accents and spaces.
        offset: how many to leave out at the beginning.
        limit: how many to list at most.
    """

    model_config = own_example(search="müller")

    search: Search = ""
    offset: int = Field(default=0, ge=0)
    limit: int = Field(default=100, ge=1, le=1000)


@name_fields_in_problems
class RecordsRequest(SubjectsRequest):
    """Which records to list.

    Attributes:
        subject: only those about this person.
        label: only those of this class.
    """

    model_config = own_example(subject="patient 17", label="cat")

    subject: Name | None = None
    label: Name | None = None


@name_fields_in_problems
class PayloadRequest(RequestModel):
    """A record whose content is wanted.

    Attributes:
        id: its id, exactly.
    """

    model_config = own_example(id="cat/0001.jpg")

    id: Name


class HeldRecordLine(BaseModel):
    """A record that is held; see `holdings.RecordLine`."""

    id: str
    subject: str | None
    label: str
    added: str
    requests: list[str]


class HeldSubjectLine(BaseModel):
    """A person of whom records are held; see `holdings.SubjectLine`."""

    subject: str
    records: int
    labels: dict[str, int]
    first: str
    last: str
    requests: list[str]


class HoldingsResponse(BaseModel):
    """What is held under a name; see `holdings.Holdings`."""

    kind: Literal["id", "subject"]
    given: str
    names: list[str]
    deleted_before: bool
    records: list[HeldRecordLine]
    labels: dict[str, int]
    days: dict[str, int]
    duplicates: list[str]
    near_misses: list[NearMiss]
    requests: list[str]


class RecordList(BaseModel):
    """Records; ``total`` is their number without offset and limit."""

    total: int
    records: list[HeldRecordLine]


class SubjectList(BaseModel):
    """People; ``total`` is their number without offset and limit."""

    total: int
    subjects: list[HeldSubjectLine]


_PROBLEMS = documented(400, 401, 403, 408, 413, 422, 429, 503)


@router.post(
    "/find",
    summary="Find a person or a record",
    response_model=HoldingsResponse,
    openapi_extra=json_body_schema(FindRequest),
    responses=_PROBLEMS,
)
async def find_holdings(
    body: Annotated[FindRequest, Depends(json_body(FindRequest, _admit))], call: Call, key: FindKey
) -> Response:
    """Find what is held of a person, or under a record id, and names that look alike (scope `find`)."""
    kind: Literal["id", "subject"] = "subject" if body.identity_type == "controller_customer_id" else "id"
    found = await run_in_planner(service_of(call), key, find, kind, body.identity_value)
    return _private(HoldingsResponse.model_validate(found.to_json(), from_attributes=True))


@router.post(
    "/subjects",
    summary="List people",
    response_model=SubjectList,
    openapi_extra=json_body_schema(SubjectsRequest),
    responses=_PROBLEMS,
)
async def list_people(
    body: Annotated[SubjectsRequest, Depends(json_body(SubjectsRequest, _admit))], call: Call, key: FindKey
) -> Response:
    """List the people of whom records are held, by name (scope `find`)."""
    found = await run_in_planner(service_of(call), key, list_subjects, search=body.search)
    return _private(SubjectList(total=len(found), subjects=_page(found, body)))


@router.post(
    "/records",
    summary="List records",
    response_model=RecordList,
    openapi_extra=json_body_schema(RecordsRequest),
    responses=_PROBLEMS,
)
async def list_held_records(
    body: Annotated[RecordsRequest, Depends(json_body(RecordsRequest, _admit))], call: Call, key: FindKey
) -> Response:
    """List the records that are held, by id, without their content (scope `find`)."""
    service = service_of(call)
    found = await run_in_planner(
        service, key, list_records, subject=body.subject, label=body.label, search=body.search
    )
    return _private(RecordList(total=len(found), records=_page(found, body)))


@router.post(
    "/records/payload",
    summary="Get the content of a record",
    response_class=Response,
    openapi_extra=json_body_schema(PayloadRequest),
    responses={
        200: {
            "description": "The bytes that were added",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        },
        **documented(400, 401, 403, 404, 408, 413, 422, 429, 503),
    },
)
async def get_payload(
    body: Annotated[PayloadRequest, Depends(json_body(PayloadRequest, _admit_to_records))],
    call: Call,
    key: RecordsKey,
) -> Response:
    """Get the content of one record, as it was added (scope `records`)."""
    return payload_response(await run_in_planner(service_of(call), key, read_payload, body.id))


def read_payload(workspace: Any, record_id: str) -> bytes:
    """The content of a record.

    Raises:
        Problem: there is no such record.
    """
    try:
        payload: bytes = workspace.records.payloads([record_id])[0]
    except UnknownRecordError:
        raise Problem(404, "unknown-record", "Record not found") from None
    return payload


def payload_response(payload: bytes) -> Response:
    """A response with the content of a record, which browsers save and neither show nor keep."""
    headers = {
        "Cache-Control": "no-store",
        "Content-Disposition": 'attachment; filename="record"',
        "X-Content-Type-Options": "nosniff",
    }
    return Response(payload, headers=headers, media_type="application/octet-stream")


async def run_in_planner(service: Service, key: ApiKey, function: Any, *arguments: Any, **options: Any) -> Any:
    """Call a function of the workspace in the planner's thread, so that calls wait for nothing."""
    service.rate_limiter.take(key.id, TOKENS)
    return await service.planner.run(key.id, function, service.workspace, *arguments, **options)


def _page(found: Sequence[L], body: SubjectsRequest) -> list[Any]:
    return [asdict(line) for line in found[body.offset : body.offset + body.limit]]


def _private(body: BaseModel) -> Response:
    headers = {"Cache-Control": "no-store"}
    return Response(body.model_dump_json(), headers=headers, media_type="application/json")
