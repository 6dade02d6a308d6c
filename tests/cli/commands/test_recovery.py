"""The commands about backups, with a real model: the digest after restoring is that from before."""

from __future__ import annotations

import shutil
from pathlib import Path

from conftest import Run


def test_back_up_delete_restore(run: Run, work: Path, tmp_path: Path) -> None:
    w = ("-w", work)
    archive = tmp_path / "backup.tar"
    made = run(*w, "backup", archive, "--json")
    assert (made.code, made.json["records"]) == (0, 40)
    assert run(*w, "unlearn", "--subject", "w2", "--json").json["records_deleted"] == 8
    before = run(*w, "status", "--json").json
    assert run(*w, "ledger", "--export", tmp_path / "ledger", "--export-head", tmp_path / "head").code == 0
    shutil.rmtree(work)
    asked = run(*w, "restore", archive)
    both = run(*w, "restore", archive, "--ledger", tmp_path / "ledger", "--no-newer-ledger")
    assert (both.code, "Conflicting options" in both.err) == (2, True)
    assert (asked.code, "Newest ledger not given" in asked.err) == (2, True)
    newest = ("--ledger", tmp_path / "ledger", "--head", tmp_path / "head")
    restored = run(*w, "restore", archive, *newest, "--json")
    assert (restored.code, restored.json["records_deleted"]) == (0, 8)
    after = run(*w, "status", "--json").json
    assert after["model_digest"] == before["model_digest"] == restored.json["model_digest"]
    assert run(*w, "ledger").code == 0
    assert run(*w, "audit").code == 0


def test_a_workspace_that_was_set_back(run: Run, work: Path, tmp_path: Path) -> None:
    w = ("-w", work)
    shutil.copytree(work, tmp_path / "snapshot")
    run(*w, "unlearn", "--id", "digit-0003")
    digest = run(*w, "status", "--json").json["model_digest"]
    run(*w, "ledger", "--export", tmp_path / "ledger", "--export-head", tmp_path / "head")
    back = ("-w", tmp_path / "snapshot")
    refused = run(*back, "serve", "--head", tmp_path / "head")
    assert (refused.code, "lmeraser replay" in refused.err) == (1, True)
    again = run(*back, "replay", "--ledger", tmp_path / "ledger", "--head", tmp_path / "head", "--json")
    assert (again.code, again.json["records_deleted"], again.json["model_digest"]) == (0, 1, digest)
    broken = tmp_path / "broken"
    broken.write_bytes((tmp_path / "ledger").read_bytes()[:-5])
    assert run(*back, "replay", "--ledger", broken).code == 1
    assert run(*back, "replay", "--ledger", tmp_path / "none").code == 2
    old_name = run(*back, "reapply", "--ledger", tmp_path / "ledger", "--json")
    assert (old_name.code, old_name.json["entries"], "use 'lmeraser replay'" in old_name.err) == (0, 0, True)
    assert run(*back, "restore", tmp_path / "none", "--no-newer-ledger").code == 2
