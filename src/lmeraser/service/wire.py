"""What callers ask of deletion requests, in the shape of OpenDSR 2.0; `answers` has what they are told.

OpenDSR (github.com/opengdpr/OpenDSR, ``specification.md``) is the one open format in which controllers tell
processors of requests. What differs here: the type of a record id, ``lmeraser_record_id``, besides
``controller_customer_id``, which is a subject; 'other' as a regulation; erasure is the only type of request,
because a model holds no copy that could be handed out; and signatures are Ed25519, by the key that signs
certificates, over the SHA-256 digest of a body. Follows `deletion`; knows nothing about HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import UUID4, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from lmeraser.service.problems import knows_fields
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.state import Regulation

API_VERSION = "2.0"
EXAMPLE_ID = "00000000-0000-4000-8000-000000000001"

IdentityType = Literal["controller_customer_id", "lmeraser_record_id"]
RequestType = Literal["erasure", "access", "portability"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


def example(**values: Any) -> ConfigDict:
    """Settings of a model that is described with this example."""
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
class RequestOptions(BaseModel):
    """What only lmeraser knows to do.

    Attributes:
        audit: derive the model again from nothing and compare, before the request is completed.
    """

    audit: bool = False


@knows_fields
class Extensions(BaseModel):
    """Fields of processors, by their name; those of others are passed over."""

    lmeraser: RequestOptions = RequestOptions()


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

    model_config = example(
        regulation="gdpr",
        subject_request_id=EXAMPLE_ID,
        subject_request_type="erasure",
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

    def draft(self, now: datetime) -> RequestDraft:
        """The request in the words of the workspace, received now."""
        return RequestDraft(
            selector=selector_of(self.subject_identities),
            request_id=str(self.subject_request_id),
            regulation=self.regulation,
            received=now,
            audit=self.extensions.lmeraser.audit,
            period_began=self.submitted_time,
        )


def selector_of(identities: Iterable[Identity]) -> Selector:
    """The records and subjects that these identities name."""
    names: dict[IdentityType, list[str]] = {"lmeraser_record_id": [], "controller_customer_id": []}
    for identity in identities:
        names[identity.identity_type].append(identity.identity_value)
    return Selector.of(ids=names["lmeraser_record_id"], subjects=names["controller_customer_id"])
