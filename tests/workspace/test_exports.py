"""Every copy that leaves is on record, is recalled when a record in it is erased, and is nobody's name."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from conftest import Run, Template
from faults import NOW, ORDINARY, REQUEST, name, opened
from lmeraser import Eraser
from lmeraser.errors import InputError, LmeraserError, RequestConflictError, StorageError, VerificationError
from lmeraser.evidence.entries import ModelExported, events_of
from lmeraser.inference.export import folder
from lmeraser.workspace.backup import backup
from lmeraser.workspace.replay import replay
from serving import fake_workspace, set_service

CONTACT = "Dr. Henrietta Smith, +44 20 7946 0000"


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    return fake_workspace(template, tmp_path)


@pytest.fixture
def eraser(root: Path) -> Iterator[Eraser]:
    with opened(root) as one:
        yield one


def states(eraser: Eraser) -> list[tuple[str, int]]:
    return [(held.copy.state, held.copy.records_erased) for held in eraser.exports()]


def test_a_deletion_recalls_the_copies_of_before_and_a_confirmation_closes_one(
    eraser: Eraser, tmp_path: Path
) -> None:
    first = eraser.export(tmp_path / "first", holder_contact=CONTACT)
    second = eraser.export(tmp_path / "second")
    assert states(eraser) == [("clear", 0), ("clear", 0)]
    eraser.workspace.clock = lambda: NOW + timedelta(days=1)
    eraser.unlearn(ids=[name(ORDINARY), name(0)])
    third = eraser.export(tmp_path / "third")
    assert states(eraser) == [("recalled", 2), ("recalled", 2), ("clear", 0)]
    held = eraser.exports()[0]
    assert held.copy.since == "2026-02-01T12:00:00Z"
    assert held.holder.contact == CONTACT
    assert (held.copy.generation, third.generation) == (0, 1)
    told = eraser.tell_export(first.export)
    assert (told.copy.told, told.copy.told_of) == ("2026-02-01T12:00:00Z", 2)
    for _ in range(2):
        assert eraser.confirm_export(first.export).copy.confirmed == "2026-02-01T12:00:00Z"
    eraser.unlearn(ids=[name(1)])
    assert states(eraser) == [("confirmed", 2), ("recalled", 3), ("recalled", 1)]
    assert eraser.check_ledger().sound
    kinds = [entry.kind for entry in eraser.workspace.ledger.entries()]
    assert kinds.count("export_confirmed") == 1
    assert second.export != first.export


def test_what_cannot_be_told_or_confirmed_says_why(eraser: Eraser, tmp_path: Path) -> None:
    made = eraser.export(tmp_path / "out")
    with pytest.raises(InputError, match="Nothing to tell"):
        eraser.tell_export(made.export)
    with pytest.raises(InputError, match="Export not found"):
        eraser.confirm_export(REQUEST)
    with pytest.raises(InputError, match="not a UUID"):
        eraser.confirm_export("nonsense")
    for contact in ("", "two\nlines", "x" * 1001):
        with pytest.raises(InputError, match="one line"):
            eraser.export(tmp_path / "other", holder_contact=contact)
    with pytest.raises(InputError, match="may not be called"):
        eraser.export(tmp_path / "other", holder_url="https://elsewhere.example/")
    assert len(eraser.exports()) == 1
    assert not (tmp_path / "other").exists()


def test_a_relabelled_record_recalls_copies_that_learned_the_old_label(eraser: Eraser, tmp_path: Path) -> None:
    eraser.export(tmp_path / "out")
    eraser.relabel("eel", ids=[name(4)])
    (held,) = eraser.exports()
    assert (held.copy.state, held.copy.records_erased, held.copy.records_rectified) == ("recalled", 0, 1)


@pytest.mark.sqlite
def test_a_holder_is_in_no_file_as_text(eraser: Eraser, tmp_path: Path) -> None:
    set_service(eraser.workspace.root, callback_hosts=["holder.example"])
    with opened(eraser.workspace.root) as again:
        again.export(tmp_path / "out", holder_url="https://holder.example/henrietta", holder_contact=CONTACT)
        again.workspace.ledger.flush()
        assert again.exports()[0].to_json()["holder_url"] == "https://holder.example/henrietta"
    for path in (*eraser.workspace.root.rglob("*"), *(tmp_path / "out").rglob("*")):
        if path.is_file():
            data = path.read_bytes().lower()
            assert b"henrietta" not in data
            assert b"7946 0000" not in data
    assert not eraser.residue(ids=[CONTACT]).clean, "but the residue scan, which has the keys, finds it"


def test_a_request_that_is_accepted_while_the_files_are_written_stops_the_export(
    eraser: Eraser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = folder._write

    def accepting(workspace: Any, *rest: Any) -> Any:
        with opened(workspace.root) as other:
            other.request(ids=[name(4)])
        return write(workspace, *rest)

    monkeypatch.setattr(folder, "_write", accepting)
    with pytest.raises(RequestConflictError):
        eraser.export(tmp_path / "place" / "out")
    assert list((tmp_path / "place").iterdir()) == []
    assert eraser.exports() == []
    assert eraser.check_ledger().sound


def test_a_copy_that_cannot_be_moved_to_its_place_is_on_record_as_deleted(
    eraser: Eraser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    report = folder._report

    def occupying(out: Path, *rest: Any) -> Any:
        out.mkdir()
        (out / "notes").write_text("mine")
        return report(out, *rest)

    monkeypatch.setattr(folder, "_report", occupying)
    with pytest.raises(StorageError):
        eraser.export(tmp_path / "place" / "out")
    assert [path.name for path in (tmp_path / "place").rglob("*")] == ["out", "notes"]
    assert states(eraser) == [("confirmed", 0)]


def test_a_restored_workspace_still_recalls_copies_of_after_the_backup(eraser: Eraser, tmp_path: Path) -> None:
    from lmeraser.workspace.restore import restore

    before = eraser.export(tmp_path / "before", holder_contact=CONTACT)
    backup(eraser.workspace, tmp_path / "backup.tar")
    old = Path(shutil.copytree(eraser.workspace.root, tmp_path / "old"))
    after = eraser.export(tmp_path / "after", holder_contact=CONTACT)
    eraser.unlearn(ids=[name(4)])
    eraser.confirm_export(before.export)
    newest = (eraser.workspace.root / "ledger").read_bytes()
    with opened(old) as replayed:
        replay(replayed.workspace, newest)
        assert replayed.workspace.exports.ids() == {before.export, after.export}
        assert [held.copy for held in replayed.exports()] == [held.copy for held in eraser.exports()]
        assert [held.holder.contact for held in replayed.exports()] == [CONTACT, None]
        assert states(replayed) == [("confirmed", 1), ("recalled", 1)]
        assert replayed.check_ledger().sound
    restore(tmp_path / "backup.tar", tmp_path / "restored", newest=(tmp_path / "old" / "ledger").read_bytes())
    with opened(tmp_path / "restored") as restored:
        assert restored.workspace.exports.ids() == {before.export, after.export}


def test_a_copy_that_was_taken_off_the_record_is_a_difference(eraser: Eraser, tmp_path: Path) -> None:
    made = eraser.export(tmp_path / "out")
    with eraser.workspace.database.transaction() as connection:
        connection.execute(text("DELETE FROM exports"))
    assert eraser.check_ledger().differences == (f"copy {made.export} is not known, but the ledger records it",)


def test_recalls_are_due_once_for_each_further_erasure_and_are_tried_again(root: Path, tmp_path: Path) -> None:
    set_service(root, callback_hosts=["holder.example"])
    with opened(root) as eraser:
        exports = eraser.workspace.exports
        made = eraser.export(tmp_path / "out", holder_url="https://holder.example/")
        eraser.export(tmp_path / "other", holder_contact=CONTACT)
        assert exports.due(NOW) == []
        eraser.unlearn(ids=[name(4)])
        (notice,) = exports.due(NOW)
        assert (notice.copy.id, notice.url, notice.tries) == (made.export, "https://holder.example/", 0)
        assert exports.failed(notice, now=NOW, patience=timedelta(days=1))
        assert exports.due(NOW) == []
        (again,) = exports.due(NOW + timedelta(minutes=1))
        assert not exports.failed(again, now=NOW + timedelta(days=2), patience=timedelta(days=1))
        (later,) = exports.due(NOW + timedelta(days=3))
        with eraser.workspace.request_transaction("test") as connection:
            exports.told(connection, later.copy, now=NOW)
        assert exports.due(NOW + timedelta(days=9)) == []
        eraser.unlearn(ids=[name(5)])
        assert [notice.copy.outdated for notice in exports.due(NOW + timedelta(days=9))] == [2]
        eraser.confirm_export(made.export)
        assert exports.due(NOW + timedelta(days=9)) == []


def test_the_commands_list_tell_and_confirm(eraser: Eraser, tmp_path: Path, run: Run) -> None:
    root = eraser.workspace.root
    made = run("-w", root, "export", tmp_path / "out", "--holder-contact", CONTACT, "--json")
    assert made.code == 0
    export = made.json["export"]
    eraser.unlearn(ids=[name(4)])
    listed = run("-w", root, "exports")
    assert listed.code == 0
    assert export in listed.out
    words = " ".join(listed.out.split())
    assert "recalled" in words
    assert "influence of 1 erased" in words
    assert "holder not told yet" in words
    assert run("-w", root, "exports", "tell", export, "--json").json["told_of"] == 1
    assert re.search(rf"export +{export}", run("-w", root, "exports", "confirm", export).out)
    assert run("-w", root, "exports", "confirm", export, "--json").json["state"] == "confirmed"
    (copy,) = run("-w", root, "exports", "--json").json
    assert (copy["holder_contact"], copy["records_erased"]) == (CONTACT, 1)
    assert run("-w", root, "exports", "confirm", "x").code == 2


def test_the_ledger_names_the_manifest(eraser: Eraser, tmp_path: Path) -> None:
    made = eraser.export(tmp_path / "out")
    ((_, event),) = events_of(eraser.workspace.ledger.entries(), ModelExported)
    assert (event.export, event.manifest) == (made.export, made.manifest)
    with contextlib.suppress(LmeraserError):
        assert json.loads((tmp_path / "out" / "export.json").read_text())["export"] == made.export


def test_certificates_tell_of_copies_and_agree_with_the_ledger(eraser: Eraser, tmp_path: Path) -> None:
    from lmeraser.evidence.certificate import verify, verify_in_ledger

    first = eraser.export(tmp_path / "first")
    second = eraser.export(tmp_path / "second")
    key = eraser.workspace.signing_key.public

    def certificate(record: int) -> tuple[dict[str, Any], bytes, str]:
        (path,) = eraser.unlearn(ids=[name(record)]).certificates
        data = Path(path).read_bytes()
        return verify(data, key), data, Path(path).with_suffix(".txt").read_text()

    facts, data, rendered = certificate(4)
    assert [(copy["id"], copy["records_erased"], copy["confirmed"]) for copy in facts["copies_outside"]] == [
        (first.export, 1, None),
        (second.export, 1, None),
    ]
    assert "deletion not confirmed yet" in rendered
    eraser.tell_export(first.export)
    eraser.confirm_export(first.export)
    later, later_data, rendered = certificate(5)
    assert [(copy["records_erased"], copy["confirmed"]) for copy in later["copies_outside"]] == [
        (1, "2026-01-31T12:00:00Z"),
        (2, None),
    ]
    assert f"{first.export}, generation 0, made on 2026-01-31: 1 erased since; recalled on" in " ".join(
        rendered.split()
    )
    assert "deletion confirmed on 2026-01-31" in " ".join(rendered.split())
    ledger = (eraser.workspace.root / "ledger").read_bytes()
    for told, signed in ((facts, data), (later, later_data)):
        verify_in_ledger(signed, told, ledger)
    lied = {**later, "copies_outside": later["copies_outside"][:1]}
    with pytest.raises(VerificationError, match="contradicts the ledger"):
        verify_in_ledger(later_data, lied, ledger)
