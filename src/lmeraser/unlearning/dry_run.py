"""The dry run of a deletion: what would be deleted, what would be tuned again, and how long it would take.

Reads the workspace and changes nothing. A request that misses the clustering sample is answered from the trie keys
of the records. After a sample hit the partition is derived again, from stored features, so that the answer is
exact; only then are numerical modules imported, and the backbone is loaded only if a feature is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lmeraser.errors import NoModelError
from lmeraser.models.manifest import Model
from lmeraser.models.partitions.trie import affected_paths, group, group_below, is_under
from lmeraser.unlearning.plan import Plan, plan
from lmeraser.workspace.freshness import current_model
from lmeraser.workspace.holdings import open_selections
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.selection import near_misses, resolve
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace

if TYPE_CHECKING:
    from lmeraser.pipeline.executors.base import Executor


@dataclass(frozen=True)
class _Clusters:
    """Clusters before and after a deletion; those that keep their members may be missing.

    Attributes:
        before: number of each record's cluster.
        after: the same without the deleted records.
        removed: the deleted records, by the same names as in ``before``.
    """

    before: Mapping[str, int]
    after: Mapping[str, int]
    removed: set[str]


def dry_run(
    session: Session, selector: Selector, *, compute_features: bool = True, near_duplicates: bool = False
) -> Plan:
    """What `unlearn` would do with the same selector.

    Args:
        session: the workspace, which is only read, and what computes features that are not stored.
        selector: the records to delete.
        compute_features: whether features may be computed, which loads the backbone.
        near_duplicates: whether to count near duplicates, which reads all stored features and loads numpy.

    Raises:
        UnknownRecordError: the workspace never held some of the names; all of them are listed.
        NoModelError: there is no model, it is not up to date, or features are missing that may not be computed.
    """
    workspace = session.workspace
    selection = resolve(workspace.records, selector)
    model = current_model(workspace)
    removed = set(selection.ids)
    sample_hit = workspace.records.derived.any_sampled(model.partition.key, removed)
    if not model.tuned:
        clusters = _Clusters({}, {}, removed)
    elif sample_hit:
        after = _assigned_again(session, model, removed, compute_features)
        clusters = _Clusters(_served_numbers(workspace, model), after, removed)
    elif model.together:
        after = _regrouped(workspace, model, removed)
        clusters = _Clusters(_served_numbers(workspace, model), after, removed)
    else:
        clusters = _affected_clusters(workspace, model, removed)
    found = plan(
        model,
        clusters.before,
        clusters.after,
        clusters.removed,
        retained=model.records - len(removed),
        sample_hit=sample_hit,
        already_deleted=len(selection.already_deleted),
        speed=workspace.calibration.speed(workspace.config),
    )
    others = set().union(*workspace.records.duplicates(removed).values())
    return replace(
        found,
        duplicates=len(others - removed),
        near_duplicates=_count_near_duplicates(workspace, removed) if near_duplicates else None,
        duplicates_selected=len(selection.duplicates),
        near_misses=near_misses(workspace.records, selector),
        open_requests=_open_requests(workspace, removed),
        emptied_classes=_emptied_classes(workspace, removed),
    )


def _open_requests(workspace: Workspace, removed: set[str]) -> tuple[str, ...]:
    """The open requests that select one of these records, too."""
    selecting = open_selections(workspace)
    return tuple(sorted({request for record_id in removed for request in selecting.get(record_id, ())}))


def _emptied_classes(workspace: Workspace, removed: set[str]) -> tuple[str, ...]:
    """The names of the classes that lose their last record."""
    if not removed:
        return ()
    lost = {record.label for record in workspace.records.refs(removed)}
    left = workspace.records.labels_apart_from(removed, lost)
    classes = workspace.records.classes
    return tuple(classes[label] for label in sorted(lost - left))


def _count_near_duplicates(workspace: Workspace, ids: set[str]) -> int | None:
    """How many near duplicates of these records would be left; None if it cannot be told."""
    from lmeraser.unlearning.duplicates import near_duplicates

    return near_duplicates(workspace, {None: ids}).get(None)


def _served_numbers(workspace: Workspace, model: Model) -> dict[str, int]:
    """Number of the served cluster of every record."""
    return model.cluster_numbers(workspace.records.derived.trie_keys(model.partition.key))


def _affected_clusters(workspace: Workspace, model: Model, removed: set[str]) -> _Clusters:
    """The clusters under the paths that a request affects, with record numbers for names."""
    derived = workspace.records.derived
    key = model.partition.key
    limit = workspace.config.partition.max_records
    known = model.clusters.numbers
    removed_keys = derived.trie_keys(key, sorted(removed)).values()

    def count_after(path: str) -> int:
        return derived.count_under(key, path) - sum(is_under(trie_key, path) for trie_key in removed_keys)

    removed_numbers = derived.record_numbers(removed)
    before: dict[str, int] = {}
    groups_after: list[list[str]] = []
    for path in affected_paths(removed_keys, known, limit, count_after):
        trie_keys = derived.trie_keys_by_number(key, path)
        before |= model.cluster_numbers(trie_keys)
        retained = {n: trie_key for n, trie_key in trie_keys.items() if n not in removed_numbers}
        groups_after += group_below(path, retained, limit).values()
    after = {n: number for number, members in enumerate(groups_after) for n in members}
    return _Clusters(before, after, removed_numbers)


def _regrouped(workspace: Workspace, model: Model, removed: set[str]) -> dict[str, int]:
    """Cluster numbers of all other records under the served partition."""
    trie_keys = workspace.records.derived.trie_keys(model.partition.key)
    retained = {i: trie_key for i, trie_key in trie_keys.items() if i not in removed}
    groups = group(retained, workspace.config.partition.max_records)
    return {i: number for number, members in enumerate(groups.values()) for i in members}


def _assigned_again(
    session: Session, model: Model, removed: set[str], compute_features: bool
) -> Mapping[str, int]:
    """Cluster numbers of all other records under a partition that is fitted without the deleted ones."""
    from lmeraser.pipeline.derive import Inputs, Pipeline
    from lmeraser.pipeline.executors.deferred import DeferredExecutor
    from lmeraser.unlearning.context import temporary_context

    workspace = session.workspace
    retained = [record for record in workspace.records.index() if record.id not in removed]
    inputs = Inputs(retained, workspace.config, len(model.classes), model.backbone)

    def load() -> Executor:
        if not compute_features:
            raise NoModelError(
                "Features of some records are not stored", next_step="run 'lmeraser train', which computes them"
            )
        return session.executors.for_training()

    executor = DeferredExecutor(model.partition.fingerprint, model.backbone, load)
    context = temporary_context(session, features=workspace.records.derived)
    return Pipeline(inputs, replace(context, executor=lambda: executor)).assign_clusters().numbers()
