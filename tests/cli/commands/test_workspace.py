"""What `add` says about folders as they lie on real disks, and what it never does without being asked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from conftest import Run, png
from lmeraser import Eraser

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
