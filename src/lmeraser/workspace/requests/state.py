"""Deletion requests: what is known of one, and the states that it goes through.

    pending ──> in_progress ──> completed
       │          │    ▲
       ▼          ▼    │
    cancelled    failed

Rules:
- a request is accepted (pending) only if every name in it is known; nothing is deleted yet;
- pending -> cancelled: nothing was deleted, and the names that it selected are forgotten;
- pending -> in_progress: its records are deleted, and the names that it selected, in the same transaction;
- in_progress -> completed: a model without the records is served, what came from them is purged, and the
  certificate is written;
- in_progress -> failed: the audit that it asked for found a difference; there is no certificate;
- failed -> in_progress: it is carried out again;
- completed and cancelled are final;
- a request can be taken back until its records are deleted; the service leaves a grace period for it, at whose end
  (`Request.starts`) the request may be carried out;
- the time for the answer can be extended once, while the request is open and not late.

Pure values and rules; `repository` stores them.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Literal, TypeVar, get_args

from lmeraser.core.digests import Digest
from lmeraser.core.time import from_text, to_text
from lmeraser.errors import InputError
from lmeraser.evidence.reconcile import RequestOnRecord

R = TypeVar("R")
Regulation = Literal["gdpr", "ccpa", "other"]
State = Literal["pending", "in_progress", "completed", "cancelled", "failed"]

# Reasons are words of a list, not free text: the ledger keeps them for ever, and free text may name a person.
ExtensionReason = Literal["complexity", "number", "other"]
CancellationReason = Literal["withdrawn", "unverified", "mistake", "other"]

OPEN_STATES: tuple[State, ...] = ("pending", "in_progress", "failed")  # still to be carried out
_TRANSITIONS: dict[State, tuple[State, ...]] = {
    "pending": ("in_progress", "cancelled"),
    "in_progress": ("completed", "failed"),
    "failed": ("in_progress",),
    "completed": (),
    "cancelled": (),
}


@dataclass(frozen=True)
class ModelSnapshot:
    """The model that was served when a request's records were deleted, for its certificate and the quarantine.

    Attributes:
        model: its digest.
        manifest: its public digest; None in rows of before 0.2.
        generation: its number.
        partition: key of its partition.
        artifacts: digests of all its artifacts; none if it has many, whose manifest is kept instead until the
            request is completed.
        clusters: numbers of the clusters that held the records.
    """

    model: Digest
    generation: int
    partition: Digest
    artifacts: tuple[Digest, ...]
    clusters: tuple[int, ...]
    manifest: Digest | None = None

    @property
    def public_digest(self) -> Digest:
        """What ledger and certificates call it (`Model.public_digest`)."""
        return self.manifest or self.model

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with plain strings."""
        values: dict[str, Any] = json.loads(json.dumps(self.__dict__))
        return values

    @classmethod
    def of_json(cls, values: Any) -> ModelSnapshot:
        """From what `to_json` gave."""
        return cls(
            model=Digest(values["model"]),
            generation=int(values["generation"]),
            partition=Digest(values["partition"]),
            artifacts=tuple(Digest(artifact) for artifact in values["artifacts"]),
            clusters=tuple(values["clusters"]),
            manifest=Digest(values["manifest"]) if values.get("manifest") else None,
        )


@dataclass(frozen=True)
class Request:
    """One deletion request.

    The attributes are the columns of its row, and the keys of its JSON.

    Attributes:
        id: a UUID.
        regulation: the law that it invokes.
        state: where it stands.
        received: when it was received, RFC 3339 in UTC.
        due: when the answer is due.
        changed: when its state last changed.
        names: how many record ids and subjects it named.
        audit: whether the model is audited before it is completed.
        records: how many records it deleted; None until it is in progress.
        already_deleted: how many of its names had been deleted before.
        before: the model that was served when its records were deleted.
        reason: why it failed.
        certificate: digest of its certificate's payload.
        asked: when the person asked, from when the period for the answer counts; None: not recorded (before 0.2).
        duplicates: how many records were still held with the payload of a deleted one when its records were
            deleted; None until then, or not counted.
        near_duplicates: the same for records that are nearly alike (`unlearning.duplicates`).
        starts: from when the service may carry it out; None: from acceptance on (before 0.2).
        filed_by: id of the API key that filed it; None: a command.
        extended: when the time for the answer was extended; None: it was not.
        extension_reason: why.
        cancel_reason: why it was cancelled, if that was said.
    """

    id: str
    regulation: Regulation
    state: State
    received: str
    due: str
    changed: str
    names: int
    audit: bool
    records: int | None = None
    already_deleted: int | None = None
    before: ModelSnapshot | None = None
    reason: str | None = None
    certificate: Digest | None = None
    asked: str | None = None
    duplicates: int | None = None
    near_duplicates: int | None = None
    starts: str | None = None
    filed_by: str | None = None
    extended: str | None = None
    extension_reason: ExtensionReason | None = None
    cancel_reason: CancellationReason | None = None

    @property
    def open(self) -> bool:
        """Whether it still has to be carried out."""
        return self.state in OPEN_STATES

    def late(self, now: datetime) -> bool:
        """Whether its due time had passed when it was completed or, if it is open, has passed by now."""
        if self.state == "cancelled":
            return False
        return from_text(self.due) < (now if self.open else from_text(self.changed))

    def days_late(self, now: datetime) -> int | None:
        """Days, begun ones included, from the due time to completion or, if it is open, to now.

        0: it was completed in time, or is not due yet; None: it was cancelled.
        """
        if self.state == "cancelled":
            return None
        ended = now if self.open else from_text(self.changed)
        return max(0, -((from_text(self.due) - ended) // timedelta(days=1)))

    def seconds_to_start(self, now: datetime) -> int:
        """Seconds of the grace period that are left, in which it can be taken back; 0: it is over."""
        return seconds_until(self.starts, now) if self.state == "pending" else 0

    def on_record(self) -> RequestOnRecord:
        """What the ledger has to record of it, too."""
        values = (self.regulation, self.received, self.due, self.names, self.certificate)
        return RequestOnRecord(self.state, *values)

    def to_json(self, now: datetime) -> dict[str, object]:
        """The request as JSON values, with its age and the time left; it names no record."""
        hidden = {"before"}
        values = {name: value for name, value in self.__dict__.items() if name not in hidden}
        ended = now if self.open else from_text(self.changed)
        return {
            **values,
            "age_seconds": int((ended - from_text(self.received)).total_seconds()),
            "seconds_left": int((from_text(self.due) - now).total_seconds()) if self.open else None,
            "late": self.late(now),
            "days_late": self.days_late(now),
            "seconds_to_start": self.seconds_to_start(now),
        }


Urgency = Literal["past", "near", "later"]
_NEAR = timedelta(days=7)


def urgency(due: datetime, now: datetime) -> Urgency:
    """Whether a due time is past, near (within seven days), or later."""
    return "past" if due < now else "near" if due - now <= _NEAR else "later"


def seconds_until(starts: str | None, now: datetime) -> int:
    """Whole seconds until a request may be carried out; nothing, or '': it never had to wait."""
    return max(0, int((from_text(starts) - now).total_seconds())) if starts else 0


def transition(request: Request, state: State, *, now: datetime, **changes: Any) -> Request:
    """The request in its next state.

    Args:
        request: as it is.
        state: the next state.
        now: the time.
        **changes: other attributes that change with the state.

    Raises:
        InputError: the rules do not allow it.
    """
    possible = _TRANSITIONS[request.state]
    if state not in possible:
        raise InputError(
            "Request is not in a state that allows this",
            got=f"{request.id}: from {request.state} to {state} (possible: {' or '.join(possible) or 'none'})",
            next_step="'lmeraser requests' lists requests with their states",
        )
    return replace(request, state=state, changed=to_text(now), **changes)


def parse_regulation(name: str) -> Regulation:
    """The regulation of this name, in upper or lower case.

    Raises:
        InputError: there is none.
    """
    known: tuple[Regulation, ...] = get_args(Regulation)
    for one in known:
        if one == name.lower():
            return one
    raise InputError("Unknown regulation", got=f"{name!r} (there are: {', '.join(known)})", next_step="name one")


def parse_extension_reason(name: str, regulation: Regulation) -> ExtensionReason:
    """The reason of this name.

    Raises:
        InputError: there is none, or the law does not know it: Article 12(3) GDPR names two.
    """
    known: tuple[ExtensionReason, ...] = get_args(ExtensionReason)
    return _parse_reason(name, known[:2] if regulation == "gdpr" else known, "an extension")


def parse_cancellation_reason(name: str) -> CancellationReason:
    """The reason of this name. Raises `InputError` if there is none."""
    known: tuple[CancellationReason, ...] = get_args(CancellationReason)
    return _parse_reason(name, known, "a cancellation")


def _parse_reason(name: str, known: Sequence[R], what: str) -> R:
    for one in known:
        if one == name:
            return one
    there_are = ", ".join(map(str, known))
    raise InputError(f"Unknown reason of {what}", got=f"{name!r} (there are: {there_are})", next_step="name one")


def parse_id(text: str) -> str:
    """A request id in its canonical form.

    Raises:
        InputError: it is not a UUID.
    """
    try:
        return str(uuid.UUID(str(text)))
    except ValueError as error:
        raise InputError(
            "Request id is not a UUID",
            got=repr(text),
            next_step="'lmeraser requests' lists them; for a new request, leave it out to have one made",
        ) from error
