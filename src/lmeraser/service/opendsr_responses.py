"""Responses to deletion requests, in the format of OpenDSR 2.0 (`opendsr_requests`). Knows nothing about HTTP."""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel

from lmeraser.config.deployment import ServiceConfig
from lmeraser.core.time import from_text, to_text
from lmeraser.service.opendsr_requests import API_VERSION, EXAMPLE_ID, IdentityType, RequestType, example
from lmeraser.workspace.requests.state import Request, State

Status = Literal["pending", "in_progress", "completed", "cancelled"]

_EXTENSION = "lmeraser"
_EXAMPLE: dict[str, Any] = {
    "controller_id": "controller",
    "subject_request_id": EXAMPLE_ID,
    "api_version": API_VERSION,
}


class Receipt(BaseModel):
    """The response to an accepted request. Do not log it: it contains the request.

    Attributes:
        controller_id: of the controller whose request it is.
        subject_request_id: id of the request.
        received_time: when the request was received.
        expected_completion_time: when the request is due.
        encoded_request: the body of the request, base64.
        api_version: version of the format.
    """

    model_config = example(
        **_EXAMPLE,
        received_time="2026-01-31T12:00:01Z",
        expected_completion_time="2026-02-28T12:00:00Z",
        encoded_request="eyJyZWd1bGF0aW9uIjogImdkcHIifQ==",
    )

    controller_id: str
    subject_request_id: str
    received_time: str
    expected_completion_time: str
    encoded_request: str
    api_version: str = API_VERSION

    @classmethod
    def of(cls, request: Request, body: bytes, config: ServiceConfig) -> Self:
        """The receipt for a request and the body in which it was sent."""
        return cls(
            controller_id=config.controller_id,
            subject_request_id=request.id,
            received_time=request.received,
            expected_completion_time=request.due,
            encoded_request=base64.b64encode(body).decode("ascii"),
        )


class LmeraserStatus(BaseModel):
    """Status fields that OpenDSR does not have.

    Attributes:
        state: lmeraser's state; 'failed' (its audit found a difference) is 'in_progress' in OpenDSR.
        seconds_left: until the request is due; negative: overdue; null: closed.
        days_late: days, begun ones included, from the due time to completion, or to now; 0: in time so far; null:
            cancelled.
        seconds_to_start: of the grace period that are left, in which the request can be taken back.
        extended: when the time for the answer was extended; null: it was not.
        records_deleted: number of records deleted.
        already_deleted: number of identities that had been deleted before.
        certificate: digest of the certificate's payload.
    """

    state: State
    seconds_left: int | None
    days_late: int | None
    seconds_to_start: int
    extended: str | None
    records_deleted: int | None
    already_deleted: int | None
    certificate: str | None


class StatusExtensions(BaseModel):
    """Extensions by the name of their processor."""

    lmeraser: LmeraserStatus


class RequestStatus(BaseModel):
    """The status of a request.

    Attributes:
        controller_id: of the controller whose request it is.
        subject_request_id: id of the request.
        request_status: OpenDSR's status.
        expected_completion_time: when the request is due.
        results_count: number of records deleted; null until completion.
        api_version: version of the format.
        extensions: fields that OpenDSR does not have.
    """

    model_config = example(
        **{**_EXAMPLE, "request_status": "completed", "expected_completion_time": "2026-02-28T12:00:00Z"},
        results_count=3,
        extensions={
            _EXTENSION: {
                "state": "completed",
                "seconds_left": None,
                "days_late": 0,
                "seconds_to_start": 0,
                "extended": None,
                "records_deleted": 3,
                "already_deleted": 0,
                "certificate": "sha256:" + "0" * 64,
            }
        },
    )

    controller_id: str
    subject_request_id: str
    request_status: Status
    expected_completion_time: str
    results_count: int | None
    api_version: str = API_VERSION
    extensions: StatusExtensions

    @classmethod
    def of(cls, request: Request, config: ServiceConfig, now: datetime) -> Self:
        """The status of a request."""
        left = int((from_text(request.due) - now).total_seconds()) if request.open else None
        extension = LmeraserStatus(
            state=request.state,
            seconds_left=left,
            days_late=request.days_late(now),
            seconds_to_start=request.seconds_to_start(now),
            extended=request.extended,
            records_deleted=request.records,
            already_deleted=request.already_deleted,
            certificate=request.certificate,
        )
        return cls(
            controller_id=config.controller_id,
            subject_request_id=request.id,
            request_status=opendsr_status(request.state),
            expected_completion_time=request.due,
            results_count=request.records,
            extensions=StatusExtensions(lmeraser=extension),
        )


class StatusList(BaseModel):
    """Requests; ``total`` is their number without offset and limit."""

    total: int
    requests: list[RequestStatus]


class FoundRequests(StatusList):
    """Requests that were searched for.

    Attributes:
        references: the desk's own names for them, by their ids, where they have one.
    """

    references: dict[str, str]


class Cancellation(BaseModel):
    """The response to the cancellation of a request.

    Attributes:
        controller_id: of the controller whose request it is.
        subject_request_id: id of the request.
        received_time: when it was cancelled.
        api_version: version of the format.
    """

    model_config = example(**_EXAMPLE, received_time="2026-01-31T12:00:01Z")

    controller_id: str
    subject_request_id: str
    received_time: str
    api_version: str = API_VERSION

    @classmethod
    def of(cls, request: Request, config: ServiceConfig, now: datetime) -> Self:
        """The response for a request that was cancelled now."""
        return cls(controller_id=config.controller_id, subject_request_id=request.id, received_time=to_text(now))


class StatusCallback(RequestStatus):
    """The body of a callback: the status, and the URL that is called."""

    status_callback_url: str


class SupportedIdentity(BaseModel):
    """A supported type of identity."""

    identity_type: IdentityType
    identity_format: Literal["raw"] = "raw"


class Discovery(BaseModel):
    """What this processor supports.

    Attributes:
        api_version: version of the format.
        supported_identities: supported types of identities.
        supported_subject_request_types: supported types of requests.
        processor_certificate: URL of the public key that verifies signatures.
        signature_algorithm: how bodies are signed.
    """

    api_version: str = API_VERSION
    supported_identities: list[SupportedIdentity] = [
        SupportedIdentity(identity_type="controller_customer_id"),
        SupportedIdentity(identity_type="lmeraser_record_id"),
    ]
    supported_subject_request_types: list[RequestType] = ["erasure"]
    processor_certificate: str
    signature_algorithm: str = (
        "Ed25519 over the 32 bytes of the SHA-256 digest of the body, base64; public key as PEM"
    )


def opendsr_status(state: State) -> Status:
    """OpenDSR's status for a state."""
    return "in_progress" if state == "failed" else state
