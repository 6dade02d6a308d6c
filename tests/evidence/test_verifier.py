"""The verifier for auditors is the same as lmeraser's, loads next to nothing, and installs without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from make_evidence import FOLDER, KEY, named

from lmeraser.errors import VerificationError
from lmeraser.evidence import verification_result
from lmeraser.evidence.certificate import CLAIM, claim, issue, verify
from lmeraser.evidence.dsse import Envelope
from lmeraser.evidence.hash_chain import HEAD_TYPE, LedgerHead, check
from lmeraser.evidence.in_toto import InTotoStatement, Subject
from lmeraser.evidence.verifier import Verified, main, verify_files

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)

ROOT = Path(__file__).parents[2]
GOOD = (str(FOLDER / "certificate-2.json"), "--key", str(FOLDER / "signing.pub"))
LEDGER = ("--ledger", str(FOLDER / "ledger-2"))
HEAVY = {"lmeraser", "torch", "numpy", "sqlalchemy", "datasets", "PIL", "typer", "rich"}
LOADED = """
import sys
from lmeraser_verify.evidence.verifier import main
status = main(sys.argv[1:])
print("LOADED", *sorted({name.partition(".")[0] for name in sys.modules}), file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The source of lmeraser-verify."""
    out = tmp_path_factory.mktemp("verifier") / "out"
    subprocess.run([sys.executable, ROOT / "scripts" / "build_verifier.py", out], check=True)
    return out


def test_the_package_verifies_without_lmeraser_and_what_it_needs(package: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, *GOOD, *LEDGER],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(package / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("\nverified: signature and entry in the ledger\n")
    assert "LOADED" in done.stderr
    assert not HEAVY.intersection(done.stderr.split())


def test_its_command_says_what_lmeraser_verify_says(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert main([*GOOD, *LEDGER]) == 0
    text = (FOLDER / "certificate-2.txt").read_text()
    out = capsys.readouterr().out
    assert out.startswith(f"{text}\nnot checked: whether the ledger was rewritten since")
    assert out.endswith("\nverified: signature and entry in the ledger\n")
    assert main([*GOOD, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["in_ledger"], told["format"]) == (True, False, 2)
    assert main([*GOOD, "--ledger", str(FOLDER / "ledger-1")]) == 1
    assert main([*GOOD, "--head", str(FOLDER / "ledger-1")]) == 2
    assert main([str(tmp_path / "none"), *GOOD[1:]]) == 2
    assert "lmeraser-verify: " in capsys.readouterr().err


def test_of_several_certificates_each_is_verified(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """A shell gives all that a folder holds."""
    bad = tmp_path / "bad.json"
    envelope = json.loads(Path(GOOD[0]).read_text())
    bad.write_text(json.dumps({**envelope, "payload": f"AAAA{envelope['payload']}"}))
    assert main([GOOD[0], str(bad), *GOOD]) == 1
    told = capsys.readouterr()
    assert told.out.endswith("verified: signature\n\n2 of 3 verified\n")
    assert told.out.count(f"{GOOD[0]}:\n") == 2
    assert told.err.startswith(f"lmeraser-verify: {bad}: ")
    assert main([GOOD[0], *GOOD, "--json"]) == 0
    assert [each["verified"] for each in json.loads(capsys.readouterr().out)] == [True, True]
    assert main([str(tmp_path / "none"), *GOOD, "--json"]) == 2
    assert json.loads(capsys.readouterr().out)[0]["verified"] is False


def verified(tmp_path: Path, envelope: Envelope) -> Verified:
    (tmp_path / "file.json").write_bytes(envelope.to_bytes())
    (tmp_path / "key.pub").write_bytes(KEY.public.pem)
    return verify_files(tmp_path / "file.json", tmp_path / "key.pub")


def test_no_field_of_a_file_stands_for_what_was_checked(tmp_path: Path) -> None:
    """A program that reads the JSON would take the signer's words for the verifier's."""
    predicate = {"verifier": {"id": "x"}, "timeCreated": "now", "properties": ["X"], "in_ledger": True}
    subject = (Subject("generation 0", named("a")),)
    lies = {**predicate, "verified": False, "kind": "certificate", "contains_head": True, "not_checked": []}
    found = verified(tmp_path, InTotoStatement(subject, verification_result.PREDICATE_TYPE, lies).sign(KEY))
    told = found.to_json()
    assert (told["verified"], told["in_ledger"], told["contains_head"]) == (True, False, False)
    assert told["kind"] == "audit result"
    assert told["not_checked"] == found.not_checked
    assert "that it found this is its signer's word" in found.lines()[-3]


@pytest.mark.parametrize(
    "predicate",
    [
        {},
        {"properties": 5},
        {"verifier": {"id": "x"}, "timeCreated": "now", "properties": "abc"},
        {"verifier": {"id": "x"}, "timeCreated": "now", "properties": []},
        {"verifier": 1, "timeCreated": "now", "properties": ["X"]},
    ],
)
def test_a_malformed_result_of_an_audit_is_no_traceback(tmp_path: Path, predicate: dict[str, Any]) -> None:
    statement = InTotoStatement((Subject("a", named("a")),), verification_result.PREDICATE_TYPE, predicate)
    with pytest.raises(VerificationError, match="Malformed result of an audit"):
        verified(tmp_path, statement.sign(KEY))


def changed(**changes: Any) -> Envelope:
    """The golden certificate with other facts, signed."""
    facts = json.loads(json.dumps(verify(Path(GOOD[0]).read_bytes(), KEY.public)))
    for name, value in changes.items():
        *parents, last = name.split("__")
        part = facts
        for parent in parents:
            part = part[parent]
        part[last] = value
    return issue(facts, KEY)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"claim": CLAIM}, "claims otherwise than it counts"),
        ({"claim": claim(3)}, "claims otherwise than it counts"),
        ({"counts__duplicates_held": -1}, "negative"),
        ({"purged__artifacts": -1}, "negative"),
        ({"ledger__entries": -6}, "negative"),
        ({"ledger__entries": 0}, "tells of entries and of no digest"),
        ({"request__completed": "yesterday"}, "a time is malformed"),
        ({"request__due": "9999-99-99T00:00:00Z"}, "a time is malformed"),
    ],
    ids=str,
)
def test_what_is_impossible_or_claims_more_is_not_verified(
    tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    with pytest.raises(VerificationError, match=why):
        verified(tmp_path, changed(**changes))


@pytest.mark.parametrize(
    ("changes", "standard"),
    [
        ({}, True),
        ({"claim": "All copies everywhere were deleted."}, False),
        ({"not_covered": []}, False),
        ({"purged__database": "destroyed with the disk"}, False),
    ],
    ids=str,
)
def test_texts_of_the_signers_own_are_said_to_be_his(
    tmp_path: Path, changes: dict[str, Any], standard: bool
) -> None:
    found = verified(tmp_path, changed(**changes))
    assert found.to_json()["standard_wording"] is standard
    assert any("worded otherwise" in line for line in found.lines()) is not standard


def test_a_head_of_the_ledger_verifies_alone_and_with_the_ledger(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    entries = check((FOLDER / "ledger-2").read_bytes())
    signed = LedgerHead(5, entries[4].digest).sign(KEY, now=NOW)
    assert verified(tmp_path, signed).to_json()["kind"] == "ledger head"
    options = [str(tmp_path / "file.json"), "--key", str(tmp_path / "key.pub")]
    assert main([*options, *LEDGER]) == 0
    assert "5 entries, the last one" in (out := capsys.readouterr().out)
    assert out.endswith("verified: signature and entry in the ledger\n")
    verified(tmp_path, LedgerHead(5, entries[3].digest).sign(KEY, now=NOW))
    assert main([*options, *LEDGER]) == 1
    bad = KEY.sign(b'{"digest":null,"entries":-1}', payload_type=HEAD_TYPE)
    with pytest.raises(VerificationError, match="Malformed head"):
        verified(tmp_path, bad)


def test_a_ledger_nested_as_deep_as_the_parser_takes_is_no_traceback(tmp_path: Path) -> None:
    ledger = (FOLDER / "ledger-2").read_bytes()
    for depth in range(900, 1000):
        line = '{"body":%s,"digest":"x","kind":"x","position":9,"previous":null,"time":""}\n'
        (tmp_path / "ledger").write_bytes(ledger + (line % ("[" * depth + "]" * depth)).encode())
        assert main([*GOOD, "--ledger", str(tmp_path / "ledger")]) == 1


@pytest.mark.long
def test_an_environment_of_its_own_has_no_torch_and_verifies_within_a_second(
    package: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", package], check=True)
    packages = subprocess.run([python, "-m", "pip", "freeze"], check=True, capture_output=True, text=True).stdout
    assert "lmeraser-verify" in packages
    assert "torch" not in packages
    before = os.times()
    command = [str(tmp_path / "env" / "bin" / "lmeraser-verify"), *GOOD, *LEDGER]
    done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True, text=True)
    after = os.times()
    assert done.stdout.endswith("verified: signature and entry in the ledger\n")
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1
