"""A writer completes what a crash left undone, and records nothing twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from conftest import Template
from faults import CLASSES, CONFIG, NOW, opened, trained
from lmeraser import Eraser
from lmeraser.workspace.recovery import Recovery, forget_recorded_generation
from lmeraser.workspace.workspace import Workspace


def kinds(eraser: Eraser) -> list[str]:
    return [entry.kind for entry in eraser.check_ledger().entries]


def _train(root: Path) -> None:
    Eraser.create(root, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(root) as eraser:
        trained(eraser)


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    """A trained workspace."""
    return Path(shutil.copytree(template("recovery", _train), tmp_path / "w"))


def test_recovery_of_a_complete_workspace_changes_nothing(root: Path) -> None:
    with opened(root) as eraser:
        before = kinds(eraser)
        with eraser.workspace.writing("test"):
            eraser.workspace.recover()
        assert kinds(eraser) == before == ["workspace", "added", "generation"]


def test_creation_is_recorded_by_the_next_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Recovery, "record_creation", lambda *_, **__: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            Workspace.create(tmp_path / "w", CONFIG, classes=CLASSES)
    with opened(tmp_path / "w") as eraser:
        assert kinds(eraser) == []
        with eraser.workspace.writing("test"):
            pass
        assert kinds(eraser) == ["workspace"]


def test_a_generation_that_was_published_is_recorded_by_the_next_writer(root: Path) -> None:
    with opened(root) as eraser:
        with eraser.workspace.database.transaction() as connection:
            forget_recorded_generation(eraser.workspace.database, connection)
        assert kinds(eraser).count("generation") == 1
        with eraser.workspace.writing("test"):
            pass
        assert kinds(eraser).count("generation") == 2
