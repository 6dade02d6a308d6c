"""Commands for records and their names: what an import says of spellings, and an upgrade that asks about them."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import pytest

from conftest import DIGIT_COLUMNS, Run, digits, respell
from lmeraser import Eraser
from lmeraser.cli.commands import workspace as commands

NFC = "Ren\u00e9e"
NFD = unicodedata.normalize("NFD", NFC)


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """A workspace of six digits, of which 0.1 held two subjects in two spellings and one in another one."""
    root = tmp_path / "w"
    with Eraser.create(root) as eraser:
        eraser.add(digits(range(6)), columns=DIGIT_COLUMNS)
        records = eraser.workspace.records
        for number, subject in enumerate((NFC, NFD, "x", "x ", " y", "z")):
            respell(records, f"digit-{number:04d}", subject=subject, before=True)
        respell(records, "digit-0005", to="digit 5 ", before=True)
    return root


def of_subject(run: Run, root: Path, subject: str) -> list[str]:
    with Eraser(root) as eraser:
        return eraser.workspace.records.of_subjects([subject]).get(subject, [])


def test_an_upgrade_asks_before_spellings_become_one_name(
    run: Run, held: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = run("-w", held, "upgrade")
    assert refused.code == 2
    assert "'x' is written 'x', 'x '" in refused.err
    assert r"is written 'Rene\u0301e', 'Ren\xe9e'" in refused.err
    assert "'y'" not in refused.err
    assert "--merge-names" in refused.err
    assert of_subject(run, held, NFC) == ["digit-0000"], "nothing was merged"
    ambiguous = run("-w", held, "requests", "accept", "--subject", "x")
    assert (ambiguous.code, "may be any of 'x', 'x '" in ambiguous.err) == (2, True)
    assert run("-w", held, "requests", "--json").json == []
    for name in (["--subject", "y"], ["--id", "digit 5"]):
        assert run("-w", held, "requests", "accept", *name).code == 0, "old names can be named"

    monkeypatch.setattr(commands.sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(commands.typer, "confirm", lambda question: False)
    assert run("-w", held, "upgrade").code == 2
    assert of_subject(run, held, NFC) == ["digit-0000"]
    monkeypatch.setattr(commands.typer, "confirm", lambda question: True)
    done = run("-w", held, "upgrade")
    assert done.code == 0
    assert "subject 'y' is found in every spelling now: ' y'" in done.out
    assert "ids of the name 'digit 5' stay as they are: 'digit 5 '" in done.out
    assert of_subject(run, held, NFD) == ["digit-0000", "digit-0001"]


def test_an_upgrade_merges_unasked_only_if_it_was_told_to(run: Run, held: Path) -> None:
    refused = run("-w", held, "upgrade", "--json")
    assert (refused.code, refused.out) == (2, "")
    done = run("-w", held, "upgrade", "--merge-names", "--json").json
    assert done["subjects"] == {NFC: sorted((NFC, NFD)), "x": ["x", "x "], "y": [" y"]}
    assert done["ids"] == {"digit 5": ["digit 5 "]}
    accepted = run("-w", held, "requests", "accept", "--subject", "x\t", "--json").json
    assert accepted["names"] == 1
    with Eraser(held) as eraser:
        assert eraser.workspace.requests.pending_selection().ids == ("digit-0002", "digit-0003")
    again = run("-w", held, "upgrade", "--json").json
    assert (again["subjects"], again["ids"]) == ({}, {"digit 5": ["digit 5 "]})


def test_an_import_says_which_names_it_found_in_several_spellings(run: Run, tmp_path: Path) -> None:
    source = digits(range(4)).remove_columns(["id", "writer"])
    source = source.add_column("id", ["17", "17 ", "a ", "b"]).add_column("writer", [NFC, NFD, "x", "x"])
    source.to_parquet(tmp_path / "rows.parquet")
    run("-w", tmp_path / "w", "init")
    columns = ("--id-column", "id", "--subject-column", "writer")
    added = run("-w", tmp_path / "w", "add", tmp_path / "rows.parquet", *columns)
    assert "note: ids '17', '17 ' differ in white space alone, and stay different" in added.out
    assert f"note: subject '{NFC}' is written in 2 ways" in added.out
    again = run("-w", tmp_path / "w", "add", tmp_path / "rows.parquet", *columns, "--json").json
    assert (again["present"], again["spellings"]) == (4, [])
