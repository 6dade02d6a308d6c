"""The result of an audit as a statement that other tools read: in-toto's Simple Verification Result, version 0.1.

It asserts, with the workspace's signature, the properties that an audit verified of the served generation. An
audit that found a difference asserts nothing, so there is no statement for it.

Specification: https://github.com/in-toto/attestation/blob/main/spec/predicates/svr.md
"""

from __future__ import annotations

from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field

from lmeraser.core.digests import Digest
from lmeraser.core.time import to_text
from lmeraser.evidence.in_toto import InTotoStatement, Subject

PREDICATE_TYPE = "https://in-toto.io/attestation/svr/v0.1"
VERIFIER = "urn:lmeraser:audit:1"

# Stored words: they never change their meaning.
IDENTICAL = "LMERASER_MODEL_IDENTICAL_TO_TRAINING_ON_RETAINED_RECORDS"
SOME_CLUSTERS_IDENTICAL = "LMERASER_CLUSTERS_DRAWN_AT_RANDOM_IDENTICAL"
PAYLOADS_UNCHANGED = "LMERASER_PAYLOADS_AS_IMPORTED"
INDEPENDENT = "LMERASER_NOT_RUN_BY_THE_WORKERS_THAT_TRAINED"


class _Verifier(BaseModel):
    """Who verified."""

    model_config = ConfigDict(strict=True, defer_build=True)

    id: str


class AuditResult(BaseModel):
    """The predicate; fields of other makers are ignored.

    Attributes:
        verifier: who verified.
        timeCreated: when, RFC 3339.
        properties: what was verified of the subjects, at least one word.
    """

    model_config = ConfigDict(strict=True, defer_build=True)

    verifier: _Verifier
    timeCreated: str  # noqa: N815 - the name in the specification
    properties: list[str] = Field(min_length=1)


def verification_result(
    digest: Digest, generation: int, *, complete: bool, independent: bool, now: datetime
) -> InTotoStatement:
    """What an audit that found no difference asserts.

    Args:
        digest: what the ledger calls the audited generation.
        generation: its number.
        complete: whether every cluster was derived again, not only some.
        independent: whether it ran elsewhere than on the pool of workers that runs trainings.
        now: the time.
    """
    properties = [
        IDENTICAL if complete else SOME_CLUSTERS_IDENTICAL,
        PAYLOADS_UNCHANGED,
        *([INDEPENDENT] if independent else []),
    ]
    predicate = {"verifier": {"id": VERIFIER}, "timeCreated": to_text(now), "properties": properties}
    return InTotoStatement((generation_subject(generation, digest),), PREDICATE_TYPE, predicate)


def generation_subject(generation: int, digest: Digest) -> Subject:
    """A generation as the subject of a statement, by its number and by what the ledger calls it."""
    return Subject(f"generation {generation}", digest)
