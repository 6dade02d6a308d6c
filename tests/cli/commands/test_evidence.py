"""The commands about requests and evidence: what they print, and how they exit."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import lmeraser
from conftest import Run, digits
from lmeraser import Eraser
from lmeraser.evidence.dsse import SigningKey

REQUEST = "3f1c6a52-8f0e-4b57-9c1e-0d6b7a4f2e11"


def test_a_request_from_acceptance_to_a_verified_certificate(run: Run, work: Path, tmp_path: Path) -> None:
    w = ("-w", work)
    head = tmp_path / "head.json"
    assert run(*w, "ledger", "--export-head", head).code == 0
    accepted = run(
        *w, "requests", "accept", "--id", "digit-0002", "--request", REQUEST, "--regulation", "gdpr", "--json"
    )
    assert (accepted.json["state"], accepted.json["names"]) == ("pending", 1)
    (listed,) = run(*w, "requests", "--json").json
    assert {"id", "state", "due", "age_seconds", "seconds_left"} <= listed.keys()
    assert "digit" not in json.dumps(listed)
    shown = run(*w, "requests").out
    assert REQUEST in shown
    assert "pending" in shown
    for options, count in (
        (("--view", "open", "--regulation", "gdpr", "--search", REQUEST[:6].upper()), 1),
        (("--view", "late"), 0),
        (("--regulation", "ccpa"), 0),
        (("--search", "another"), 0),
    ):
        assert len(run(*w, "requests", *options, "--json").json) == count, options
    done = run(*w, "unlearn", "--audit", "--json").json
    assert done["requests"] == {REQUEST: "completed"}
    (certificate,) = done["certificates"]
    key, ledger = work / "signing.pub", tmp_path / "ledger"
    assert run(*w, "ledger", "--head", head, "--export", ledger).code == 0
    verified = run("verify", certificate, "--key", key, "--ledger", ledger, "--json")
    assert verified.code == 0
    assert verified.json["audit"]["identical"]
    assert verified.json["request"]["id"] == REQUEST
    text = run("verify", certificate, "--key", key, "--ledger", ledger).out
    assert "CERTIFICATE OF DELETION" in text
    assert text.rstrip().endswith("verified: signature and entry in the ledger")
    signed = json.loads(Path(certificate).read_bytes())
    assert run(*w, "certificate", REQUEST, "--json").json == signed
    written = run(*w, "certificate", REQUEST, "--format", "json", "--out", tmp_path / "c.json", "--json").json
    assert written == {"file": str(tmp_path / "c.json"), "format": "json"}
    assert json.loads((tmp_path / "c.json").read_bytes()) == signed


DRAWN = "\x1b[1A\x1b[2K\nverified: signature"


def test_a_file_from_elsewhere_draws_nothing_on_the_screen(run: Run, tmp_path: Path) -> None:
    """Neither an unsigned certificate nor a key, a column or an option moves the cursor or begins a line."""
    key = tmp_path / "signing.pub"
    key.write_bytes(SigningKey.new().public.pem)
    unsigned = {"payload": "e30=", "payloadType": DRAWN, "signatures": [{"keyid": DRAWN, "sig": "AA=="}]}
    (tmp_path / "unsigned.json").write_text(json.dumps(unsigned))
    (tmp_path / "fields.json").write_text(json.dumps({DRAWN: 1}))
    (tmp_path / "table.csv").write_text(f'"{DRAWN}",image\n1,2\n')
    w = tmp_path / "w"
    assert run("-w", w, "init").code == 0
    for arguments in (
        ("verify", tmp_path / "unsigned.json", "--key", key),
        ("verify", tmp_path / "fields.json", "--key", key),
        ("verify", f"missing{DRAWN}", "--key", key),
        ("-w", w, "add", tmp_path / "table.csv", "--label-column", DRAWN),
        ("-w", w, "requests", "cancel", DRAWN),
        ("verify", "a", "b", DRAWN),
    ):
        result = run(*arguments)
        shown = result.out + result.err
        assert result.code != 0, arguments
        assert not set(shown) & {"\x1b", "\r"}, arguments
        assert not [line for line in shown.splitlines() if line.startswith("verified")], arguments


def test_a_pending_request_is_cancelled(run: Run, work: Path) -> None:
    w = ("-w", work)
    run(*w, "requests", "accept", "--subject", "w1", "--request", REQUEST)
    assert run(*w, "requests", "cancel", REQUEST, "--json").json["state"] == "cancelled"
    again = run(*w, "requests", "cancel", REQUEST)
    assert (again.code, "possible: none" in again.err) == (2, True)


def test_a_prediction_says_that_it_went_around_a_quarantined_cluster(run: Run, work: Path, tmp_path: Path) -> None:
    with Eraser(work) as eraser:
        (tmp_path / "image.png").write_bytes(eraser.workspace.records.payloads(["digit-0002"])[0])
    w = ("-w", work)
    (before,) = run(*w, "predict", tmp_path / "image.png", "--json").json
    run(*w, "requests", "accept", "--id", "digit-0002")
    (after,) = run(*w, "predict", tmp_path / "image.png", "--json").json
    assert (before["rerouted"], after["rerouted"]) == (False, True)
    assert before["clusters"] != after["clusters"]
    assert "the next nearest was used" in run(*w, "predict", tmp_path / "image.png").out


def test_a_broken_ledger_exits_with_1(run: Run, work: Path) -> None:
    path = work / "ledger"
    path.write_bytes(path.read_bytes().replace(b'"records":40', b'"records":41'))
    broken = run("-w", work, "ledger")
    assert (broken.code, broken.out) == (1, "")
    assert "entry 1" in broken.err


def test_a_certificate_by_another_key_or_a_missing_one(run: Run, work: Path, tmp_path: Path) -> None:
    (certificate,) = run("-w", work, "unlearn", "--id", "digit-0003", "--json").json["certificates"]
    assert run("-w", tmp_path / "other", "init").code == 0
    assert run("verify", certificate, "--key", tmp_path / "other" / "signing.pub").code == 1
    assert run("verify", tmp_path / "none.json", "--key", work / "signing.pub").code == 2
    assert run("verify", certificate, "--key", work / "records.db").code == 2


def test_verifying_imports_neither_torch_nor_the_workspace(run: Run, work: Path) -> None:
    (certificate,) = run("-w", work, "unlearn", "--id", "digit-0003", "--json").json["certificates"]
    code = (
        "import sys; from lmeraser.cli.main import main\n"
        "try: main()\n"
        "finally: print({'torch', 'numpy', 'sqlalchemy'} & set(sys.modules), file=sys.stderr)"
    )
    command = [sys.executable, "-c", code, "verify", certificate, "--key", str(work / "signing.pub")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.strip()) == (0, "set()")


def test_ones_own_signing_key(run: Run, tmp_path: Path) -> None:
    key = tmp_path / "mine.pem"
    own = SigningKey.new()
    key.write_bytes(own.pem)
    assert run("-w", tmp_path / "w", "init", "--signing-key", key).code == 0
    assert (tmp_path / "w" / "signing.pub").read_bytes() == own.public.pem
    for name in ("signing.key", "secret.key"):
        assert (tmp_path / "w" / name).stat().st_mode & 0o777 == 0o600
    refused = run("-w", tmp_path / "v", "init", "--signing-key", tmp_path / "none.pem")
    assert (refused.code, (tmp_path / "v").exists()) == (2, False)


def test_residue_exits_with_1_where_something_is_left(run: Run, work: Path, tmp_path: Path) -> None:
    with Eraser(work) as eraser:
        (tmp_path / "probe.png").write_bytes(eraser.workspace.records.payloads(["digit-0002"])[0])
    w = ("-w", work)
    probe = ("--probe", tmp_path / "probe.png", "--id", "digit-0002")
    found = run(*w, "residue", *probe)
    assert (found.code, "FOUND digit-0002" in found.out) == (1, True)
    run(*w, "unlearn", "--id", "digit-0002")
    clean = run(*w, "residue", *probe)
    assert (clean.code, "nothing found" in clean.out) == (0, True)
    assert run(*w, "residue", *probe, "--json").json["clean"]
    assert run(*w, "residue").code == 2


def test_relabelling_and_drawing(run: Run, work: Path) -> None:
    w = ("-w", work)
    drawn = run(*w, "draw").out.split()
    assert [Path(path).name for path in drawn] == [*("clusters.png", "sizes.png", "classes.png", "requests.png")]
    assert all(Path(path).stat().st_size > 1000 for path in drawn)
    assert run(*w, "relabel", "--id", "digit-0002", "--label", "7", "--json").json["stage_counts"]["tuned"] == 1
    assert not any(Path(path).exists() for path in drawn), "pictures of the old model show its clusters"
    wrong = run(*w, "relabel", "--id", "digit-0002", "--label", "eleven")
    assert (wrong.code, "Class not found" in wrong.err) == (2, True)


def test_what_was_deleted_comes_back_only_on_purpose(run: Run, work: Path, tmp_path: Path) -> None:
    source = tmp_path / "digits.parquet"
    digits(range(40)).to_parquet(source)
    w = ("-w", work)
    add = ("add", source, "--id-column", "id", "--subject-column", "writer")
    run(*w, "unlearn", "--id", "digit-0002")
    refused = run(*w, *add)
    assert "1 rejected: deleted here before" in refused.out
    digits([2]).map(lambda row: {**row, "id": "another-name", "writer": "x"}).to_parquet(
        tmp_path / "renamed.parquet"
    )
    renamed = run(*w, "add", tmp_path / "renamed.parquet", "--id-column", "id", "--json").json
    assert (renamed["added"], renamed["suppressed"]) == (0, 1)
    assert run(*w, *add, "--allow-deleted", "--json").json["added"] == 1
    last = run(*w, "ledger", "--json").json["entries"][-1]
    assert (last["kind"], last["body"]["deleted_before"]) == ("added", 1)


def test_times_and_regulations_that_are_none(run: Run, work: Path) -> None:
    w = ("-w", work, "requests", "accept", "--id", "digit-0002")
    assert "RFC 3339" in run(*w, "--received", "yesterday").err
    assert "gdpr, ccpa, other" in run(*w, "--regulation", "hipaa").err
    assert run(*w, "--received", "2026-01-31", "--regulation", "gdpr", "--json").json["due"][:10] == "2026-02-28"


def test_the_version_stands_in_the_certificate(run: Run, work: Path) -> None:
    (certificate,) = run("-w", work, "unlearn", "--id", "digit-0003", "--json").json["certificates"]
    facts = run("verify", certificate, "--key", work / "signing.pub", "--json").json
    assert facts["software"] == f"lmeraser {lmeraser.__version__}"
    assert facts["environment"]["machine"]
