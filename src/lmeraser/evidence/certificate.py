"""The certificate of a deletion: what was asked, what was done, what is claimed and what is not, signed.

Steps of issuing, after the new generation is served and the old one purged:
1. state the facts as JSON (`statement`);
2. sign their canonical JSON (`signing`);
3. write the envelope and a text for people, then tell the ledger the payload's digest.
Steps of verifying, which need neither the workspace nor private data nor torch:
1. the envelope's signature is by the given key, over these bytes;
2. the payload is a statement of a format that this version knows;
3. where a ledger is given: it is a chain that contains the entry which the certificate names, and then the entry
   that names this certificate.

A certificate holds no personal data. Follows `docs/guarantee.md`, which says what each claim rests on.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from lmeraser._version import __version__
from lmeraser.core.digests import Digest, canonical_json, parse_json
from lmeraser.core.time import to_text
from lmeraser.errors import VerificationError
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey
from lmeraser.evidence.hash_chain import Entry, LedgerHead, check

if TYPE_CHECKING:
    from lmeraser.models.manifest import Model
    from lmeraser.workspace.requests.state import Request

PAYLOAD_TYPE = "application/vnd.lmeraser.deletion+json"
FORMAT = 1

CLAIM = (
    "The served model is, byte for byte, the one that training without the deleted records gives in the "
    "same environment; in another environment it is equal in distribution. Nothing that came from these "
    "records can be read in the workspace any more."
)
_ERASED = "keys overwritten; "
_REWRITTEN = {
    True: "rewritten without free pages, log emptied",
    False: "rows without content (number, cluster, keyed digests) stay in free pages until it is rewritten",
}
NOT_COVERED = (
    "backups and copies outside the workspace, remnants on the disk below the file system",
    "what the public backbone learned before",
    "settings and classes that were chosen by looking at these records",
    "predictions and copies of the old model that others kept",
    "whether the workspace's operator told the truth about what was trained on",
)


class _Part(BaseModel):
    """The layout of a statement, for those who read what others signed."""

    model_config = ConfigDict(extra="forbid", strict=True)


class _Asked(_Part):
    id: str
    regulation: str
    received: str
    due: str
    completed: str


class _Counts(_Part):
    records_deleted: int | None
    names_already_deleted: int | None
    records_retained: int | None


class _Served(_Part):
    digest_before: Digest | None
    digest_after: Digest | None
    generation: int | None
    clusters: int
    partition_derived_again: bool
    artifacts_tuned_again: dict[str, Digest]
    settings: Digest | None
    backbone: Digest | None
    fingerprints: list[Digest]


class _Purged(_Part):
    artifacts: list[Digest]
    generations_before: int
    records_with_image_features_and_cluster: int | None
    database: str


class _Audited(_Part):
    identical: bool
    differences: list[str]
    same_environment: bool
    model_digest: Digest
    records: int
    clusters_checked: int
    clusters: int


class _Place(_Part):
    entries: int
    digest: Digest | None


class _Statement(_Part):
    format: int
    software: str
    request: _Asked
    counts: _Counts
    model: _Served
    environment: dict[str, str | int] | None
    purged: _Purged
    audit: _Audited | None
    ledger: _Place
    claim: str
    not_covered: list[str]


def statement(
    request: Request,
    model: Model | None,
    *,
    environment: Mapping[str, Any] | None,
    audit: Mapping[str, Any] | None,
    head: LedgerHead,
    rewritten: bool,
    now: datetime,
) -> dict[str, Any]:
    """The facts of a deletion, as JSON values.

    Args:
        request: in progress; knows the model before.
        model: the generation served now; None where there was never one.
        environment: the fingerprint's fields, where the model was made in this environment.
        audit: the audit's report, if one was run.
        head: where the ledger ends.
        rewritten: whether the database was rewritten without the deleted rows.
        now: the time of completion.
    """
    before = request.before
    old = set(before.artifacts) if before else set()
    new = _artifacts(model) if model else {}
    return {
        "format": FORMAT,
        "software": f"lmeraser {__version__}",
        "request": {
            "id": request.id,
            "regulation": request.regulation,
            "received": request.received,
            "due": request.due,
            "completed": to_text(now),
        },
        "counts": {
            "records_deleted": request.records,
            "names_already_deleted": request.already_deleted,
            "records_retained": model.records if model else None,
        },
        "model": {
            "digest_before": before.model if before else None,
            "digest_after": model.model_digest if model else None,
            "generation": model.generation if model else None,
            "clusters": len(model.clusters) if model else 0,
            "partition_derived_again": bool(before and model and before.partition != model.partition.key),
            "artifacts_tuned_again": {name: digest for name, digest in new.items() if digest not in old},
            "settings": Digest.of_json(model.settings) if model else None,
            "backbone": model.backbone if model else None,
            "fingerprints": list(model.fingerprints) if model else [],
        },
        "environment": dict(environment) if environment is not None else None,
        "purged": {
            "artifacts": sorted(old - set(new.values())),
            "generations_before": model.generation if model else 0,
            "records_with_image_features_and_cluster": request.records,
            "database": _ERASED + _REWRITTEN[rewritten],
        },
        "audit": dict(audit) if audit is not None else None,
        "ledger": head.to_json(),
        "claim": CLAIM,
        "not_covered": list(NOT_COVERED),
    }


def issue(facts: Mapping[str, Any], key: SigningKey) -> Envelope:
    """The signed envelope of a statement."""
    return key.sign(canonical_json(facts), payload_type=PAYLOAD_TYPE)


def verify(data: bytes, key: PublicKey) -> dict[str, Any]:
    """The facts of a certificate's bytes, verified.

    Raises:
        VerificationError: the key did not sign them, or they are no statement that this version knows.
    """
    payload = key.verify(Envelope.parse(data), payload_type=PAYLOAD_TYPE)  # step 1
    try:  # step 2
        facts: dict[str, Any] = parse_json(payload)
        if not isinstance(facts, dict) or facts.get("format") != FORMAT:
            raise ValueError(f"format {facts.get('format') if isinstance(facts, dict) else None!r}")
        _Statement.model_validate_json(payload)
    except ValueError as error:  # pydantic's errors are ValueErrors
        raise VerificationError(
            f"This version verifies certificates of format {FORMAT}.",
            got=str(error).splitlines()[0],
            next_step="use the version of lmeraser that made the certificate, or a newer one",
        ) from error
    return facts


def verify_in_ledger(data: bytes, facts: Mapping[str, Any], ledger: bytes) -> list[Entry]:
    """The ledger's entries, if they contain the certificate's place and its completion (step 3).

    Args:
        data: the certificate's bytes, verified before.
        facts: what `verify` gave.
        ledger: the bytes of the ledger.

    Raises:
        VerificationError: they do not.
    """
    place = facts["ledger"]
    entries = check(
        ledger, head=LedgerHead(place["entries"], Digest(place["digest"]) if place["digest"] else None)
    )
    wanted = {"request": facts["request"]["id"], "certificate": Digest.of(Envelope.parse(data).payload)}
    if not any(e.kind == "completed" and e.body == wanted for e in entries[place["entries"] :]):
        raise VerificationError(
            "The ledger tells of the completion that a certificate attests.",
            got=f"no entry for certificate {wanted['certificate'].short} of request {wanted['request']}",
            next_step="ask the operator for the certificate and the ledger as they are now",
        )
    return entries


def render(facts: Mapping[str, Any]) -> str:
    """The certificate for people, as text."""
    request, counts, model, audit = facts["request"], facts["counts"], facts["model"], facts["audit"]
    digests = [model["digest_before"] or "none", model["digest_after"] or "none"]
    tuned = model["artifacts_tuned_again"]
    lines = [
        "CERTIFICATE OF DELETION",
        "",
        f"Request            {request['id']} ({request['regulation']})",
        f"Received           {request['received']}, due {request['due']}",
        f"Completed          {request['completed']}",
        f"Records deleted    {counts['records_deleted']}"
        f" ({counts['names_already_deleted']} of the names had been deleted before)",
        f"Records retained   {'-' if counts['records_retained'] is None else counts['records_retained']}",
        "",
        f"Model before       {digests[0]}",
        f"Model after        {digests[1]}",
        f"Generation         {'-' if model['generation'] is None else model['generation']}",
        f"Tuned again        {len(tuned.keys() - {'partition', 'global head'})} of {model['clusters']} clusters",
        *(["Global head        solved again"] if "global head" in tuned else []),
        f"Partition          {'derived again' if model['partition_derived_again'] else 'not touched'}",
        f"Settings           {model['settings'] or '-'}",
        f"Backbone           {model['backbone'] or '-'}",
        f"Environments       {', '.join(model['fingerprints']) or '-'}",
        f"Audit              {_audit(audit)}",
        f"Purged             {len(facts['purged']['artifacts'])} artifacts; database "
        + facts["purged"]["database"],
        f"Ledger             {facts['ledger']['entries']} entries, the last one {facts['ledger']['digest']}",
        f"Software           {facts['software']}",
        "",
        "Claim",
        *_wrapped(facts["claim"]),
        "",
        "Not covered",
        *(line for item in facts["not_covered"] for line in _wrapped(item, mark="- ")),
    ]
    return "\n".join(lines) + "\n"


def _artifacts(model: Model) -> dict[str, Digest]:
    return {name: result.artifact for name, result in model.stages.items()}


def _audit(audit: Mapping[str, Any] | None) -> str:
    if audit is None:
        return "not run with this request; 'lmeraser audit' runs it at any time"
    what = f"{audit['clusters_checked']} of {audit['clusters']} clusters derived again from nothing"
    return f"{'identical' if audit['identical'] else 'NOT identical'}: {what}"


def _wrapped(text: str, mark: str = "") -> list[str]:
    return textwrap.wrap(text, 100, initial_indent="  " + mark, subsequent_indent="  " + " " * len(mark))
