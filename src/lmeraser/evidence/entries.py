"""The events that a ledger records: one type for each kind of entry.

An entry of the chain (`hash_chain`) has a kind and a body. Each class below is one kind, and its fields are the
keys of the body. Kinds, keys and their values are a stored format: they keep 0.1's words and never change.

- Writing: `Ledger.note` takes an event and appends its kind and body.
- Reading: `events_of` picks entries by type and checks their bodies.
- Entries of a kind that this version does not know, and fields that it does not know, belong to a newer version.
  They stay part of the chain and are ignored here.

No event holds personal data: records appear as commitments, requests by their UUID.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from lmeraser.core.digests import Digest
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.hash_chain import Entry, broken

_Count = Annotated[int, Field(strict=True, ge=0)]
_Position = Annotated[str, StringConstraints(pattern=r"^(0|[1-9][0-9]*)\z")]  # of an entry, as a JSON key


class Event(BaseModel):
    """Base of all events."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    kind: str

    def body(self) -> dict[str, Any]:
        """The body of the entry, as JSON values."""
        return self.model_dump(mode="json", exclude={"kind"})


class _Addition(Event):
    """Base of events after which records are held that were not held before.

    Attributes:
        records: how many.
        commitments: digest of their commitments (`reconcile.digest_of`).
    """

    kind: str
    records: _Count
    commitments: Digest


class _Removal(Event):
    """Base of events after which records are no longer held.

    Attributes:
        removed: their commitments, by the position of the entry that recorded their addition.
    """

    kind: str
    removed: dict[_Position, tuple[Digest, ...]]

    @property
    def removed_by_position(self) -> dict[int, tuple[Digest, ...]]:
        """The commitments, by position as a number."""
        return {int(position): commitments for position, commitments in self.removed.items()}


class WorkspaceCreated(Event):
    """A workspace was created.

    Attributes:
        format: version of the workspace's layout.
        key: digest of the public key that verifies its certificates.
    """

    kind: Literal["workspace"] = "workspace"
    format: _Count
    key: Digest


class RecordsAdded(_Addition):
    """Records were imported.

    Attributes:
        records: how many.
        deleted_before: how many of them had been deleted at some time and were let in again.
        commitments: digest of their commitments.
    """

    kind: Literal["added"] = "added"
    deleted_before: _Count


class RecordsRelabelled(_Addition, _Removal):
    """Records got another label: their old commitments are removed, and new ones are added.

    Attributes:
        records: how many.
        removed: their old commitments.
        commitments: digest of their new commitments.
    """

    kind: Literal["relabelled"] = "relabelled"


class RequestAccepted(Event):
    """A deletion request was accepted; its records are still held.

    Attributes:
        request: its UUID.
        regulation: the law it appeals to.
        received: when it arrived, RFC 3339 in UTC.
        due: when the answer is due.
        names: how many record ids and subjects it names.
        by: id of the API key that filed it; None: a command, or an entry of before 0.2.
    """

    kind: Literal["request"] = "request"
    request: str
    regulation: str
    received: str
    due: str
    names: _Count
    by: str | None = None

    def body(self) -> dict[str, Any]:
        """The body of the entry; without a key, as it was before 0.2."""
        return self.model_dump(mode="json", exclude={"kind"}, exclude_none=True)


class RequestExtended(Event):
    """The time for the answer to a request was extended.

    Attributes:
        request: its UUID.
        due: when the answer is due from now on.
        reason: one of `ExtensionReason` (`workspace.requests.state`).
        by: id of the API key; None: a command.
    """

    kind: Literal["extended"] = "extended"
    request: str
    due: str
    reason: str
    by: str | None = None

    def body(self) -> dict[str, Any]:
        """The body of the entry."""
        return self.model_dump(mode="json", exclude={"kind"}, exclude_none=True)


class RequestCancelled(Event):
    """A request was cancelled before any record was deleted.

    Attributes:
        request: its UUID.
        reason: one of `CancellationReason` (`workspace.requests.state`), if one was given.
        by: id of the API key; None: a command, or an entry of before 0.2.
    """

    kind: Literal["cancelled"] = "cancelled"
    request: str
    reason: str | None = None
    by: str | None = None

    def body(self) -> dict[str, Any]:
        """The body of the entry; without reason and key, as it was before 0.2."""
        return self.model_dump(mode="json", exclude={"kind"}, exclude_none=True)


class RecordsDeleted(_Removal):
    """The records of requests were deleted.

    Attributes:
        requests: UUIDs of the requests that are in progress from now on.
        removed: commitments of the records.
    """

    kind: Literal["deleted"] = "deleted"
    requests: tuple[str, ...]


class RequestCompleted(Event):
    """A request was completed.

    Attributes:
        request: its UUID.
        certificate: digest of the payload of its certificate.
    """

    kind: Literal["completed"] = "completed"
    request: str
    certificate: Digest


class RequestFailed(Event):
    """The audit of a request found a difference; there is no certificate."""

    kind: Literal["failed"] = "failed"
    request: str


class GenerationPublished(Event):
    """A generation of the model is served.

    Attributes:
        generation: its number.
        model: digest of the model, with which guesses of records can be tested; only in entries of before 0.2.
        manifest: digest of the manifest, which has a random nonce; in all others.
        records: how many records it was derived from.
    """

    kind: Literal["generation"] = "generation"
    generation: _Count
    model: Digest | None = None
    manifest: Digest | None = None
    records: _Count

    @model_validator(mode="after")
    def _has_one_digest(self) -> Self:
        if (self.model is None) == (self.manifest is None):
            raise ValueError("either model or manifest is given")
        return self

    @property
    def public_digest(self) -> Digest:
        """What certificates call this generation."""
        digest = self.manifest or self.model
        assert digest is not None
        return digest

    def body(self) -> dict[str, Any]:
        """The body of the entry, with the one digest that it has."""
        return self.model_dump(mode="json", exclude={"kind"}, exclude_none=True)


class ModelExported(Event):
    """A generation left the workspace as a copy that predicts by itself.

    Attributes:
        export: UUID of the copy.
        generation: its number.
        format: of the copy, for instance "folder".
        manifest: digest of the copy's manifest, which has a random id.
    """

    kind: Literal["exported"] = "exported"
    export: str
    generation: _Count
    format: str
    manifest: Digest


class ExportRecalled(Event):
    """The holder of a copy was told that records were erased or rectified since.

    Attributes:
        export: UUID of the copy.
        records: how many such records the holder was told of.
    """

    kind: Literal["export_recalled"] = "export_recalled"
    export: str
    records: _Count


class ExportConfirmed(Event):
    """The holder of a copy confirmed that it is deleted, or its maker did."""

    kind: Literal["export_confirmed"] = "export_confirmed"
    export: str


class WorkspaceRestored(Event):
    """The workspace was restored from a backup.

    Attributes:
        entries: length of the backup's ledger. Entries from there up to this one tell of a state that was lost.
    """

    kind: Literal["restored"] = "restored"
    entries: _Count


LedgerEvent = Annotated[
    WorkspaceCreated
    | RecordsAdded
    | RecordsRelabelled
    | RequestAccepted
    | RequestExtended
    | RequestCancelled
    | RecordsDeleted
    | RequestCompleted
    | RequestFailed
    | GenerationPublished
    | ModelExported
    | ExportRecalled
    | ExportConfirmed
    | WorkspaceRestored,
    Field(discriminator="kind"),
]

_TYPES: dict[str, type[Event]] = {
    event.model_fields["kind"].default: event for event in get_args(get_args(LedgerEvent)[0])
}

E = TypeVar("E", bound=Event)


def event_of(entry: Entry) -> LedgerEvent | None:
    """The event that an entry records; None for a kind that this version does not know.

    Raises:
        VerificationError: the body does not fit the kind; says which entry and which field.
    """
    event_type = _TYPES.get(entry.kind)
    return None if event_type is None else _parse(entry, event_type)  # type: ignore[return-value]  # one of the union


def events_of(entries: Iterable[Entry], *types: type[E]) -> Iterator[tuple[Entry, E]]:
    """The entries that record events of these types, each with its event; other entries are not parsed.

    Raises:
        VerificationError: see `event_of`.
    """
    wanted = {event_type.model_fields["kind"].default: event_type for event_type in types}
    for entry in entries:
        if (event_type := wanted.get(entry.kind)) is not None:
            yield entry, _parse(entry, event_type)


def _parse(entry: Entry, event_type: type[E]) -> E:
    try:
        return event_type.model_validate({**entry.body, "kind": entry.kind})
    except ValidationError as error:
        fault = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, fault["loc"])) or "fields"
        raise _malformed(entry, f"{field}: {fault['msg']}") from error
    except InputError as error:  # of a digest
        raise _malformed(entry, str(error)) from error


def _malformed(entry: Entry, fault: str) -> VerificationError:
    return broken(f"entry {entry.position} ({entry.kind!r}) has a malformed body: {fault}")
