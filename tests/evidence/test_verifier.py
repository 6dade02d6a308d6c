"""The verifier for auditors is the same as lmeraser's, loads next to nothing, and installs without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from make_evidence import FOLDER

from lmeraser.evidence.verifier import main

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
    assert capsys.readouterr().out == f"{text}\nverified: signature and entry in the ledger\n"
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
