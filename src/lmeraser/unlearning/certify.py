"""Build the statement of a certificate from a request and the model that is served after it.

The format of statements belongs to `lmeraser.evidence.certificate`, which needs neither requests nor models: an
auditor verifies certificates without them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lmeraser._version import __version__
from lmeraser.core.time import to_text
from lmeraser.evidence import certificate
from lmeraser.evidence.hash_chain import LedgerHead
from lmeraser.models.manifest import Model, OwnParts
from lmeraser.workspace.requests.receipts import Receipt
from lmeraser.workspace.requests.state import ModelSnapshot, Request


def statement(
    request: Request,
    model: Model | None,
    *,
    environment: Mapping[str, Any] | None,
    audit: Mapping[str, Any] | None,
    head: LedgerHead,
    rewritten: bool,
    now: datetime,
    replaced: Replaced | None = None,
    controller: str | None = None,
    receipts: Sequence[Receipt] = (),
    copies_outside: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """The facts of a deletion, as JSON values.

    Args:
        request: in progress; holds a snapshot of the model before the deletion.
        model: the served generation; None if no model was ever trained.
        environment: the fields of the environment fingerprint, if the whole model was made in this environment.
        audit: the audit's report, if one was run.
        head: the head of the ledger.
        rewritten: whether the database was rewritten without the deleted rows.
        now: the time of completion.
        replaced: what differs between the model of the snapshot and the served one; None: it is found out from the
            artifacts that the snapshot lists.
        controller: who is responsible for the data, if a setting says so.
        receipts: of other systems, attached to the request.
        copies_outside: copies of the model with influence of erased records (`copies.recalled_copies`).
    """
    snapshot = request.before
    replaced = replaced or compare(snapshot, None, model)
    partition_changed = bool(snapshot and model and snapshot.partition != model.partition.key)
    database = certificate.DATABASE_REWRITTEN if rewritten else certificate.DATABASE_NOT_REWRITTEN
    facts = certificate.Statement(
        format=certificate.FORMAT,
        software=f"lmeraser {__version__}",
        controller=controller,
        request=certificate.RequestFacts(
            id=request.id,
            regulation=request.regulation,
            received=request.received,
            due=request.due,
            completed=to_text(now),
            asked=request.asked,
        ),
        counts=certificate.RecordCounts(
            records_deleted=request.records,
            names_already_deleted=request.already_deleted,
            records_retained=model.records if model else None,
            duplicates_held=request.duplicates,
            near_duplicates_held=request.near_duplicates,
        ),
        model=certificate.ModelFacts(
            digest_before=snapshot.public_digest if snapshot else None,
            digest_after=model.public_digest if model else None,
            generation=model.generation if model else None,
            clusters=len(model.clusters) if model else 0,
            partition_derived_again=partition_changed,
            clusters_tuned_again=replaced.clusters,
            global_head_derived_again=replaced.global_head,
            settings=model.settings_digest if model else None,
            backbone=model.backbone if model else None,
            fingerprints=list(model.fingerprints) if model else [],
        ),
        environment=dict(environment) if environment is not None else None,
        purged=certificate.PurgeFacts(
            artifacts=replaced.artifacts,
            generations_before=model.generation if model else 0,
            records_with_image_features_and_cluster=request.records,
            database=database,
        ),
        audit=_audit_facts(audit, model),
        receipts=[certificate.ReceiptFacts(system=each.system, digest=each.digest) for each in receipts],
        copies_outside=[certificate.CopyFacts.model_validate(copy) for copy in copies_outside],
        ledger=certificate.LedgerFacts(entries=head.entries, digest=head.digest),
        claim=certificate.claim(request.duplicates),
        not_covered=list(certificate.NOT_COVERED),
    )
    return facts.model_dump(mode="json", exclude=set() if copies_outside else {"copies_outside"})


@dataclass(frozen=True)
class Replaced:
    """What differs between the models before and after.

    Attributes:
        clusters: results of clusters that only the model after has.
        global_head: whether only the model after has its global head.
        artifacts: number of artifacts that only the model before had.
    """

    clusters: int = 0
    global_head: bool = False
    artifacts: int = 0


def compare(snapshot: ModelSnapshot | None, before: Model | None, after: Model | None) -> Replaced:
    """What differs between the model before a deletion and the one after it.

    Args:
        snapshot: of the model before; None: there was none.
        before: that model, where the snapshot does not list its artifacts and its manifest is still there; if that
            is gone, no cluster is counted as tuned again and no artifact as purged.
        after: the served model.
    """
    if snapshot is None or snapshot.artifacts:
        artifacts_before = set(snapshot.artifacts) if snapshot else set()
        artifacts_after = {name: result.artifact for name, result in after.stages.items()} if after else {}
        new = {name for name, digest in artifacts_after.items() if digest not in artifacts_before}
        return Replaced(
            clusters=len(new - {"partition", "global head"}),
            global_head="global head" in new,
            artifacts=len(artifacts_before - set(artifacts_after.values())),
        )
    if before is None or after is None:
        return Replaced()
    added = OwnParts(after, before)
    return Replaced(
        clusters=added.results,
        global_head=after.global_head is not None and after.global_head.artifact in added.artifacts,
        artifacts=len(OwnParts(before, after).artifacts),
    )


def _audit_facts(report: Mapping[str, Any] | None, model: Model | None) -> certificate.AuditFacts | None:
    """The audit's report; it names the model as the rest of the statement does."""
    if report is None:
        return None
    same = model is not None and report["model_digest"] == model.model_digest
    name = model.public_digest if model is not None and same else report["model_digest"]
    return certificate.AuditFacts.model_validate(
        {**report, "model_digest": name, "differences": list(report["differences"])}
    )
