"""Certificates of deletion: their format, signing and verification; `presentation` shows them to people.

A certificate states what was requested, what was done, what is claimed and what is not covered.

Steps of issuing, after the new generation is served and the old one is purged:
1. state the facts as JSON (`lmeraser.unlearning.certify`);
2. sign them as the predicate of an in-toto statement (`in_toto`);
3. write the envelope and its rendering as text, then record the payload's digest in the ledger.
Steps of verification, which need neither the workspace nor private data nor torch:
1. the envelope's signature is by the given key, over these bytes;
2. the payload is a statement of a format that this version knows, and does not contradict itself: format 2 is an
   in-toto statement (`in_toto`) about the served generation and the ledger's last entry, format 1 a JSON object;
3. where a ledger is given: it is a chain that contains the entry named by the certificate, and after it the entry
   that names this certificate; it begins with the key that signed, and what it records of the request, of the
   models before and after, and of the number of records is what the certificate says.

A certificate holds no personal data. `docs/guarantee.md` explains what each claim rests on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ConfigDict

from lmeraser.core.digests import Digest, canonical_json, parse_json
from lmeraser.core.time import from_text
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence import in_toto
from lmeraser.evidence.copies import copies_outside, recalled_copies
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey
from lmeraser.evidence.entries import (
    GenerationPublished,
    RecordsDeleted,
    RequestAccepted,
    RequestCompleted,
    RequestExtended,
    WorkspaceCreated,
    WorkspaceRestored,
    events_of,
)
from lmeraser.evidence.hash_chain import Entry, LedgerHead, check
from lmeraser.evidence.in_toto import InTotoStatement, Subject
from lmeraser.evidence.presentation import tuned_again
from lmeraser.evidence.reconcile import records_held
from lmeraser.evidence.verification_result import generation_subject

PAYLOAD_TYPE_1 = "application/vnd.lmeraser.deletion+json"
PREDICATE_TYPE = "urn:lmeraser:predicate:deletion:2"  # its JSON Schema is docs/schemas/deletion-2.json
FORMAT = 2  # that is issued; 1 is that of version 0.1, and verified as well

_CLAIM_OF_MODEL = (
    "The served model is, byte for byte, the one that training without the deleted records gives in the "
    "same environment; in another environment it is equal in distribution. "
)
CLAIM = _CLAIM_OF_MODEL + "Nothing that came from these records can be read in the workspace any more."
_NOT_COUNTED = " Whether other records hold the same payload (image) was not counted."
_DUPLICATES_HELD = (
    "What was stored of these records cannot be read in the workspace any more, but duplicates can: when they "
    "were deleted, the same payload (image), byte for byte, was held by other records, which the request did not "
    "select. Their number: {count}."
)
DATABASE_REWRITTEN = "keys overwritten; rewritten without free pages, log emptied"
DATABASE_NOT_REWRITTEN = (
    "keys overwritten; rows without content (number, cluster, keyed digests) stay in free pages "
    "until it is rewritten"
)
NOT_COVERED = (
    "backups and copies outside the workspace, remnants on the disk below the file system",
    "what the public backbone learned before",
    "settings and classes that were chosen by looking at these records",
    "predictions and copies of the old model that others kept",
    "records that were not named and look alike: near duplicates are counted by features, as a hint",
    "whether the workspace's operator told the truth about what was trained on",
)
NOT_COVERED_1 = tuple(item for item in NOT_COVERED if "look alike" not in item)  # in format 1


class _Part(BaseModel):
    """Part of a statement; no field may be missing or unknown, and none is converted."""

    model_config = ConfigDict(extra="forbid", strict=True, defer_build=True)


class RequestFacts1(_Part):
    """The request in format 1, with its times in RFC 3339 (UTC)."""

    id: str
    regulation: str
    received: str
    due: str
    completed: str


class RequestFacts(RequestFacts1):
    """The request.

    The period for the answer counts from ``asked``, when the person made the request; None for requests that
    version 0.1 accepted.
    """

    asked: str | None


class RecordCounts1(_Part):
    """Numbers of records in format 1.

    ``names_already_deleted`` counts selectors whose records had been deleted before.
    """

    records_deleted: int | None
    names_already_deleted: int | None
    records_retained: int | None


class RecordCounts(RecordCounts1):
    """Numbers of records.

    ``duplicates_held`` counts the records that still held the payload of a deleted one right after the deletion,
    and ``near_duplicates_held`` those whose features are nearly equal, without duplicates; None where it was not
    counted.
    """

    duplicates_held: int | None
    near_duplicates_held: int | None


class _ModelFacts(_Part):
    # In format 2, digests of manifests, which have a random nonce: with those of models guesses could be tested.
    digest_before: Digest | None
    digest_after: Digest | None
    generation: int | None
    clusters: int
    partition_derived_again: bool
    settings: Digest | None
    backbone: Digest | None
    fingerprints: list[Digest]


class ModelFacts1(_ModelFacts):
    """The served model before and after the deletion, and what was derived again in between, in format 1."""

    artifacts_tuned_again: dict[str, Digest]


class ModelFacts(_ModelFacts):
    """The served model before and after the deletion, and what was derived again in between.

    The digests are those by which the ledger names generations: of their manifests, which have a random nonce and
    go with them; where version 0.1 made the generation, of the model. It counts clusters and names none: the
    number of a cluster may stand for the one record that was in it.
    """

    clusters_tuned_again: int
    global_head_derived_again: bool


class _PurgeFacts(_Part):
    generations_before: int
    records_with_image_features_and_cluster: int | None
    database: str


class PurgeFacts1(_PurgeFacts):
    """What was removed from the workspace, in format 1."""

    artifacts: list[Digest]


class PurgeFacts(_PurgeFacts):
    """What was removed from the workspace.

    It counts artifacts: with the digest of one, guesses of the records that it was derived from could be tested.
    """

    artifacts: int


class ReceiptFacts(_Part):
    """A receipt of another system that deleted data of the same person, as the caller attached it.

    ``system`` is the caller's name of the system, ``digest`` that of the receipt. Nothing here was checked.
    """

    system: str
    digest: Digest


class CopyFacts(_Part):
    """A copy of the model outside of the workspace, which holds or held the influence of erased records.

    ``recalled`` is when the first of these records was erased, ``told`` when the holder was last told, and
    ``confirmed`` when the holder confirmed that the copy is deleted.
    """

    id: str
    generation: int
    exported: str
    records_erased: int
    records_rectified: int
    recalled: str
    told: str | None
    confirmed: str | None


class AuditFacts1(_Part):
    """The outcome of the audit that the request asked for, in format 1."""

    identical: bool
    differences: list[str]
    same_environment: bool
    model_digest: Digest
    records: int
    clusters_checked: int
    clusters: int


class AuditFacts(AuditFacts1):
    """The outcome of the audit that the request asked for.

    ``ran_on`` says what derived the model for the second time: "asking process" or "new workers" (started for the
    audit, on the machines that ran the others).
    """

    ran_on: str


class LedgerFacts(_Part):
    """The head of the ledger just before the certificate was issued."""

    entries: int
    digest: Digest | None


class _Statement(_Part):
    format: int
    software: str
    environment: dict[str, str | int] | None
    ledger: LedgerFacts
    claim: str
    not_covered: list[str]


class Statement1(_Statement):
    """The payload of a certificate, format 1. Field names and texts are a stored format: they never change."""

    request: RequestFacts1
    counts: RecordCounts1
    model: ModelFacts1
    purged: PurgeFacts1
    audit: AuditFacts1 | None


class Statement(_Statement):
    """The payload of a certificate, format 2.

    It says when the person asked, what duplicates were left and what ran the audit, and names neither clusters nor
    artifacts. ``controller`` is who is responsible for the data, in the operator's words; None where no setting
    says so.
    """

    controller: str | None

    request: RequestFacts
    counts: RecordCounts
    model: ModelFacts
    purged: PurgeFacts
    audit: AuditFacts | None
    receipts: list[ReceiptFacts]
    copies_outside: list[CopyFacts] = []  # left out where there are none


def claim(duplicates: int | None) -> str:
    """What a certificate claims.

    Args:
        duplicates: how many records still held the payload of a deleted one; None: not counted.
    """
    if duplicates is None:
        return CLAIM + _NOT_COUNTED
    return CLAIM if duplicates == 0 else _CLAIM_OF_MODEL + _DUPLICATES_HELD.format(count=duplicates)


def _is_standard_claim(text: str) -> bool:
    """Whether a claim is one that `claim` gives for some number of duplicates."""
    before, after = (_CLAIM_OF_MODEL + _DUPLICATES_HELD).split("{count}")
    count = text.removeprefix(before).removesuffix(after)
    return text in (CLAIM, CLAIM + _NOT_COUNTED) or (count.isdecimal() and text == f"{before}{count}{after}")


def issue(facts: Mapping[str, Any], key: SigningKey) -> Envelope:
    """Sign a statement.

    Args:
        facts: the statement's fields, as JSON values (`Statement`).
        key: the workspace's signing key.
    """
    return InTotoStatement(_subjects(facts), PREDICATE_TYPE, facts).sign(key)


def _subjects(facts: Mapping[str, Any]) -> tuple[Subject, ...]:
    """What a statement of format 2 is about: the served generation, if any, and the ledger's last entry."""
    model, ledger = facts["model"], facts["ledger"]
    subjects = []
    if model["digest_after"]:
        subjects.append(generation_subject(model["generation"], Digest(model["digest_after"])))
    if ledger["digest"]:
        subjects.append(Subject(f"ledger entry {ledger['entries'] - 1}", Digest(ledger["digest"])))
    return tuple(subjects)


def verify(data: bytes, key: PublicKey) -> dict[str, Any]:
    """Verify a certificate's signature and format (steps 1 and 2).

    Args:
        data: bytes of the certificate.
        key: the workspace's public key.

    Returns:
        The statement's fields, as JSON values.

    Raises:
        VerificationError: the key did not sign these bytes, or they are not a statement that this version knows.
    """
    envelope = Envelope.parse(data)
    payload_type = PAYLOAD_TYPE_1 if envelope.payload_type == PAYLOAD_TYPE_1 else in_toto.PAYLOAD_TYPE
    payload = key.verify(envelope, payload_type=payload_type)  # step 1
    try:  # step 2
        facts, stated = _parse_1(payload) if payload_type == PAYLOAD_TYPE_1 else _parse(payload)
    except ValueError as error:  # pydantic's errors are ValueErrors
        raise VerificationError(
            "Unsupported certificate format",
            got=f"{str(error).splitlines()[0]} (this version verifies format 1 to {FORMAT})",
            next_step="use the version of lmeraser that issued the certificate, or a newer one",
        ) from error
    if contradictions := [*_contradictions(stated), *_impossible(stated)]:
        raise _contradicted("Certificate contradicts itself", contradictions)
    return facts


def has_standard_wording(facts: Mapping[str, Any]) -> bool:
    """Whether a certificate claims, names as not covered and says of the database what certificates do here.

    These are texts: whoever has the signing key can sign others.

    Args:
        facts: the return value of `verify`.
    """
    not_covered = NOT_COVERED_1 if facts["format"] == 1 else NOT_COVERED
    database = facts["purged"]["database"] in (DATABASE_REWRITTEN, DATABASE_NOT_REWRITTEN)
    return database and _is_standard_claim(facts["claim"]) and facts["not_covered"] == list(not_covered)


def _parse_1(payload: bytes) -> tuple[dict[str, Any], Statement1]:
    """The fields of a payload of format 1, as JSON values and checked."""
    facts = parse_json(payload)
    if not isinstance(facts, dict) or type(facts.get("format")) is not int or facts["format"] != 1:
        raise ValueError(f"format {facts.get('format') if isinstance(facts, dict) else None!r}")
    return facts, Statement1.model_validate_json(payload)


def _parse(payload: bytes) -> tuple[dict[str, Any], Statement]:
    """The fields of a payload of format 2, as JSON values and checked."""
    statement = InTotoStatement.parse(payload)
    if statement.predicate_type != PREDICATE_TYPE:
        raise ValueError(f"predicate of type {statement.predicate_type!r}")
    facts = dict(statement.predicate)
    if type(facts.get("format")) is not int or facts["format"] != FORMAT:
        raise ValueError(f"format {facts.get('format')!r}")
    stated = Statement.model_validate_json(canonical_json(facts))
    if statement.subjects != _subjects(facts):
        raise ValueError("the subjects are not the generation and the entry that it tells of")
    return facts, stated


def _contradictions(stated: Statement1 | Statement) -> list[str]:
    """What cannot be true at once in a statement, one line each."""
    counts, model, audit, purged = stated.counts, stated.model, stated.audit, stated.purged
    same = model.digest_before == model.digest_after
    purged_digests, tuned_digests = _artifact_digests(stated)
    derived_again = model.partition_derived_again or tuned_again(model.model_dump()) != (0, False)
    served = (model.generation, model.settings, model.backbone, counts.records_retained)
    wrong = {
        "it tells of a model and of none": any((each is None) != (model.digest_after is None) for each in served),
        "it tells of clusters and of no model": model.digest_after is None and model.clusters > 0,
        "the model is the same, but artifacts were tuned again or purged": same
        and (derived_again or bool(purged.artifacts)),
        "what was purged is served": not purged_digests.isdisjoint(tuned_digests),
        "it counts the deleted records in two ways": counts.records_deleted
        != purged.records_with_image_features_and_cluster,
        "the audit found differences": audit is not None and not audit.identical,
        "the audit is identical and lists differences": audit is not None and bool(audit.differences),
        "the audit is of another model": audit is not None and audit.model_digest != model.digest_after,
        "the audit is of other records": audit is not None and audit.records != counts.records_retained,
        "the audit is of other clusters": audit is not None
        and not (audit.clusters_checked <= audit.clusters == model.clusters),
    }
    return [line for line, holds in wrong.items() if holds]


def _impossible(stated: Statement1 | Statement) -> list[str]:
    """What is impossible in a statement or claims more than its numbers, one line each."""
    facts = stated.model_dump()
    request = facts["request"]
    times = [request[name] for name in ("received", "due", "completed", "asked") if request.get(name) is not None]
    for copy in facts.get("copies_outside", ()):
        times += [copy[name] for name in ("exported", "recalled", "told", "confirmed") if copy[name] is not None]
    ledger = stated.ledger
    duplicates = stated.counts.duplicates_held if isinstance(stated, Statement) else None
    more = duplicates is not None and _is_standard_claim(stated.claim) and stated.claim != claim(duplicates)
    parts = ("counts", "model", "purged", "audit", "ledger", "copies_outside")
    wrong = {
        "a number is negative": any(map(_has_negative, (facts.get(part) for part in parts))),
        "a time is malformed": not all(map(_is_time, times)),
        "it tells of entries and of no digest, or of a digest and no entries": (ledger.entries == 0)
        != (ledger.digest is None),
        "it claims otherwise than it counts duplicates": more,
    }
    return [line for line, holds in wrong.items() if holds]


def _has_negative(value: Any) -> bool:
    """Whether a number in JSON values is negative."""
    if isinstance(value, dict):
        return any(map(_has_negative, value.values()))
    if isinstance(value, list):
        return any(map(_has_negative, value))
    return isinstance(value, int) and value < 0


def _is_time(text: str) -> bool:
    try:
        from_text(text)
    except InputError:
        return False
    return True


def _artifact_digests(stated: Statement1 | Statement) -> tuple[set[Digest], set[Digest]]:
    """The artifacts that were purged, and those that were tuned again, where the format names them."""
    if isinstance(stated, Statement1):
        return set(stated.purged.artifacts), set(stated.model.artifacts_tuned_again.values())
    return set(), set()


def _contradicted(message: str, lines: Sequence[str]) -> VerificationError:
    return VerificationError(
        message, got="; ".join(lines), next_step="ask the operator for the current certificate and ledger"
    )


def verify_in_ledger(
    data: bytes, facts: Mapping[str, Any], ledger: bytes, *, exported: LedgerHead | None = None
) -> list[Entry]:
    """Verify that a ledger contains what a certificate attests, and contradicts none of it (step 3).

    Args:
        data: bytes of the certificate, already verified.
        facts: the return value of `verify`.
        ledger: bytes of the ledger.
        exported: a head of the ledger that somebody else kept, which it has to contain. Whoever has a copy of a
            ledger can add entries to it; only a head from elsewhere tells that they did.

    Returns:
        The entries of the ledger.

    Raises:
        VerificationError: the ledger is broken, of another workspace, or tells something else.
    """
    envelope = Envelope.parse(data)
    place = facts["ledger"]
    head = LedgerHead(place["entries"], Digest(place["digest"]) if place["digest"] else None)
    check(ledger, head=exported)
    entries = check(ledger, head=head)
    payload_digest = Digest.of(envelope.payload)
    completion = RequestCompleted(request=facts["request"]["id"], certificate=payload_digest)
    # Compare whole bodies: an entry with further fields was not written by the version that signed this.
    if not any(e.kind == completion.kind and e.body == completion.body() for e in entries[head.entries :]):
        raise VerificationError(
            "Certificate not found in the ledger",
            got=f"no entry for certificate {payload_digest.short} of request {completion.request}",
            next_step="ask the operator for the current certificate and ledger",
        )
    before = entries[: head.entries]
    contradictions = _contradictions_with_ledger(facts, envelope.key_id, before)
    if facts.get("copies_outside", []) != recalled_copies(copies_outside(before)):
        contradictions.append("its entries tell otherwise of copies outside")
    if contradictions:
        raise _contradicted("Certificate contradicts the ledger", contradictions)
    return entries


def _contradictions_with_ledger(facts: Mapping[str, Any], key: Digest, entries: Sequence[Entry]) -> list[str]:
    """What a certificate says otherwise than the ledger, one line each.

    Args:
        facts: of the certificate.
        key: digest of the public key that verifies it.
        entries: of the ledger, up to the head that the certificate names.
    """
    request, counts, model = facts["request"], facts["counts"], facts["model"]
    created = [event for _, event in events_of(entries[:1], WorkspaceCreated)]
    accepted = [event for _, event in events_of(entries, RequestAccepted) if event.request == request["id"]]
    extended = [event for _, event in events_of(entries, RequestExtended) if event.request == request["id"]]
    deleted = [pair for pair in events_of(entries, RecordsDeleted) if request["id"] in pair[1].requests]
    published = list(events_of(entries, GenerationPublished))
    restored = [entry.position for entry, _ in events_of(entries, WorkspaceRestored)]
    lines = []
    if [event.key for event in created] != [key]:
        lines.append("its first entry does not name the key that signed the certificate")
    told_times = [(e.regulation, e.received, extended[-1].due if extended else e.due) for e in accepted]
    if (request["regulation"], request["received"], request["due"]) not in told_times:
        lines.append("no entry accepts the request with this law and these times")
    if not deleted:
        return [*lines, "no entry deletes the records of the request"]
    entry, deletion = deleted[-1]
    removed_count = sum(map(len, deletion.removed.values()))
    alone = len(deletion.requests) == 1 and not restored
    if counts["records_deleted"] is not None and (
        counts["records_deleted"] > removed_count or (alone and counts["records_deleted"] != removed_count)
    ):
        lines.append(f"entry {entry.position} deletes {removed_count} records")
    served = [event for _, event in published[-1:]]
    if model["digest_after"] is not None:
        told = (model["digest_after"], model["generation"], counts["records_retained"])
        if [(event.public_digest, event.generation, event.records) for event in served] != [told]:
            lines.append("the last generation that it records is another one")
        elif counts["records_retained"] != records_held(entries):
            lines.append(f"{records_held(entries)} records are held by its entries")
    elif published and published[-1][0].position > max(restored, default=-1):
        lines.append("it records a generation, and the certificate none")
    before = [event for each, event in published if each.position < entry.position]
    if model["digest_before"] is not None and model["digest_before"] not in {
        event.public_digest for event in before
    }:
        lines.append("no entry before the deletion records the model before")
    return lines
