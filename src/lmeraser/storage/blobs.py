"""Blobs: bytes stored under names, in a folder or elsewhere.

Rules for every implementation:
- a reader finds either everything that was written under a name, or nothing;
- a blob survives a crash once `write` has returned;
- `sweep` leaves nothing of a removed blob that the program could still read.

Knows nothing about what bytes and names mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import Protocol

from lmeraser.core.atomic_files import files_without_links, refuse_link, write_all_atomic


class Blobs(Protocol):
    """Storage of bytes under names; parts of a name are separated by slashes."""

    def location(self, name: str) -> str:
        """Path or URL of a blob, for messages."""
        ...

    def exists(self, name: str) -> bool:
        """Whether there is such a blob."""
        ...

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write blobs, or replace them, concurrently where that is faster; all are stored when this returns.

        Args:
            contents: the bytes of each, by its name.

        Raises:
            StorageError: one could not be written; others may be.
        """
        ...

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of these blobs.

        Raises:
            FileNotFoundError: one of them does not exist.
        """
        ...

    def remove(self, names: Iterable[str]) -> list[str]:
        """Remove these blobs, as far as they exist, as completely as `sweep`; the others are not looked for.

        Returns:
            Locations of the blobs that were removed.
        """
        ...

    def sweep(self, keep: Set[str], *, dry_run: bool = False) -> list[str]:
        """Remove all blobs except these.

        Args:
            keep: names of the blobs that stay.
            dry_run: remove nothing.

        Returns:
            Locations of the blobs that were, or would be, removed.
        """
        ...


class Folder:
    """Blobs as files of a local folder.

    The folder itself may be a link to another disk. Links within it are refused by `sweep`: what they lead to
    would outlive it, or might not be the workspace's to remove.

    Args:
        root: the folder; created by the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def location(self, name: str) -> str:
        """Path of a blob's file."""
        return str(self._root / name)

    def exists(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._root / name).exists()

    def write(self, contents: Mapping[str, bytes]) -> None:
        """Write files under temporary names and rename them."""
        write_all_atomic({self._root / name: data for name, data in contents.items()})

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of these files."""
        return [(self._root / name).read_bytes() for name in names]

    def remove(self, names: Iterable[str]) -> list[str]:
        """Remove these files.

        Raises:
            StorageError: one of them, or a folder beside them, is a symbolic link; nothing was removed.
        """
        paths = sorted({self._root / name for name in names})
        if paths and self._root.exists():
            with os.scandir(self._root) as entries:
                for entry in entries:
                    refuse_link(entry)
        found = [path for path in paths if os.path.lexists(path)]
        for path in found:
            refuse_link(path)
        for path in found:
            path.unlink()
        return list(map(str, found))

    def sweep(self, keep: Set[str], *, dry_run: bool = False) -> list[str]:
        """Remove all files except these, including temporary files of interrupted writes.

        Raises:
            StorageError: there is a symbolic link; nothing was removed.
        """
        kept = {os.path.join(self._root, name) for name in keep}  # noqa: PTH118 - strings, as of the files
        unused = sorted(path for path in files_without_links(self._root) if path not in kept)
        if not dry_run:
            for path in unused:
                os.unlink(path)  # noqa: PTH108
        return unused
