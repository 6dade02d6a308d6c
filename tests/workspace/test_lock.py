"""A workspace is changed by one process at a time, and whoever waits is told who holds it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from lmeraser.errors import LockedError, StorageError
from lmeraser.workspace import lock
from lmeraser.workspace.workspace import Workspace

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
        assert Workspace(root).records.classes == ("a", "b"), "readers are not held up"


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
        patch.setattr(lock, "open_private", full)
        second = Workspace(root, wait=0.1).writing("add")
        with (
            Workspace(root).writing("add"),
            pytest.raises(LockedError, match="Another process is writing") as caught,
        ):
            second.__enter__()
        assert caught.value.got == ""
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


def test_a_workspace_that_can_only_be_read_says_what_to_do(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)
    with pytest.raises(StorageError, match="can only be read") as caught, Workspace(root).writing("train"):
        pass
    assert "copy the workspace" in caught.value.next_step
