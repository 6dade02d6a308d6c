"""Atomic and durable writing of files: a reader sees the old bytes or the new ones, never half of them.

Steps: write under a temporary name beside the target, flush to the disk, rename, flush the folder. Names of
    temporary files begin with `TEMPORARY`; the next purge removes those that a killed process left behind.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from lmeraser.errors import InputError, StorageError

TEMPORARY = ".tmp-"


def write_atomic(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace the file at ``path``; after any failure the old file is there and no temporary one.

    Raises:
        StorageError: the operating system refused, for instance because the disk is full.
    """
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


def read_file(path: Path) -> bytes:
    """Read a file that the user named.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            "Cannot read file", got=f"{path}: {error.strerror}", next_step="check the path and its permissions"
        ) from error


def append(path: Path, data: bytes) -> None:
    """Append ``data`` to a file and flush it; a crash may leave a part of it there.

    Raises:
        StorageError: the operating system refused.
    """
    with storage_errors(path):
        is_new = not path.exists()
        with path.open("ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            flush_folder(path.parent)


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an `OSError` of reading or writing ``path`` into a `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(
            "Cannot read or write the workspace's disk",
            got=f"{path}: {error.strerror or error}",
            next_step="free some space or check the permissions, then run the same command again; "
            "finished parts are kept",
        ) from error


def flush_folder(folder: Path) -> None:
    """Wait until the directory entries of a folder are on the disk."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
