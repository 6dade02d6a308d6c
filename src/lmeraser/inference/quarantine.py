"""Quarantine: what predictions leave out between the acceptance of a deletion and its end.

Clusters that hold the records are not asked. A global head is solved again from the sums without them, which takes
a moment and changes nothing on disk. Follows `requests` and `counted`; imports numpy only where there is a head to
solve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from lmeraser.errors import CorruptError, NoModelError
from lmeraser.models.manifest import Model
from lmeraser.workspace.workspace import Workspace

if TYPE_CHECKING:
    from lmeraser.core.tensors import Array

T = TypeVar("T")

_TRIES = 3  # times a reader looks for the served generation before it gives up


@dataclass(frozen=True)
class Quarantine:
    """What predictions leave out.

    Attributes:
        clusters: numbers of clusters of the served model that are not asked.
        without_head: whether the model's own global head is not asked either.
        global_head: what is asked instead; None: nothing.
    """

    clusters: frozenset[int] = frozenset()
    without_head: bool = False
    global_head: Mapping[str, Array] | None = None


NOTHING = Quarantine()


@dataclass(frozen=True)
class QuarantineScope:
    """What is to be left out of one model; equal values are left out in the same way.

    Attributes:
        clusters: that hold records whose deletion was accepted and is not completed.
        records: ids of those that are still counted in the sums.
    """

    clusters: frozenset[int] = frozenset()
    records: tuple[str, ...] = ()


def waiting(workspace: Workspace, model: Model) -> QuarantineScope:
    """What predictions with ``model`` have to leave out now."""
    if not workspace.config.requests.quarantine:
        return QuarantineScope()
    pending = workspace.requests.pending().ids  # first: what begins meanwhile is found by its clusters
    numbers = set(model.cluster_numbers(workspace.records.trie_keys(model.partition.key, pending)).values())
    for request in workspace.requests.all("in_progress", "failed"):
        if request.before is not None and request.before.model == model.model_digest:
            numbers.update(request.before.clusters)
    return QuarantineScope(model.with_jointly_tuned(numbers), pending)


def quarantine(workspace: Workspace, model: Model, found: QuarantineScope | None = None) -> Quarantine:
    """How predictions with ``model`` leave out what they have to.

    Args:
        workspace: where the records are.
        model: the served one.
        found: what `waiting` gave; None: as it is now.

    Raises:
        NoModelError: every record's deletion was accepted.
    """
    found = found if found is not None else waiting(workspace, model)
    if not found.clusters or model.global_head is None or model.code_key is None:
        return Quarantine(found.clusters)
    from lmeraser.core.lda import solve

    sums = workspace.records.statistics.sums_without(found.records, key=model.code_key)
    if sums is None:  # an interrupted training has begun to count under other settings
        return Quarantine(found.clusters, without_head=True)
    if not any(sums.records_by_class):
        raise NoModelError(
            "A prediction needs records that are not quarantined.",
            got="the deletion of every record was accepted",
            next_step="carry the requests out with 'lmeraser unlearn'",
        )
    head = solve(sums, model.config().global_head.penalty)["weight"]
    known = {"weight": head[: len(model.classes)]}  # classes may have been added since
    return Quarantine(found.clusters, without_head=True, global_head=known)


def with_served(workspace: Workspace, build: Callable[[Model, Quarantine], T]) -> T:
    """Build something from the served model's artifacts and what predictions leave out now.

    Raises:
        NoModelError: there is nothing to predict with.
        CorruptError: an artifact is missing or damaged.
    """
    for _ in range(_TRIES):
        model = workspace.generations.require()
        try:
            return build(model, quarantine(workspace, model))
        except FileNotFoundError as error:
            missing = error.filename or error  # a writer may have published and purged meanwhile: look again
    raise CorruptError(
        "The served model's artifacts are in the workspace.",
        got=f"{missing} is missing",
        next_step="run 'lmeraser train'; it will be derived again",
    )
