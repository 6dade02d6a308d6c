"""A workspace is made once, opened only when it is whole, and changed by one process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from conftest import tiny_config
from lmeraser.config.schema import read
from lmeraser.errors import (
    ConfigError,
    CorruptError,
    FormatError,
    InputError,
    LmeraserError,
    LockedError,
    StorageError,
    WorkspaceError,
)
from lmeraser.workspace.workspace import Workspace


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A new workspace with two classes and an empty database."""
    folder = tmp_path / "w"
    Workspace.create(folder, tiny_config(), classes=["a", "b"]).close()
    return folder


def use(root: Path) -> None:
    """Touch everything that a command reads."""
    workspace = Workspace(root)
    try:
        _ = workspace.config, workspace.secret, workspace.records.classes, workspace.generations.current()
        workspace.records.index()
    finally:
        workspace.close()


# --- making and opening ------------------------------------------------------------------------------------


def test_a_workspace_is_made_with_its_settings_classes_and_a_secret(root: Path) -> None:
    assert read(root / "lmeraser.toml") == tiny_config()
    workspace = Workspace(root)
    assert workspace.config == tiny_config()
    assert workspace.records.classes == ("a", "b")
    assert len(workspace.secret) == 32
    assert (root / "secret.key").stat().st_mode & 0o777 == 0o600
    workspace.close()


def test_every_workspace_has_its_own_secret(tmp_path: Path) -> None:
    secrets = {Workspace.create(tmp_path / name, tiny_config()).secret for name in "abc"}
    assert len(secrets) == 3


def test_an_empty_folder_can_become_a_workspace(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    Workspace.create(tmp_path / "w", tiny_config()).close()
    use(tmp_path / "w")


def test_a_folder_that_holds_something_is_left_alone(root: Path, tmp_path: Path) -> None:
    before = files(tmp_path)
    with pytest.raises(InputError, match="a workspace"):
        Workspace.create(root, tiny_config())
    with pytest.raises(InputError, match="other files"):
        Workspace.create(tmp_path, tiny_config())
    with pytest.raises(InputError, match="empty or missing"):
        Workspace.create(root / "lmeraser.toml", tiny_config())
    assert files(tmp_path) == before


@pytest.mark.parametrize("classes", [["a", "a"], ["a", ""]])
def test_classes_are_different_names(tmp_path: Path, classes: list[str]) -> None:
    with pytest.raises(InputError, match="classes"):
        Workspace.create(tmp_path / "w", tiny_config(), classes=classes)
    assert not (tmp_path / "w").exists()


def test_a_missing_workspace_says_how_to_make_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for folder in (tmp_path, tmp_path / "none", tmp_path / "file"):
        with pytest.raises(WorkspaceError, match="init") as caught:
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


# --- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data", ["", "{", "[]", "1", '{"format": "x"}', "{}", '{"format": 1e999}', '{"format": null}']
)
def test_a_damaged_format_file_is_corrupt(root: Path, data: str) -> None:
    (root / "workspace.json").write_text(data)
    with pytest.raises(CorruptError, match=r"workspace\.json"):
        use(root)


@pytest.mark.parametrize("data", [b"", b"ab", b"not hex", b"\xff" * 64, b"0" * 62])
def test_a_damaged_secret_is_corrupt(root: Path, data: bytes) -> None:
    """With another secret, deleted records could be added again and every memo would be lost."""
    (root / "secret.key").write_bytes(data)
    with pytest.raises(CorruptError, match=r"secret\.key"):
        use(root)


def test_a_missing_secret_is_not_made_anew(root: Path) -> None:
    (root / "secret.key").unlink()
    with pytest.raises(CorruptError, match=r"secret\.key"):
        use(root)
    assert not (root / "secret.key").exists()


@pytest.mark.parametrize("data", [b"not a database", b"SQLite format 3\x00" + b"\xff" * 5000])
def test_a_damaged_database_is_corrupt(root: Path, data: bytes) -> None:
    for path in root.glob("records.db-*"):
        path.unlink()
    (root / "records.db").write_bytes(data)
    with pytest.raises(CorruptError, match=r"records\.db"):
        use(root)
    assert (root / "records.db").read_bytes() == data


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


# --- one writer --------------------------------------------------------------------------------------------

_HOLDER = """
import sys
from lmeraser.workspace.workspace import Workspace

with Workspace(sys.argv[1]).writing("train"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def holder(root: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that writes until its standard input is closed."""
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", _HOLDER, str(root)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        yield process


def test_a_second_writer_waits_and_then_says_who_writes(root: Path) -> None:
    with holder(root) as process:
        started = time.monotonic()
        with pytest.raises(LockedError) as caught, Workspace(root, wait=0.3).writing("add"):
            raise AssertionError("two writers")
        assert time.monotonic() - started >= 0.3
        assert "'train'" in caught.value.got
        assert f"process {process.pid}" in caught.value.got
        assert "--wait" in caught.value.next_step
        use(root)  # readers are not held up


def test_a_writer_that_waits_long_enough_gets_its_turn(root: Path) -> None:
    with holder(root) as process:
        assert process.stdin is not None
        threading.Timer(0.2, process.stdin.close).start()
        with Workspace(root, wait=30).writing("add"):
            assert process.wait(30) == 0


def test_a_writer_that_was_killed_holds_up_nobody(root: Path) -> None:
    with holder(root) as process:
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        assert (root / "lock.holder").exists()
        with Workspace(root, wait=5).writing("add"):
            assert str(os.getpid()) in (root / "lock.holder").read_text()
    assert not (root / "lock.holder").exists()


def test_writing_may_be_nested(root: Path) -> None:
    workspace = Workspace(root, wait=0.1)
    with workspace.writing("unlearn"):
        with workspace.writing("train"):
            assert "unlearn" in (root / "lock.holder").read_text()
        assert (root / "lock.holder").exists()
        with pytest.raises(LockedError, match="unlearn"), Workspace(root, wait=0.1).writing("add"):
            pass
    assert not (root / "lock.holder").exists()
    with Workspace(root, wait=0.1).writing("add"):
        pass


def test_a_writer_that_fails_lets_go(root: Path) -> None:
    with pytest.raises(ZeroDivisionError), Workspace(root).writing("add"):
        _ = 1 // 0
    with Workspace(root, wait=0.1).writing("add"):
        pass


def test_a_full_disk_names_no_holder_and_does_not_keep_the_lock(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        second = Workspace(root, wait=0.1).writing("add")
        with Workspace(root).writing("add"), pytest.raises(LockedError, match="another process holds it"):
            second.__enter__()
    with Workspace(root, wait=0.1).writing("add"):
        pass


def test_a_lock_that_cannot_be_made_is_a_storage_error(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "lock").unlink(missing_ok=True)
    real = os.open

    def read_only(path: str, *arguments: int) -> int:
        if Path(path).name == "lock":
            raise OSError(30, "Read-only file system")
        return real(path, *arguments)

    monkeypatch.setattr(os, "open", read_only)
    with pytest.raises(StorageError, match="Read-only"), Workspace(root, wait=0.1).writing("add"):
        pass
