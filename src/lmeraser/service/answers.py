"""What callers are answered about deletion requests, in the shape of OpenDSR 2.0 (`wire`).

Knows nothing about HTTP.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Any, Literal, Self

from pydantic import BaseModel

from lmeraser.config.deployment import ServiceConfig
from lmeraser.core.time import from_text, to_text
from lmeraser.service.wire import API_VERSION, EXAMPLE_ID, IdentityType, RequestType, example
from lmeraser.workspace.requests.state import Request, State

Status = Literal["pending", "in_progress", "completed", "cancelled"]

_EXTENSION = "lmeraser"
_SHOWN: dict[str, Any] = {
    "controller_id": "controller",
    "subject_request_id": EXAMPLE_ID,
    "api_version": API_VERSION,
}


class Receipt(BaseModel):
    """The answer to a request that was accepted. Don't log it: it holds the request."""

    model_config = example(
        **_SHOWN,
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
        """For a request and the bytes in which it came."""
        return cls(
            controller_id=config.controller_id,
            subject_request_id=request.id,
            received_time=request.received,
            expected_completion_time=request.due,
            encoded_request=base64.b64encode(body).decode("ascii"),
        )


class OurStatus(BaseModel):
    """What OpenDSR has no field for.

    Attributes:
        state: as lmeraser says; 'failed' (its audit found a difference) is in progress for OpenDSR.
        seconds_left: until the answer is due; negative when that is over.
        records_deleted: how many records went.
        already_deleted: how many names had been deleted before.
        certificate: digest of the certificate's payload.
    """

    state: State
    seconds_left: int | None
    records_deleted: int | None
    already_deleted: int | None
    certificate: str | None


class StatusExtensions(BaseModel):
    """Fields of processors, by their name."""

    lmeraser: OurStatus


class RequestStatus(BaseModel):
    """How far a request is.

    Attributes:
        controller_id: whose request it is.
        subject_request_id: its id.
        request_status: in the words of OpenDSR.
        expected_completion_time: when the answer is due.
        results_count: how many records were deleted; None before.
        api_version: of the wire format.
        extensions: what OpenDSR has no field for.
    """

    model_config = example(
        **{**_SHOWN, "request_status": "completed", "expected_completion_time": "2026-02-28T12:00:00Z"},
        results_count=3,
        extensions={
            _EXTENSION: {
                "state": "completed",
                "seconds_left": None,
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
        """Of a request."""
        left = int((from_text(request.due) - now).total_seconds()) if request.open else None
        ours = OurStatus(
            state=request.state,
            seconds_left=left,
            records_deleted=request.records,
            already_deleted=request.already_deleted,
            certificate=request.certificate,
        )
        return cls(
            controller_id=config.controller_id,
            subject_request_id=request.id,
            request_status=status_of(request.state),
            expected_completion_time=request.due,
            results_count=request.records,
            extensions=StatusExtensions(lmeraser=ours),
        )


class StatusList(BaseModel):
    """Requests, the earliest due first."""

    requests: list[RequestStatus]


class Cancellation(BaseModel):
    """The answer to a request that was taken back."""

    model_config = example(**_SHOWN, received_time="2026-01-31T12:00:01Z")

    controller_id: str
    subject_request_id: str
    received_time: str
    api_version: str = API_VERSION

    @classmethod
    def of(cls, request: Request, config: ServiceConfig, now: datetime) -> Self:
        """Of a request that was cancelled now."""
        return cls(controller_id=config.controller_id, subject_request_id=request.id, received_time=to_text(now))


class NotificationStatus(RequestStatus):
    """What a callback tells."""

    status_callback_url: str


class SupportedIdentity(BaseModel):
    """A kind of identity that is taken."""

    identity_type: IdentityType
    identity_format: Literal["raw"] = "raw"


class Discovery(BaseModel):
    """What this processor supports.

    Attributes:
        api_version: of the wire format.
        supported_identities: that are taken.
        supported_subject_request_types: that are carried out.
        processor_certificate: where the key is that verifies signatures.
        signature_algorithm: what they are.
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


def status_of(state: State) -> Status:
    """A state in the words of OpenDSR."""
    return "in_progress" if state == "failed" else state
