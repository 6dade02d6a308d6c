"""What is held of a person or a record, and lists of people and records, for a privacy desk.

A person is found by any spelling that a deletion request would find, and names that look alike are shown beside
it, so that what is named is what is meant. Requests that were carried out no longer tell whom they were about, and
are therefore never shown here; that a name was deleted before is known from the suppression list.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

from lmeraser.data.canonical_names import canonical_or_none, near_key
from lmeraser.data.name_lookup import NameKind, NearMiss
from lmeraser.data.records import HeldRecord
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class RecordLine:
    """A record in a list.

    Attributes:
        id: its id.
        subject: the person it is about, as its source spells the name; None: nobody was named.
        label: its class.
        added: when it was imported, or given its label, RFC 3339 in UTC.
        requests: ids of the open requests that select it.
    """

    id: str
    subject: str | None
    label: str
    added: str
    requests: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubjectLine:
    """A person in a list.

    Attributes:
        subject: the name, as one of the sources spells it.
        records: how many records are about the person.
        labels: how many of them have each class.
        first: when the first of them was imported.
        last: when the last of them was.
        requests: ids of the open requests that select one of them.
    """

    subject: str
    records: int
    labels: dict[str, int]
    first: str
    last: str
    requests: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holdings:
    """What is held under a name.

    Attributes:
        kind: whether the name is a subject or a record id.
        given: the name, as it was given.
        names: the names that it means, as they are held; none: nothing is held under it.
        deleted_before: whether a request erased this name here before.
        records: its records.
        labels: how many of them have each class.
        days: how many of them were imported on each day.
        duplicates: ids of other records that hold the same payload as one of them, byte for byte.
        near_misses: names that are held and look like it, but are others.
        requests: the open requests that select one of its records.
    """

    kind: NameKind
    given: str
    names: tuple[str, ...]
    deleted_before: bool
    records: tuple[RecordLine, ...] = ()
    labels: dict[str, int] | None = None
    days: dict[str, int] | None = None
    duplicates: tuple[str, ...] = ()
    near_misses: tuple[NearMiss, ...] = ()
    requests: tuple[Request, ...] = ()

    def to_json(self) -> dict[str, object]:
        """The holdings as JSON values; requests by their ids."""
        return {**asdict(self), "requests": [request.id for request in self.requests]}


def find(workspace: Workspace, kind: NameKind, name: str) -> Holdings:
    """What is held of a person, or under a record id, however it is spelled."""
    records = workspace.records
    names = records.names.matches(kind, [name]).get(name, ())
    ids = names if kind == "id" else [each for of_one in records.of_subjects(names).values() for each in of_one]
    pending = open_selections(workspace)
    lines = tuple(_lines(workspace, records.held(ids), pending))
    duplicates = set().union(*records.duplicates(ids).values()) - set(ids)
    selecting = {request for line in lines for request in line.requests}
    return Holdings(
        kind=kind,
        given=name,
        names=tuple(names),
        deleted_before=bool(records.suppression.deleted("record" if kind == "id" else "subject", [name])),
        records=lines,
        labels=_count(line.label for line in lines),
        days=_count(line.added[:10] for line in lines),
        duplicates=tuple(sorted(duplicates)),
        near_misses=tuple(records.names.near_misses(kind, [name], meant=names)),
        requests=tuple(request for request in workspace.requests.all("pending") if request.id in selecting),
    )


def list_records(
    workspace: Workspace, *, subject: str | None = None, label: str | None = None, search: str = ""
) -> list[RecordLine]:
    """The records held, sorted by id.

    Args:
        workspace: whose records.
        subject: only those about this person, however the name is spelled.
        label: only those of this class.
        search: only those whose id or subject contains this, whatever its case, accents and spaces.
    """
    ids = None if subject is None else [line.id for line in find(workspace, "subject", subject).records]
    key = near_key(search) if search else ""
    lines = _lines(workspace, workspace.records.held(ids), open_selections(workspace))
    return [
        line
        for line in lines
        if (label is None or line.label == label)
        and (not key or any(key in near_key(name) for name in (line.id, line.subject or "")))
    ]


def list_subjects(workspace: Workspace, *, search: str = "") -> list[SubjectLine]:
    """The people of whom records are held, sorted by name.

    Args:
        workspace: whose people.
        search: only those whose name contains this, whatever its case, accents and spaces.
    """
    key = near_key(search) if search else ""
    by_subject: dict[str, list[RecordLine]] = {}
    for line in _lines(workspace, workspace.records.held(), open_selections(workspace)):
        if line.subject is not None and (not key or key in near_key(line.subject)):
            by_subject.setdefault(canonical_or_none(line.subject) or line.subject, []).append(line)
    return [
        SubjectLine(
            subject=lines[0].subject or subject,
            records=len(lines),
            labels=_count(line.label for line in lines),
            first=min(line.added for line in lines),
            last=max(line.added for line in lines),
            requests=tuple(sorted({request for line in lines for request in line.requests})),
        )
        for subject, lines in sorted(by_subject.items())
    ]


def open_selections(workspace: Workspace) -> dict[str, tuple[str, ...]]:
    """The ids of the pending requests that select each record, by the record's id."""
    requests = workspace.requests.all("pending")
    selecting: dict[str, list[str]] = {}
    for request, selection in zip(requests, workspace.requests.selections(requests), strict=True):
        for record_id in selection.ids:
            selecting.setdefault(record_id, []).append(request.id)
    return {record_id: tuple(ids) for record_id, ids in selecting.items()}


def _lines(
    workspace: Workspace, records: Sequence[HeldRecord], pending: dict[str, tuple[str, ...]]
) -> list[RecordLine]:
    classes = workspace.records.classes
    times = {entry.position: entry.time for entry in workspace.ledger.entries()} if records else {}
    return [
        RecordLine(
            id=record.id,
            subject=record.subject,
            label=classes[record.label],
            added=times.get(record.entry, ""),
            requests=pending.get(record.id, ()),
        )
        for record in records
    ]


def _count(values: Iterable[str]) -> dict[str, int]:
    return dict(sorted(Counter(values).items()))
