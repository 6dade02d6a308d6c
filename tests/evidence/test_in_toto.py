"""Other implementations of DSSE and in-toto read certificates and results of audits, with the same meaning."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_evidence import FOLDER, KEY, NEW, NOW, named

from lmeraser.core.digests import canonical_json
from lmeraser.errors import VerificationError
from lmeraser.evidence.certificate import PREDICATE_TYPE, Statement, verify
from lmeraser.evidence.dsse import Envelope, SigningKey
from lmeraser.evidence.in_toto import PAYLOAD_TYPE, STATEMENT_TYPE, InTotoStatement, Subject, verify_statement
from lmeraser.evidence.verification_result import IDENTICAL, SOME_CLUSTERS_IDENTICAL, verification_result

CERTIFICATE = (FOLDER / "certificate-2.json").read_bytes()
SCHEMA = Path(__file__).parents[2] / "docs" / "schemas" / "deletion-2.json"
RESULT = verification_result(NEW.public_digest, 1, complete=True, independent=True, now=NOW)


def other_key(key: SigningKey) -> Any:
    """A public key as securesystemslib has it."""
    from securesystemslib.signer import SSlibKey

    raw = key.public._key.public_bytes_raw()
    return SSlibKey(key.public.key_id, "ed25519", "ed25519", {"public": raw.hex()})


@pytest.mark.parametrize("data", [CERTIFICATE, RESULT.sign(KEY).to_bytes()], ids=["certificate", "audit"])
def test_other_implementations_verify_and_read_what_is_signed(data: bytes) -> None:
    from google.protobuf.json_format import Parse
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement as OtherStatement
    from securesystemslib.dsse import Envelope as OtherEnvelope
    from securesystemslib.exceptions import VerificationError as OtherVerificationError

    envelope = OtherEnvelope.from_dict(json.loads(data))
    assert set(envelope.verify([other_key(KEY)], 1)) == {KEY.public.key_id}
    assert envelope.payload_type == PAYLOAD_TYPE
    with pytest.raises(OtherVerificationError):
        envelope.verify([other_key(SigningKey.new())], 1)
    parsed = Parse(envelope.payload, statement_pb2.Statement())
    OtherStatement.copy_from_pb(parsed).validate()
    ours = verify_statement(data, KEY.public)
    assert parsed.predicate_type == ours.predicate_type
    assert [(each.name, dict(each.digest)) for each in parsed.subject] == [
        (subject.name, {"sha256": subject.digest.hex}) for subject in ours.subjects
    ]
    assert ours.subjects[0] == Subject("generation 1", NEW.public_digest)


def test_the_published_schema_is_that_of_certificates() -> None:
    import jsonschema

    made = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": PREDICATE_TYPE,
        **Statement.model_json_schema(),
    }
    assert json.loads(SCHEMA.read_text()) == made, f"write it anew: {json.dumps(made, indent=1)}"
    jsonschema.validate(verify(CERTIFICATE, KEY.public), made)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**verify(CERTIFICATE, KEY.public), "more": 1}, made)


def test_an_audit_asserts_what_it_checked_and_no_more() -> None:
    assert RESULT.predicate["verifier"] == {"id": "urn:lmeraser:audit:1"}
    assert RESULT.predicate["timeCreated"] == "2026-01-31T12:00:00Z"
    assert IDENTICAL in RESULT.predicate["properties"]
    partly = verification_result(NEW.public_digest, 1, complete=False, independent=False, now=NOW)
    assert SOME_CLUSTERS_IDENTICAL in partly.predicate["properties"]
    assert IDENTICAL not in partly.predicate["properties"]
    assert len(partly.predicate["properties"]) == len(RESULT.predicate["properties"]) - 1


GOOD = {
    "_type": STATEMENT_TYPE,
    "subject": [Subject("a", named("a")).to_json()],
    "predicateType": "urn:test",
    "predicate": {"x": 1},
}


@pytest.mark.parametrize(
    "changes",
    [
        {"_type": "https://in-toto.io/Statement/v0.1"},
        {"subject": []},
        {"subject": {}},
        {"subject": [1]},
        {"subject": [{"name": "a", "digest": {"sha1": "0" * 40}}]},
        {"subject": [{"name": "a", "digest": {"sha256": "0" * 63}}]},
        {"subject": [{"name": 1, "digest": {"sha256": "0" * 64}}]},
        {"predicateType": None},
        {"predicate": []},
        {"more": 1},
    ],
)
def test_other_statements_are_refused(changes: dict[str, Any]) -> None:
    good = KEY.sign(canonical_json(GOOD), payload_type=PAYLOAD_TYPE).to_bytes()
    assert verify_statement(good, KEY.public).predicate == {"x": 1}
    bad = KEY.sign(canonical_json({**GOOD, **changes}), payload_type=PAYLOAD_TYPE).to_bytes()
    with pytest.raises(VerificationError, match="Unsupported statement"):
        verify_statement(bad, KEY.public)


@given(st.binary(max_size=40))
def test_payloads_that_are_no_statement_are_refused(payload: bytes) -> None:
    with pytest.raises(VerificationError):
        verify_statement(KEY.sign(payload, payload_type=PAYLOAD_TYPE).to_bytes(), KEY.public)


def test_what_is_signed_is_what_was_said() -> None:
    envelope = RESULT.sign(KEY)
    assert Envelope.parse(envelope.to_bytes()) == envelope
    assert base64.b64encode(envelope.payload).decode() in envelope.to_bytes().decode()
    assert InTotoStatement.parse(envelope.payload) == RESULT
