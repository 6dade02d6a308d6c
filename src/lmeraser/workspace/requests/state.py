"""Deletion requests: what is asked, until when it is due, how far it is, and what may follow what.

    pending ──> in_progress ──> completed
       │          │    ▲
       ▼          ▼    │
    cancelled    failed

Rules:
- a request is accepted (pending) only if every name in it is known; nothing is deleted yet;
- pending -> cancelled: nothing was deleted, and the names that it selected are forgotten;
- pending -> in_progress: its records go, and the names that it selected, in the same transaction;
- in_progress -> completed: a model without the records is served, what came from them is purged, and the
  certificate is written;
- in_progress -> failed: the audit that it asked for found a difference; there is no certificate;
- failed -> in_progress: it is carried out again;
- nothing leaves completed and cancelled.

Pure values and rules; `requests` keeps them in the database.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, get_args

from lmeraser.core.digests import Digest
from lmeraser.core.time import from_text, to_text
from lmeraser.errors import InputError

Regulation = Literal["gdpr", "ccpa", "other"]
State = Literal["pending", "in_progress", "completed", "cancelled", "failed"]

_LAWFUL: dict[State, tuple[State, ...]] = {
    "pending": ("in_progress", "cancelled"),
    "in_progress": ("completed", "failed"),
    "failed": ("in_progress",),
    "completed": (),
    "cancelled": (),
}


@dataclass(frozen=True)
class ModelSnapshot:
    """The served model when a request's records went, as far as its certificate and the quarantine need it.

    Attributes:
        model: its digest.
        generation: its number.
        partition: key of its partition.
        artifacts: digests of all its artifacts.
        clusters: numbers of the clusters that held the records.
    """

    model: Digest
    generation: int
    partition: Digest
    artifacts: tuple[Digest, ...]
    clusters: tuple[int, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values, with plain strings."""
        return json.loads(json.dumps(self.__dict__))  # type: ignore[no-any-return]

    @classmethod
    def of_json(cls, values: Any) -> ModelSnapshot:
        """From what `to_json` gave."""
        artifacts = tuple(Digest(artifact) for artifact in values["artifacts"])
        model, partition = Digest(values["model"]), Digest(values["partition"])
        return cls(model, int(values["generation"]), partition, artifacts, tuple(values["clusters"]))


@dataclass(frozen=True)
class Request:
    """One deletion request.

    Attributes:
        id: a UUID.
        regulation: which law it appeals to.
        state: how far it is.
        received: when it came, RFC 3339 in UTC.
        due: when the answer is due.
        changed: when its state last changed.
        names: how many record ids and subjects it named.
        audit: whether the model is to be audited before it is completed.
        records: how many records it deleted; None before.
        already_deleted: how many of its names had been deleted before.
        before: the model that its records went out of.
        reason: why it failed.
        certificate: digest of its certificate's payload.
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

    @property
    def open(self) -> bool:
        """Whether it still has to be carried out."""
        return self.state in ("pending", "in_progress", "failed")

    def to_json(self, now: datetime) -> dict[str, object]:
        """The request as JSON values, with its age and the time left; it names no record."""
        hidden = {"before"}
        values = {name: value for name, value in self.__dict__.items() if name not in hidden}
        ended = now if self.open else from_text(self.changed)
        return {
            **values,
            "age_seconds": int((ended - from_text(self.received)).total_seconds()),
            "seconds_left": int((from_text(self.due) - now).total_seconds()) if self.open else None,
        }


@dataclass(frozen=True)
class RequestDraft:
    """What somebody asks for.

    Attributes:
        ids: record ids.
        subjects: people whose records all go.
        request: the request's UUID; None: a new one.
        regulation: which law it appeals to.
        received: when it came; None: now.
        audit: audit the model before the request is completed.
        since: when the period for the answer began, if that was before it came.
    """

    ids: Sequence[str] = ()
    subjects: Sequence[str] = ()
    request: str | None = None
    regulation: Regulation = "other"
    received: datetime | None = None
    audit: bool = False
    since: datetime | None = None


def transition(request: Request, state: State, *, now: datetime, **changes: Any) -> Request:
    """The request in its next state.

    Raises:
        InputError: nothing lawful leads there.
    """
    lawful = _LAWFUL[request.state]
    if state not in lawful:
        raise InputError(
            f"A request that is {request.state} becomes {' or '.join(lawful) or 'nothing else'}.",
            got=f"{request.id}: {state}",
            next_step="'lmeraser requests' shows how far it is",
        )
    return replace(request, state=state, changed=to_text(now), **changes)


def regulation(name: str) -> Regulation:
    """The regulation of this name.

    Raises:
        InputError: there is none.
    """
    known: tuple[Regulation, ...] = get_args(Regulation)
    for one in known:
        if one == name:
            return one
    raise InputError(f"A regulation is one of {', '.join(known)}.", got=repr(name))


def parse_id(text: str) -> str:
    """A request id in its canonical form.

    Raises:
        InputError: it is no UUID.
    """
    try:
        return str(uuid.UUID(text))
    except ValueError as error:
        raise InputError(
            "A request's id is a UUID.",
            got=repr(text),
            next_step="'lmeraser requests' lists them; for a new request, leave it out to have one made",
        ) from error


def draft_of(
    ids: Iterable[str],
    subjects: Iterable[str],
    request: str | None,
    regulation: Regulation,
    received: datetime | None,
    audit: bool,
) -> RequestDraft | None:
    """What these arguments ask for; None if they name nothing."""
    wanted, people = sorted(set(ids)), sorted(set(subjects))
    if not wanted and not people:
        return None
    return RequestDraft(wanted, people, request, regulation, received, audit)
