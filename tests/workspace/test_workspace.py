"""A workspace opens its parts when they are used; whatever is damaged is reported as such and left as it is."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from conftest import DIGIT_COLUMNS, NOW, digits, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.config.schema import parse, read
from lmeraser.errors import ConfigError, CorruptError, LmeraserError
from lmeraser.workspace.workspace import Workspace


def use(root: Path) -> None:
    """Touch everything that a command reads."""
    workspace = Workspace(root)
    try:
        _ = workspace.config, workspace.secret, workspace.records.classes, workspace.generations.current()
        workspace.records.index()
    finally:
        workspace.close()


def test_a_workspace_is_made_with_its_settings_classes_and_a_secret(root: Path) -> None:
    assert read(root / "lmeraser.toml") == tiny_config()
    workspace = Workspace(root)
    assert workspace.config == tiny_config()
    assert workspace.records.classes == ("a", "b")
    assert len(workspace.secret) == 32
    assert (root / "secret.key").stat().st_mode & 0o777 == 0o600
    workspace.close()


@pytest.fixture
def permissive() -> Iterator[None]:
    """Nothing is masked: everybody may read and write whatever a program does not protect."""
    before = os.umask(0)
    yield
    os.umask(before)


def readable_by_others(root: Path) -> dict[str, str]:
    """Modes of whatever somebody else may open."""
    modes = {str(path): path.stat().st_mode for path in (root, *root.rglob("*"))}
    return {path: oct(mode) for path, mode in modes.items() if mode & 0o077}


@pytest.mark.sqlite
def test_nobody_else_can_read_a_workspace_whatever_the_umask(tmp_path: Path, permissive: None) -> None:
    root = tmp_path / "new" / "w"
    config = parse({"partition": {"clusters": 4, "sample_size": 12}})
    with Eraser.create(root, config, clock=lambda: NOW) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits(range(24)), columns=DIGIT_COLUMNS)
        eraser.train()
        eraser.unlearn(ids=["digit-0003"])
        assert eraser.draw()
        with eraser.workspace.writing("test"):
            assert not readable_by_others(root.parent)
    assert not readable_by_others(root.parent)


@pytest.mark.sqlite
def test_an_upgrade_protects_what_an_older_version_left_open(root: Path) -> None:
    for path in (root, *root.rglob("*")):
        path.chmod(0o777 if path.is_dir() else 0o644)
    workspace = Workspace(root)
    workspace.upgrade()
    workspace.close()
    assert not readable_by_others(root)


@pytest.mark.parametrize("data", [b"not a database", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_database_is_corrupt(root: Path, data: bytes) -> None:
    for path in root.glob("records.db-*"):
        path.unlink()
    (root / "records.db").write_bytes(data)
    with pytest.raises(CorruptError, match=r"records\.db"):
        use(root)
    assert (root / "records.db").read_bytes() == data


@pytest.mark.sqlite
@pytest.mark.parametrize("lose", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_database_that_is_lost_is_not_replaced_by_an_empty_one(
    root: Path, lose: Callable[[Path], object]
) -> None:
    """It would say that nobody's records are held."""
    lose(root / "records.db")
    before = {path: path.read_bytes() for path in root.iterdir() if path.is_file()}
    with pytest.raises(CorruptError, match=r"missing or empty: .*ledger has entries"):
        use(root)
    assert {path: path.read_bytes() for path in root.iterdir() if path.is_file()} == before


def test_damaged_settings_are_a_config_error(root: Path) -> None:
    (root / "lmeraser.toml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match=r"lmeraser\.toml"):
        use(root)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def as_garbage(path: Path) -> None:
    path.write_bytes(b"\x00\xff garbage \n" * 9)


@pytest.mark.parametrize("name", ["lmeraser.toml", "secret.key", "workspace.json", "records.db"])
@pytest.mark.parametrize("damage", [as_folder, as_garbage])
def test_whatever_is_damaged_the_error_is_one_of_ours(
    root: Path, name: str, damage: Callable[[Path], None]
) -> None:
    damage(root / name)
    with pytest.raises(LmeraserError):
        use(root)


def test_a_secret_of_another_workspace_is_refused(root: Path) -> None:
    (root / "secret.key").write_bytes(b"ab" * 32)
    with pytest.raises(CorruptError, match=r"secret\.key does not belong to this workspace"):
        use(root)
