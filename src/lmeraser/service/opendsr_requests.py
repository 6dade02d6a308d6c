"""Deletion requests in the format of OpenDSR 2.0; `opendsr_responses` has the responses.

OpenDSR (github.com/opengdpr/OpenDSR, ``specification.md``) is the one open format in which controllers forward
requests to processors. Deviations: the identity type ``lmeraser_record_id``, besides ``controller_customer_id``,
which is a subject; 'other' as a regulation; erasure is the only supported type of request (`routes.people` tells a
privacy desk what is held of a person); and signatures are Ed25519, by the key that signs certificates, over the
SHA-256 digest of a body. Knows nothing about HTTP.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    UUID4,
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic.annotated_handlers import GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError

from lmeraser.service.problems import name_fields_in_problems
from lmeraser.workspace.requests.draft import LONGEST_REFERENCE, RequestDraft, Selector
from lmeraser.workspace.requests.receipts import LONGEST_SYSTEM, MOST
from lmeraser.workspace.requests.state import Regulation

API_VERSION = "2.0"
EXAMPLE_ID = "00000000-0000-4000-8000-000000000001"

IdentityType = Literal["controller_customer_id", "lmeraser_record_id"]
RequestType = Literal["erasure", "access", "portability"]
Name = Annotated[str, StringConstraints(min_length=1, max_length=1024)]
MAX_IDENTITIES = 100_000  # the highest value of the setting `service.max_names`
Url = Annotated[str, StringConstraints(min_length=1, max_length=2000)]


def _text_with_time(value: object) -> object:
    """Refuse numbers: whether they are seconds or milliseconds would be guessed, and the due time with it."""
    if not isinstance(value, str) or ":" not in value:
        raise PydanticCustomError("datetime_parsing", "not RFC 3339")
    return value


Moment = Annotated[AwareDatetime, BeforeValidator(_text_with_time)]


_BESIDE = {
    "anyOf",
    "title",
    "description",
    "default",
    "deprecated",
    "examples",
}  # what is no type in a JSON schema


def example(**values: Any) -> ConfigDict:
    """The configuration of a pydantic model whose schema has this example."""
    return ConfigDict(json_schema_extra={"examples": [values]})


def own_example(**values: Any) -> ConfigDict:
    """As `example`, of a model that OpenDSR does not have: other fields are refused."""
    return ConfigDict(json_schema_extra={"examples": [values]}, extra="forbid")


FORBID = ConfigDict(extra="forbid")


class RequestModel(BaseModel):
    """Base of what callers send: a field that is null counts as left out, and the schema says so.

    OpenDSR's fields may be accompanied by others, which are ignored. What is lmeraser's own may not (`FORBID`): a
    mistyped option or filter would be left out unseen.
    """

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, values: object) -> object:
        return {k: v for k, v in values.items() if v is not None} if isinstance(values, Mapping) else values

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler.resolve_ref_schema(handler(core_schema))
        required = schema.get("required", [])
        for name, field in schema.get("properties", {}).items():
            variants = field.setdefault("anyOf", [])
            if name not in required and {"type": "null"} not in variants:
                moved = {key: field.pop(key) for key in [*field] if key not in _BESIDE}
                variants += [moved, {"type": "null"}] if moved else [{"type": "null"}]
            elif not variants:
                del field["anyOf"]
        return schema


@name_fields_in_problems
class Identity(RequestModel):
    """A subject or a record to be erased.

    Attributes:
        identity_type: a subject (`controller_customer_id`) or a single record (`lmeraser_record_id`).
        identity_value: its name or id, as given when the records were added.
        identity_format: digests are not supported, because they cannot be looked up.
    """

    identity_type: IdentityType
    identity_value: Name
    identity_format: Literal["raw"]


@name_fields_in_problems
class RequestOptions(RequestModel):
    """Options that OpenDSR does not have.

    Attributes:
        audit: train a model from scratch and compare, before the request is completed.
        with_duplicates: erase the other records with the same payload, byte for byte, too.
        reference: the caller's own name for the request, one line; kept encrypted, and erased when it is closed
            (or `requests.reference_days` later).
        now: carry it out without the grace period, in which it can be taken back.
    """

    model_config = FORBID

    audit: bool = False
    with_duplicates: bool = False
    reference: Annotated[str, StringConstraints(max_length=LONGEST_REFERENCE)] | None = None
    now: bool = False


@name_fields_in_problems
class Extensions(RequestModel):
    """Extensions by the name of their processor; those of other processors are ignored."""

    lmeraser: RequestOptions = RequestOptions()


@name_fields_in_problems
class ErasureRequest(RequestModel):
    """A deletion request.

    Attributes:
        regulation: under which the request is made.
        subject_request_id: chosen by the caller; filing the same request again has no effect, and filing another
            one with the same id is refused.
        subject_request_type: only erasure is supported.
        submitted_time: when the subject made the request; its statutory period begins then. Refused if it is more
            than ten years ago or more than a day in the future; up to a day in the future counts as now.
        subject_identities: what is to be erased.
        api_version: version of the format.
        status_callback_urls: called at every change of state; their hosts must be listed by the operator.
        extensions: by the name of their processor.
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
        status_callback_urls=["https://controller.example/callback"],
    )

    regulation: Regulation
    subject_request_id: UUID4
    subject_request_type: RequestType
    submitted_time: Moment
    subject_identities: list[Identity] = Field(min_length=1, max_length=MAX_IDENTITIES)
    api_version: Annotated[str, StringConstraints(max_length=20)] | None = None
    status_callback_urls: list[Url] = Field(default=[], max_length=10)
    extensions: Extensions = Extensions()

    def draft(self) -> RequestDraft:
        """The draft of this request, which is received when it is accepted."""
        return RequestDraft(
            selector=selector_of(self.subject_identities, duplicates=self.extensions.lmeraser.with_duplicates),
            request_id=str(self.subject_request_id),
            regulation=self.regulation,
            audit=self.extensions.lmeraser.audit,
            asked=self.submitted_time,
            reference=self.extensions.lmeraser.reference or None,
        )


def selector_of(identities: Iterable[Identity], *, duplicates: bool = False) -> Selector:
    """The records and subjects that these identities name."""
    names: dict[IdentityType, list[str]] = {"lmeraser_record_id": [], "controller_customer_id": []}
    for identity in identities:
        names[identity.identity_type].append(identity.identity_value)
    return Selector.of(
        ids=names["lmeraser_record_id"], subjects=names["controller_customer_id"], duplicates=duplicates
    )


@name_fields_in_problems
class SystemReceipt(RequestModel):
    """The receipt of another system that deleted data of the same person.

    Attributes:
        system: name of the system, for people; it must not name a person.
        digest: of the receipt.
    """

    model_config = FORBID

    system: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_SYSTEM)]
    digest: Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$", max_length=71)]


@name_fields_in_problems
class ReceiptList(RequestModel):
    """Receipts of other systems.

    Attributes:
        receipts: in the order in which they were attached.
    """

    model_config = own_example(receipts=[{"system": "vector store", "digest": "sha256:" + "0" * 64}])

    receipts: list[SystemReceipt] = Field(min_length=1, max_length=MOST)
