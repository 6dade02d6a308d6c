"""A new workspace."""

from __future__ import annotations

from pathlib import Path

import pytest

from conftest import tiny_config
from lmeraser.workspace.workspace import Workspace


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A new workspace with two classes and an empty database."""
    folder = tmp_path / "w"
    Workspace.create(folder, tiny_config(), classes=["a", "b"]).close()
    return folder
