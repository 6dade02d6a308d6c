"""Status of a workspace: what it holds, and what a deletion costs there; computed without torch.

The cost is that of `models.partitions.cost`, sample hits included, as in every other report.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from lmeraser.core.digests import Digest
from lmeraser.models.manifest import Model
from lmeraser.models.partitions.cost import cost_of
from lmeraser.workspace.freshness import up_to_date
from lmeraser.workspace.requests.state import Request
from lmeraser.workspace.workspace import Workspace


@dataclass(frozen=True)
class Status:
    """The state of a workspace.

    Attributes:
        records: private records held now.
        subjects: different people they are about.
        classes: class names.
        generation: served generation; None before the first training, as are the following.
        model_digest: of the served model.
        manifest_digest: of its manifest, by which ledger and certificates name it; before 0.2 the model's digest.
        parent: the same of the generation before it.
        up_to_date: whether the served model was derived from the records and settings held now.
        clusters: clusters with members.
        largest_cluster: records in the largest.
        expected_share: of the records, tuned again by one uniform request; a hit of the sample counts as all.
        p50: median of the records tuned again by one uniform request.
        p95: 95th percentile.
        max: the maximum.
        sample_hit_probability: of one uniform request; `cost` simulates what a hit costs on this partition.
        fitted_on: the records that the partition is fitted on.
        constituents: what is tuned for each cluster.
        global_head: weight of the global head in a prediction.
        backbone: the frozen network's name.
        fingerprint: the environment that the model was derived in; None if there were several.
        fingerprints: of all these environments.
        open_requests: deletion requests that are neither completed nor cancelled.
        next_due: when the first of their answers is due, RFC 3339 in UTC.
        unfinished: what was interrupted, or is being done right now: what of it is done, and what is left.
        compaction_due: whether the database has to be compacted, because its free pages may hold rows of deleted
            records (which cannot be decrypted any more).
    """

    records: int
    subjects: int
    classes: tuple[str, ...]
    generation: int | None
    model_digest: Digest | None
    manifest_digest: Digest | None
    parent: Digest | None
    up_to_date: bool
    clusters: int
    largest_cluster: int
    expected_share: float
    p50: int
    p95: int
    max: int
    sample_hit_probability: float
    fitted_on: str
    constituents: str
    global_head: float
    backbone: str
    fingerprint: Digest | None
    fingerprints: tuple[Digest, ...]
    open_requests: int
    next_due: str | None
    unfinished: tuple[str, ...]
    compaction_due: bool

    def to_json(self) -> dict[str, object]:
        """The status as JSON values; the key ``rewriting_due`` is deprecated (now ``compaction_due``)."""
        return {**asdict(self), "rewriting_due": self.compaction_due}


def status(workspace: Workspace) -> Status:
    """Compute the status of a workspace."""
    model = workspace.generations.current()
    open_requests = [request for request in workspace.requests.all() if request.open]
    fingerprints = model.fingerprints if model else ()
    cost = model.cost if model else cost_of({}, None)
    return Status(
        records=workspace.records.count(),
        subjects=workspace.records.count_subjects(),
        classes=workspace.records.classes,
        generation=model.generation if model else None,
        model_digest=model.model_digest if model else None,
        manifest_digest=model.public_digest if model else None,
        parent=(model.previous or model.parent) if model else None,
        up_to_date=model is not None and up_to_date(workspace, model),
        clusters=cost.clusters,
        largest_cluster=cost.largest_cluster,
        expected_share=cost.expected_share,
        p50=cost.p50,
        p95=cost.p95,
        max=cost.max,
        sample_hit_probability=cost.sample_hit_probability,
        fitted_on=workspace.config.partition.fitted_on,
        constituents=workspace.config.constituent.kind,
        global_head=workspace.config.global_head.weight,
        backbone=workspace.config.backbone.name,
        fingerprint=fingerprints[0] if len(fingerprints) == 1 else None,
        fingerprints=fingerprints,
        open_requests=len(open_requests),
        next_due=open_requests[0].due if open_requests else None,
        unfinished=tuple(_unfinished(workspace, model, open_requests)),
        compaction_due=workspace.database.compaction_due,
    )


def _unfinished(workspace: Workspace, model: Model | None, requests: Sequence[Request]) -> Iterator[str]:
    """Deletions and trainings that have begun and not ended: what is done, and what is left."""
    current = model is not None and up_to_date(workspace, model)
    if begun := sum(request.state == "in_progress" for request in requests):
        which = "1 request" if begun == 1 else f"{begun} requests"
        if current or model is None:
            left = "left: purge and certificates"
        else:
            left = "left: the model without them, purge and certificates"
        yield f"{which} in progress: the records are deleted; {left}"
    if failed := sum(request.state == "failed" for request in requests):
        yield f"{failed} failed: the records are deleted and the model is served; left: an audit that agrees"
    if current:
        return
    records, embedded = workspace.records.count(), workspace.records.statistics.count()
    known = {f"{result.key.hex}.json" for result in model.stages.values()} if model is not None else set()
    entries = (name for *_, names in os.walk(workspace.layout.memo) for name in names if name.endswith(".json"))
    stages = sum(name not in known for name in entries)  # of perhaps a hundred thousand
    if stages or 0 < embedded < records or (embedded and model is None):
        parts = [f"{embedded} of {records} records embedded"] if workspace.config.needs_statistics else []
        parts += [f"{stages} stages finished"] if stages else []
        yield f"training: {', '.join(parts)}; left: the rest, and the new generation"
