"""What `add` says about folders as they lie on real disks, and about names; an upgrade that asks about names."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import typer

from conftest import DIGIT_COLUMNS, Run, digits, png, respell
from lmeraser import Eraser

NFC = "Ren\u00e9e"
NFD = unicodedata.normalize("NFD", NFC)
DOT = png(np.full((8, 8), 9))


def put(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


@pytest.fixture
def work(tmp_path: Path) -> Path:
    Eraser.create(tmp_path / "w").close()
    return tmp_path / "w"


def test_what_computers_put_into_folders_is_counted_and_not_imported(tmp_path: Path, work: Path, run: Run) -> None:
    fork = bytes.fromhex("00051607000200004d6163204f532058") + bytes(120)
    files = {f"cat/{n}.png": DOT for n in range(3)} | {
        "dog/0.jfif": DOT,
        "cat/notes.txt": b"",
        "cat/.DS_Store": b"x",
    }
    junk = {"cat/._0.png": fork, "__MACOSX/cat/0.png": DOT, "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg": DOT}
    root = put(tmp_path / "photos", files | junk)
    (root / ".ipynb_checkpoints").mkdir()
    shown = run("-w", work, "add", root)
    assert (shown.code, shown.out.splitlines()[:2]) == (
        0,
        [
            "4 added, 0 already present",
            "6 files and folders passed over: 1 x .DS_Store, 1 x ._*, 1 x .ipynb_checkpoints/, 1 x .txt, "
            "1 x @eaDir/, 1 x __MACOSX/",
        ],
    )
    assert run("-w", work, "classes").out.split() == ["cat", "dog"]
    again = run("-w", work, "add", root, "--json").json
    assert (again["present"], sum(again["passed_over"].values()), again["hints"]) == (4, 6, [])


def test_splits_are_asked_for(tmp_path: Path, work: Path, run: Run) -> None:
    root = put(tmp_path / "photos", {"train/cat/0.png": DOT, "test/cat/1.png": DOT})
    refused = run("-w", work, "add", root)
    assert (refused.code, refused.out) == (2, "")
    assert "splits, not classes" in refused.err
    assert "--split" in refused.err
    assert run("-w", work, "classes").out.split() == []
    assert run("-w", work, "add", root, "--split", "training").code == 0
    assert run("-w", work, "classes").out.split() == ["cat"]


def test_people_in_folders_are_found_by_their_names(tmp_path: Path, work: Path, run: Run) -> None:
    root = put(tmp_path / "photos", {"cat/patient 17/0.png": DOT, "dog/patient 18/0.png": DOT})
    assert run("-w", work, "add", root, "--subject-pattern", "/(?P<subject>[^/]+)/[^/]+$").code == 0
    assert run("-w", work, "add", root, "--subject-level", "2").out.startswith("0 added, 2 already present")
    with Eraser(work) as eraser:
        assert eraser.workspace.records.of_subjects(["patient 17"]) == {"patient 17": ["cat/patient 17/0.png"]}


def test_a_column_for_people_is_never_ignored(tmp_path: Path, work: Path, run: Run) -> None:
    root = put(tmp_path / "photos", {"cat/0.png": DOT})
    refused = run("-w", work, "add", root, "--subject-column", "person")
    assert refused.code == 2
    assert "no columns: --subject-column" in refused.err
    columns = {"image": pa.array([DOT]), "label": pa.array(["cat"]), "patient": pa.array(["17"])}
    parquet.write_table(pa.table(columns), tmp_path / "x.parquet")
    assert run("-w", work, "add", root).code == 0
    shown = run("-w", work, "add", tmp_path / "x.parquet")
    assert shown.code == 0
    assert "note: the column 'patient' was not used" in shown.out


def test_an_encapsulated_postscript_file_under_another_name_is_not_opened(
    tmp_path: Path, work: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pillow would start Ghostscript with it."""
    started: list[object] = []
    monkeypatch.setattr("subprocess.Popen", lambda *command, **_: started.append(command))
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    root = put(tmp_path / "photos", {"cat/0.png": eps})
    refused = run("-w", work, "add", root)
    assert (refused.code, started) == (2, [])
    assert "Not an image file" in refused.err


# --- names and spellings


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

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(typer, "confirm", lambda question: False)
    assert run("-w", held, "upgrade").code == 2
    assert of_subject(run, held, NFC) == ["digit-0000"]
    monkeypatch.setattr(typer, "confirm", lambda question: True)
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


NOTHING: list[tuple[str, ...]] = [
    ("classes", "--add", ""),
    ("add", "data", "--split", ""),
    ("add", "data", "--id-column", ""),
    ("add", "data", "--subject-column", ""),
    ("requests", "accept", "--id", ""),
    ("requests", "accept", "--subject", ""),
    ("requests", "accept", "--id", "digit-0002", "--received", ""),
    ("unlearn", "--request", ""),
    ("unlearn", "--subject", " "),
    ("unlearn", "--ids-file", "empty.txt"),
    ("plan", "--ids-file", "empty.txt"),
    ("relabel", "--label", "0", "--ids-file", "empty.txt"),
]


def test_an_option_with_nothing_in_it_is_an_error(
    run: Run, held: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    put(tmp_path, {"data/cat/1.png": DOT, "empty.txt": b"\n"})
    assert run("-w", held, "requests", "accept", "--id", "digit-0001").code == 0
    refused = {command: run("-w", held, *command) for command in NOTHING}
    assert {command: result.code for command, result in refused.items()} == dict.fromkeys(NOTHING, 2)
    assert not [result.err for result in refused.values() if "Traceback" in result.err]
    with Eraser(held) as eraser:
        assert [request.state for request in eraser.requests()] == ["pending"]
        assert (eraser.workspace.records.count(), len(eraser.classes)) == (6, 10)


def test_no_workspace_is_made_with_an_empty_list_of_classes(run: Run, tmp_path: Path) -> None:
    assert run("-w", tmp_path / "w", "init", "--classes", "").code == 2
    assert not (tmp_path / "w").exists()
