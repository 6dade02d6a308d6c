"""Statements that other tools read: in-toto Statement version 1, in a DSSE envelope.

A statement says something (the predicate, of some type) about artifacts (the subjects, each a name and a SHA-256
digest). Here it is always canonical JSON with exactly the four fields of the specification. Knows nothing about
what predicates mean.

Specification: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

from pydantic import BaseModel

from lmeraser.core.digests import Digest, canonical_json, parse_json
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey

_Predicate = TypeVar("_Predicate", bound=BaseModel)

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
_ALGORITHM = "sha256"


@dataclass(frozen=True)
class Subject:
    """What a statement is about.

    Attributes:
        name: tells the subjects of one statement apart.
        digest: of the artifact.
    """

    name: str
    digest: Digest

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {"name": self.name, "digest": {_ALGORITHM: self.digest.hex}}

    @classmethod
    def of_json(cls, values: Any) -> Self:
        """From what `to_json` gave.

        Raises:
            ValueError: it is something else, or has another kind of digest.
        """
        if values.keys() != {"name", "digest"} or values["digest"].keys() != {_ALGORITHM}:
            raise ValueError("a subject has other fields or another digest")
        if not isinstance(values["name"], str):
            raise ValueError("the name of a subject is no text")
        return cls(values["name"], Digest(f"{_ALGORITHM}:{values['digest'][_ALGORITHM]}"))


@dataclass(frozen=True)
class InTotoStatement:
    """A statement.

    Attributes:
        subjects: what it is about; at least one.
        predicate_type: URI of what is said about them.
        predicate: its fields, as JSON values.
    """

    subjects: tuple[Subject, ...]
    predicate_type: str
    predicate: Mapping[str, Any]

    def sign(self, key: SigningKey) -> Envelope:
        """Sign it."""
        values = {
            "_type": STATEMENT_TYPE,
            "subject": [subject.to_json() for subject in self.subjects],
            "predicateType": self.predicate_type,
            "predicate": self.predicate,
        }
        return key.sign(canonical_json(values), payload_type=PAYLOAD_TYPE)

    @classmethod
    def parse(cls, payload: bytes) -> Self:
        """Parse the payload of an envelope.

        Raises:
            ValueError: it is no such statement.
        """
        try:
            values = parse_json(payload)
            if values.keys() != {"_type", "subject", "predicateType", "predicate"}:
                raise ValueError("an in-toto statement has other fields")
            if values["_type"] != STATEMENT_TYPE:
                raise ValueError(f"statement of type {values['_type']!r}")
            subjects: Sequence[Any] = values["subject"]
            if not isinstance(subjects, list) or not subjects:
                raise ValueError("a statement needs subjects")
            if not isinstance(values["predicateType"], str) or not isinstance(values["predicate"], dict):
                raise ValueError("the predicate or its type is missing")
            return cls(tuple(map(Subject.of_json, subjects)), values["predicateType"], values["predicate"])
        except (TypeError, AttributeError, KeyError, InputError) as error:
            raise ValueError(f"malformed in-toto statement: {error}") from error


def parse_predicate(statement: InTotoStatement, model: type[_Predicate], what: str) -> _Predicate:
    """The predicate of a statement, in its form.

    Args:
        statement: whose signature was verified.
        model: the form.
        what: the statement is, for the error.

    Raises:
        VerificationError: it has another form.
    """
    try:
        return model.model_validate_json(canonical_json(statement.predicate))
    except ValueError as error:  # pydantic's errors are ValueErrors
        raise malformed(what, str(error)) from error


def malformed(what: str, fault: str) -> VerificationError:
    """The error for something that was signed and has not the form that it should have; of the fault a line."""
    return VerificationError(
        f"Malformed {what}", got=fault.partition("\n")[0], next_step="ask the operator for another one"
    )


def verify_statement(data: bytes, key: PublicKey) -> InTotoStatement:
    """Verify the signature of an envelope and parse its statement.

    Args:
        data: bytes of the envelope.
        key: the signer's public key.

    Raises:
        VerificationError: the key did not sign these bytes, or they hold no in-toto statement.
    """
    payload = key.verify(Envelope.parse(data), payload_type=PAYLOAD_TYPE)
    try:
        return InTotoStatement.parse(payload)
    except ValueError as error:
        raise VerificationError(
            "Unsupported statement",
            got=str(error).splitlines()[0],
            next_step="use the version of lmeraser that signed it, or a newer one",
        ) from error
