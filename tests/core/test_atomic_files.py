"""A reader sees the old bytes or the new ones, whatever fails in between, and nothing else is left behind."""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lmeraser.core.atomic_files import (
    SHARED,
    files_without_links,
    storage_errors,
    write_all_atomic,
    write_atomic,
)
from lmeraser.errors import StorageError


def refuse(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class FullDisk(io.FileIO):
    """A file on a disk without space."""

    def write(self, data: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail_write(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "fdopen", lambda handle, mode: FullDisk(handle, mode))


def fail_fsync(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(os, "fsync", refuse)


def fail_chmod(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "chmod", refuse)


def fail_rename(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Path, "replace", refuse)


FAILURES = [fail_write, fail_fsync, fail_chmod, fail_rename]


@pytest.mark.parametrize("fail", FAILURES)
def test_a_full_disk_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[pytest.MonkeyPatch], None]
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old")
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(StorageError, match="No space left on device") as caught:
            write_atomic(path, b"new")
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
    write_atomic(path, b"new")
    assert path.read_bytes() == b"new"


@pytest.mark.parametrize("fail", FAILURES)
def test_a_full_disk_leaves_no_new_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail: Callable[[pytest.MonkeyPatch], None]
) -> None:
    with monkeypatch.context() as patch:
        fail(patch)
        with pytest.raises(StorageError):
            write_atomic(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_an_interruption_is_passed_on_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomic(tmp_path / "file", b"new")
    assert list(tmp_path.iterdir()) == []


def test_a_file_keeps_the_mode_it_is_written_with(tmp_path: Path) -> None:
    write_atomic(tmp_path / "a" / "public", b"x", mode=SHARED)
    write_atomic(tmp_path / "a" / "private", b"x")
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "a").iterdir()}
    assert modes == {"public": 0o644, "private": 0o600}


def test_a_reader_with_the_old_file_open_goes_on_reading_it(tmp_path: Path) -> None:
    write_atomic(tmp_path / "file", b"old")
    with (tmp_path / "file").open("rb") as reader:
        write_atomic(tmp_path / "file", b"new")
        assert reader.read() == b"old"


def test_a_folder_that_is_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageError):
        write_atomic(tmp_path / "file" / "below", b"x")


def test_only_errors_of_the_operating_system_are_translated(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), storage_errors(tmp_path):
        _ = 1 // 0


@pytest.mark.parametrize("count", [0, 1, 3, 40])
def test_several_files_are_written_each_as_one(tmp_path: Path, count: int) -> None:
    files = {tmp_path / f"folder-{n % 2}" / f"{n}.json": b"new" * n for n in range(count)}
    for path in list(files)[:1]:
        write_atomic(path, b"old")
    write_all_atomic(files)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files
    assert {path.stat().st_mode & 0o777 for path in files} <= {0o600}


@pytest.mark.parametrize("count", [3, 40])
def test_no_temporary_file_is_left_where_several_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    files = {tmp_path / f"{n}.json": b"new" for n in range(count)}
    write_atomic(tmp_path / "0.json", b"old")
    fail_fsync(monkeypatch)
    with pytest.raises(StorageError):
        write_all_atomic(files)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"0.json": b"old"}


def test_files_are_listed_at_any_depth_and_links_are_refused(tmp_path: Path) -> None:
    assert list(files_without_links(tmp_path / "missing")) == []
    for name in ("a", "b/c", "b/d/e"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert sorted(files_without_links(tmp_path)) == sorted(str(tmp_path / name) for name in ("a", "b/c", "b/d/e"))
    (tmp_path / "b" / "link").symlink_to(tmp_path / "a")
    with pytest.raises(StorageError, match="Symbolic link"):
        list(files_without_links(tmp_path))
