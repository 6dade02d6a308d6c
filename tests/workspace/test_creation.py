"""A workspace is created once, and opened only when it is complete."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import tiny_config
from lmeraser.errors import CorruptError, FormatError, InputError, WorkspaceError
from lmeraser.workspace.workspace import Workspace


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_an_empty_folder_can_become_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    Workspace.create(tmp_path / "w", tiny_config()).close()
    assert Workspace(tmp_path / "w").records.classes == ()


def test_a_folder_that_holds_something_is_left_alone(root: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    with pytest.raises(InputError, match="a workspace"):
        Workspace.create(root, tiny_config())
    with pytest.raises(InputError, match="other files"):
        Workspace.create(tmp_path, tiny_config())
    with pytest.raises(InputError, match="other files"):
        Workspace.create(root / "lmeraser.toml", tiny_config())
    assert files(tmp_path) == before


@pytest.mark.parametrize("classes", [["a", "a"], ["a", ""], ["a", "a "], ["L\u00f6we", "Lo\u0308we"]])
def test_classes_are_different_names(tmp_path: Path, classes: list[str]) -> None:
    with pytest.raises(InputError, match="classes"):
        Workspace.create(tmp_path / "w", tiny_config(), classes=classes)
    assert not (tmp_path / "w").exists()


def test_a_missing_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(WorkspaceError, match="lmeraser -w DIR init") as caught:
            Workspace(folder)
        assert str(folder.resolve()) in str(caught.value)


def test_a_folder_in_which_making_was_interrupted_is_not_a_workspace(root: Path) -> None:
    (root / "workspace.json").unlink()
    with pytest.raises(WorkspaceError):
        Workspace(root)


def test_a_newer_format_is_refused_and_left_untouched(root: Path) -> None:
    (root / "workspace.json").write_text('{"format": 2, "news": []}')
    before = files(root)
    with pytest.raises(FormatError, match="upgrade"):
        Workspace(root)
    assert files(root) == before


@pytest.mark.parametrize(
    "data", ["", "{", "[]", "1", '{"format": "x"}', "{}", '{"format": 1e999}', '{"format": null}']
)
def test_a_damaged_format_file_is_corrupt(root: Path, data: str) -> None:
    (root / "workspace.json").write_text(data)
    with pytest.raises(CorruptError, match=r"workspace\.json"):
        Workspace(root)
