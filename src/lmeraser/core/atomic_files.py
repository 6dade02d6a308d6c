"""Atomic and durable writing of files: a reader sees the old bytes or the new ones, never half of them.

Files and folders are readable by their owner alone, whatever the umask, unless a caller shares them.

Steps: write under a temporary name beside the target, flush to the disk, rename, flush the folder. Names of
    temporary files begin with `TEMPORARY`; the next purge removes those that a killed process left behind.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

from lmeraser.errors import InputError, StorageError

T = TypeVar("T")

TEMPORARY = ".tmp-"
_WRITTEN_AT_ONCE = 16  # files, when there are many
_FEWEST_OF_A_THREAD = 4  # files; a thread for less takes longer than to write them
PRIVATE = 0o600  # mode of files
SHARED = 0o644
_PRIVATE_FOLDER = 0o700


def write_atomic(path: Path, data: bytes, *, mode: int = PRIVATE) -> None:
    """Replace the file at ``path``; after any failure the old file is there and no temporary one.

    Args:
        path: of the file; missing folders are created.
        data: its bytes.
        mode: `PRIVATE`, or `SHARED` for what holds nothing private.

    Raises:
        StorageError: the operating system refused, for instance because the disk is full.
    """
    write_parts_atomic(path, [data], mode=mode)


def write_parts_atomic(path: Path, parts: Iterable[bytes], *, mode: int = PRIVATE) -> None:
    """As `write_atomic`, for bytes that are made while they are written.

    Args:
        path: of the file; missing folders are created.
        parts: its bytes in parts, in their order.
        mode: `PRIVATE`, or `SHARED` for what holds nothing private.

    Raises:
        StorageError: the operating system refused, for instance because the disk is full.
    """
    with storage_errors(path):
        if mode == PRIVATE:
            make_private_folder(path.parent)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=TEMPORARY, dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                file.writelines(parts)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


def write_all_atomic(files: Mapping[Path, bytes]) -> None:
    """Replace several files, each as `write_atomic` does; all are on the disk when this returns.

    Many are written by several threads, because a disk flushes many files in little more time than one.

    Args:
        files: the bytes of each, by its path.

    Raises:
        StorageError: the operating system refused; some of the files may be replaced already.
    """
    folders = {path.parent for path in files}
    for folder in folders:
        with storage_errors(folder):
            make_private_folder(folder)
    prefix = f"{TEMPORARY}{secrets.token_hex(8)}-"
    parts = [(path, path.parent / f"{prefix}{number}", data) for number, (path, data) in enumerate(files.items())]
    try:
        _in_threads(_write_new, parts)
        for path, part, _ in parts:
            with storage_errors(path):
                part.replace(path)
    except BaseException:
        for _, part, _ in parts:
            part.unlink(missing_ok=True)
        raise
    _in_threads(_flush_folders, sorted(folders))


def _in_threads(work: Callable[[Sequence[T]], None], items: Sequence[T]) -> None:
    """Do the work on these items in parts, by several threads if there are many."""
    threads = min(_WRITTEN_AT_ONCE, len(items) // _FEWEST_OF_A_THREAD)
    if threads < 2:
        work(items)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, (items[number::threads] for number in range(threads))))


def _flush_folders(folders: Iterable[Path]) -> None:
    for folder in folders:
        with storage_errors(folder):
            flush_folder(folder)


def _write_new(parts: Iterable[tuple[Path, Path, bytes]]) -> None:
    """Create and flush files.

    Args:
        parts: for each, what it will replace, its own path, and its bytes.
    """
    for path, part, data in parts:
        with storage_errors(path), open_private(part, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())


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
        with open_private(path, "ab") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if is_new:
            flush_folder(path.parent)


def make_private_folder(folder: Path) -> None:
    """Create a folder and its missing parents, all of them for their owner alone."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    for path in reversed(missing):
        path.mkdir(mode=_PRIVATE_FOLDER, exist_ok=True)


def open_private(path: Path, mode: Literal["ab", "wb", "xb"]) -> BinaryIO:
    """Open a file for writing; a new one is readable by its owner alone."""
    return open(path, mode, opener=lambda name, flags: os.open(name, flags, PRIVATE))


def refuse_links(folder: Path) -> None:
    """Check that nothing below a folder, which may be a link itself, is a symbolic link.

    Raises:
        StorageError: there is one.
    """
    for _ in files_without_links(folder):
        pass


def refuse_link(entry: os.DirEntry[str] | Path) -> None:
    """Check that something in a folder whose files are removed is no symbolic link.

    Raises:
        StorageError: it is one.
    """
    if entry.is_symlink():
        raise StorageError(
            "Symbolic link where files are to be removed",
            got=f"{os.fspath(entry)} leads to {os.path.realpath(entry)}",
            next_step="move what it leads to into its place, or remove the link and what it leads to; "
            "then run the same command again",
        )


def files_without_links(folder: Path) -> Iterator[str]:
    """Paths of the files below a folder, which may be a link itself or missing, in any order.

    Strings, because the folder of a model's parts may hold a hundred thousand files.

    Raises:
        StorageError: something below the folder is a symbolic link.
    """
    pending = [os.fspath(folder)]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except (FileNotFoundError, NotADirectoryError):
            continue
        with entries:
            for entry in entries:
                refuse_link(entry)
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)
                else:
                    yield entry.path


def restrict(folder: Path) -> None:
    """Let nobody but their owner read a folder and all that is in it; links are left as they are.

    Raises:
        StorageError: the operating system refused.
    """
    with storage_errors(folder):
        for path in (folder, *folder.rglob("*")):
            if not path.is_symlink():
                path.chmod(_PRIVATE_FOLDER if path.is_dir() else PRIVATE)


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
