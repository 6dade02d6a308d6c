"""Quarantine: what predictions do not use between the acceptance of a deletion and its completion.

Clusters that hold the records are not used. A global head is solved again from the statistics without them, which
takes a moment and changes nothing on disk. Imports numpy only where there is a head to solve.
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

_TRIES = 3  # at reading the served generation before giving up


@dataclass(frozen=True)
class Quarantine:
    """What predictions do not use, and what they use instead.

    Attributes:
        clusters: numbers of quarantined clusters of the served model.
        without_head: whether the model's own global head is quarantined.
        global_head: used instead of the model's own; None: none.
    """

    clusters: frozenset[int] = frozenset()
    without_head: bool = False
    global_head: Mapping[str, Array] | None = None


NOTHING = Quarantine()


@dataclass(frozen=True)
class QuarantineScope:
    """The clusters and records in quarantine; equal scopes lead to equal predictions of one model.

    Attributes:
        clusters: that hold records whose deletion was accepted and is not completed.
        records: ids of those that the sufficient statistics still include.
    """

    clusters: frozenset[int] = frozenset()
    records: tuple[str, ...] = ()


def current_scope(workspace: Workspace, model: Model) -> QuarantineScope:
    """What has to be in quarantine now for predictions of ``model``."""
    if not workspace.config.requests.quarantine:
        return QuarantineScope()
    # Read first: a request that moves on meanwhile is found below, by the clusters in its snapshot.
    pending = workspace.requests.pending_selection().ids
    trie_keys = workspace.records.derived.trie_keys(model.partition.key, pending)
    numbers = set(model.cluster_numbers(trie_keys).values())
    snapshots = [request.before for request in workspace.requests.all("in_progress", "failed")]
    if any(snapshots):
        digest = model.model_digest  # once: it takes milliseconds, and nothing may keep it with the model
        numbers.update(*(before.clusters for before in snapshots if before is not None and before.model == digest))
    return QuarantineScope(model.with_jointly_tuned(numbers), pending)


def quarantine(workspace: Workspace, model: Model, scope: QuarantineScope | None = None) -> Quarantine:
    """What predictions of ``model`` do not use, and what they use instead.

    Args:
        workspace: where the records are.
        model: the served one.
        scope: from `current_scope`; None: as it is now.

    Raises:
        NoModelError: the deletion of every record was accepted.
    """
    scope = scope if scope is not None else current_scope(workspace, model)
    if not scope.clusters or model.global_head is None or model.embedding_key is None:
        return Quarantine(scope.clusters)
    from lmeraser.models.global_head import global_head

    statistics = workspace.records.statistics.without(scope.records, key=model.embedding_key)
    if statistics is None:  # an interrupted training has begun to compute them under other settings
        return Quarantine(scope.clusters, without_head=True)
    if not any(statistics.records_by_class):
        raise NoModelError(
            "All records are in quarantine",
            got="the deletion of every record was accepted",
            next_step="carry the requests out with 'lmeraser unlearn'",
        )
    weight = global_head(statistics, model.config().global_head)["weight"]
    own = {"weight": weight[: len(model.classes)]}  # classes may have been added since
    return Quarantine(scope.clusters, without_head=True, global_head=own)


def with_served(workspace: Workspace, build: Callable[[Model, Quarantine], T]) -> T:
    """Build something from the served model's artifacts and its quarantine.

    Args:
        workspace: what to read.
        build: called with both; again with a newer generation if an artifact disappears meanwhile.

    Raises:
        NoModelError: there is nothing to predict with.
        CorruptError: an artifact is missing or damaged.
    """
    for _ in range(_TRIES):
        model = workspace.generations.require()
        try:
            return build(model, quarantine(workspace, model))
        except FileNotFoundError as error:
            missing = error.filename or error  # a writer may have published and purged meanwhile: try again
    raise CorruptError(
        "Artifacts of the served model are missing",
        got=f"no {missing}",
        next_step="run 'lmeraser train', which derives them again",
    )
