"""Quarantine: what predictions leave out between the acceptance of a deletion and its end.

Clusters that hold the records are not asked. A global head is solved again from the sums without them, which takes
a moment and changes nothing on disk. Follows `requests` and `counted`; imports numpy only where there is a head to
solve.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lmeraser.errors import NoModelError
from lmeraser.model import Model
from lmeraser.workspace import Workspace

if TYPE_CHECKING:
    from lmeraser.tensors import Array


@dataclass(frozen=True)
class Quarantine:
    """What predictions leave out.

    Attributes:
        clusters: numbers of clusters of the served model that are not asked.
        global_head: stands in for the model's own; None where that one may be used.
    """

    clusters: frozenset[int] = frozenset()
    global_head: Mapping[str, Array] | None = None


def quarantine(workspace: Workspace, model: Model) -> Quarantine:
    """What predictions with ``model`` leave out now.

    Raises:
        NoModelError: every record's deletion was accepted.
    """
    if not workspace.config.requests.quarantine:
        return Quarantine()
    clusters = workspace.requests.quarantined(model)
    if not clusters or model.global_head is None:
        return Quarantine(clusters)
    from lmeraser.discriminant import solve

    sums = workspace.records.counted.sums_without(workspace.requests.pending_records())
    if sums is None or not any(sums.records_by_class):
        raise NoModelError(
            "A prediction needs records that are not quarantined.",
            got="the deletion of every record was accepted",
            next_step="carry the requests out with 'lmeraser unlearn'",
        )
    return Quarantine(clusters, solve(sums.widened(len(model.classes)), model.config().global_head.penalty))
