"""What goes over the wire about deletion requests, in the shape of OpenDSR 2.0.

OpenDSR (github.com/opengdpr/OpenDSR, ``specification.md``) is the one open format in which controllers tell
processors of requests. What differs here: the type of a record id, ``lmeraser_record_id``, besides
``controller_customer_id``, which is a subject; 'other' as a regulation; erasure is the only type of request,
because a model holds no copy that could be handed out; and signatures are Ed25519, by the key that signs
certificates, over the SHA-256 digest of a body. Follows `deletion`; knows nothing about HTTP.
"""

from __future__ import annotations

import base64
from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import UUID4, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from lmeraser.deletion import Regulation, Request, State, Wish
from lmeraser.service.problems import knows_fields
from lmeraser.settings import ServiceConfig
from lmeraser.times import from_text, to_text

API_VERSION = "2.0"
EXTENSION = "lmeraser"  # name of our own fields in ``extensions``

IdentityType = Literal["controller_customer_id", "lmeraser_record_id"]
RequestType = Literal["erasure", "access", "portability"]
Status = Literal["pending", "in_progress", "completed", "cancelled"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000)]

_ID = "00000000-0000-4000-8000-000000000001"
_NAMED = {"subject_request_id": _ID}
_SHOWN = {"controller_id": "controller", **_NAMED, "api_version": API_VERSION}


def _example(**values: Any) -> ConfigDict:
    return ConfigDict(json_schema_extra={"examples": [values]})


@knows_fields
class Identity(BaseModel):
    """Who or what is to be erased.

    Attributes:
        identity_type: a subject, or a single record.
        identity_value: as it was given at import.
        identity_format: digests cannot be looked up, so they are not taken.
    """

    identity_type: IdentityType
    identity_value: Name
    identity_format: Literal["raw"]


@knows_fields
class OurWishes(BaseModel):
    """What only lmeraser knows to do.

    Attributes:
        audit: derive the model again from nothing and compare, before the request is completed.
    """

    audit: bool = False


@knows_fields
class Extensions(BaseModel):
    """Fields of processors, by their name; those of others are passed over."""

    lmeraser: OurWishes = OurWishes()


@knows_fields
class ErasureRequest(BaseModel):
    """A deletion request.

    Attributes:
        regulation: which law it appeals to.
        subject_request_id: made by the caller; repeating a request is harmless.
        subject_request_type: only erasure is carried out.
        submitted_time: when the person asked; the period of the law begins then.
        subject_identities: what is to be erased.
        api_version: that the caller speaks.
        status_callback_urls: told of every change of state; their hosts are on a list of the operator's.
        extensions: of processors.
    """

    model_config = _example(
        **{"regulation": "gdpr", **_NAMED, "subject_request_type": "erasure"},
        submitted_time="2026-01-31T12:00:00Z",
        subject_identities=[
            {"identity_type": "controller_customer_id", "identity_value": "patient 17", "identity_format": "raw"}
        ],
        api_version=API_VERSION,
        status_callback_urls=["https://controller.example/told"],
    )

    regulation: Regulation
    subject_request_id: UUID4
    subject_request_type: RequestType
    submitted_time: AwareDatetime
    subject_identities: list[Identity] = Field(min_length=1)
    api_version: Annotated[str, StringConstraints(max_length=20)] | None = None
    status_callback_urls: list[Url] = Field(default=[], max_length=10)
    extensions: Extensions = Extensions()

    def wish(self, now: datetime) -> Wish:
        """What it asks for."""
        return Wish(
            ids=self._named("lmeraser_record_id"),
            subjects=self._named("controller_customer_id"),
            request=str(self.subject_request_id),
            regulation=self.regulation,
            received=now,
            audit=self.extensions.lmeraser.audit,
            since=self.submitted_time,
        )

    def _named(self, kind: IdentityType) -> list[str]:
        return [one.identity_value for one in self.subject_identities if one.identity_type == kind]


class Receipt(BaseModel):
    """The answer to a request that was accepted. Don't log it: it holds the request."""

    model_config = _example(
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

    model_config = _example(
        **{**_SHOWN, "request_status": "completed", "expected_completion_time": "2026-02-28T12:00:00Z"},
        results_count=3,
        extensions={
            EXTENSION: {
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

    model_config = _example(**_SHOWN, received_time="2026-01-31T12:00:01Z")

    controller_id: str
    subject_request_id: str
    received_time: str
    api_version: str = API_VERSION

    @classmethod
    def of(cls, request: Request, config: ServiceConfig, now: datetime) -> Self:
        """Of a request that was cancelled now."""
        return cls(controller_id=config.controller_id, subject_request_id=request.id, received_time=to_text(now))


class Told(RequestStatus):
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
