"""What is noted of a request when its derivation begins: counts, duplicates that it leaves, a model snapshot."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime

from sqlalchemy import Connection

from lmeraser.data.records import Records
from lmeraser.models.manifest import Model
from lmeraser.workspace.requests.selection import Selection
from lmeraser.workspace.requests.state import ModelSnapshot, Request, transition


def begin_again(request: Request, *, audit: bool, now: datetime) -> Request:
    """A request whose records were deleted when it began before, in progress again."""
    return transition(request, "in_progress", now=now, reason=None, audit=request.audit or audit)


def begin_first(
    request: Request,
    selection: Selection,
    snapshot: ModelSnapshot | None,
    *,
    duplicates: frozenset[str] | None,
    near_duplicates: int | None,
    audit: bool,
    now: datetime,
) -> Request:
    """A pending request in progress.

    Args:
        request: the pending one.
        selection: the records that it deletes.
        snapshot: of the served model; None: nothing is trained yet.
        duplicates: the records that it leaves with the payload of one of its own; None: not known.
        near_duplicates: how many near duplicates it leaves; None: not counted.
        audit: audit the model before it is completed, even if it did not ask for it.
        now: the time.
    """
    return transition(
        request,
        "in_progress",
        now=now,
        audit=request.audit or audit,
        before=snapshot,
        records=len(selection.ids),
        already_deleted=len(selection.already_deleted),
        duplicates=None if duplicates is None else len(duplicates),
        near_duplicates=near_duplicates,
    )


def model_snapshots(
    records: Records, model: Model | None, ids: Sequence[str]
) -> Callable[[Selection], ModelSnapshot | None]:
    """Takes the snapshot of the model for each of several requests, which together select ``ids``."""
    if model is None:
        return lambda _: None
    numbers = model.cluster_numbers(records.derived.trie_keys(model.partition.key, ids))
    stages = () if model.pages else model.stages.values()  # else its manifest is kept: `ModelSnapshot`
    artifacts = tuple(result.artifact for result in stages)
    common = ModelSnapshot(
        model.model_digest, model.generation, model.partition.key, artifacts, (), model.public_digest
    )

    def snapshot(selection: Selection) -> ModelSnapshot:
        clusters = {numbers[record_id] for record_id in selection.ids if record_id in numbers}
        return replace(common, clusters=tuple(sorted(clusters)))

    return snapshot


def duplicates_left(
    records: Records, connection: Connection, selections: Mapping[str, Selection], ids: Sequence[str]
) -> dict[str, frozenset[str]]:
    """The records left with the payloads of each of several requests, which together delete ``ids``.

    Without requests whose records are gone: what they held is not known any more.
    """
    duplicates = records.duplicates(ids, connection)
    return {
        request_id: frozenset().union(*(duplicates.get(i, ()) for i in selection.ids)).difference(ids)
        for request_id, selection in selections.items()
        if selection.ids
    }
