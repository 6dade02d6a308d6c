"""Blobs: bytes under names, in a folder or somewhere else.

Rules of every implementation:
- a reader finds all of what was written under a name, or nothing;
- what `write` returned from is there after a crash;
- `sweep` leaves nothing of what it removes within the reach of the program.

Knows nothing about what the bytes or the names mean.
"""

from __future__ import annotations

import os
from collections.abc import Sequence, Set
from pathlib import Path
from typing import Protocol

from lmeraser.core.atomic_files import write_atomic


class Blobs(Protocol):
    """Where bytes lie under names; parts of a name are separated by slashes."""

    def where(self, name: str) -> str:
        """The place of a blob, for people."""
        ...

    def has(self, name: str) -> bool:
        """Whether there is such a blob."""
        ...

    def write(self, name: str, data: bytes) -> None:
        """Write a blob, or replace it.

        Raises:
            StorageError: it could not be written.
        """
        ...

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of these blobs.

        Raises:
            FileNotFoundError: one of them is not there.
        """
        ...

    def sweep(self, keep: Set[str], *, dry_run: bool = False) -> list[str]:
        """Remove all blobs but these; returns the places of what went, or would go."""
        ...


class Folder:
    """A folder of this machine.

    Args:
        root: the folder; made by the first write.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def where(self, name: str) -> str:
        """The file of a blob."""
        return str(self._root / name)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self._root / name).exists()

    def write(self, name: str, data: bytes) -> None:
        """Write a file under a temporary name and rename it."""
        write_atomic(self._root / name, data)

    def read(self, names: Sequence[str]) -> list[bytes]:
        """The bytes of these files."""
        return [(self._root / name).read_bytes() for name in names]

    def sweep(self, keep: Set[str], *, dry_run: bool = False) -> list[str]:
        """Remove all files but these, unfinished ones too."""
        kept = {self._root / name for name in keep}
        there = (Path(folder, name) for folder, _, names in os.walk(self._root) for name in names)
        doomed = sorted(path for path in there if path not in kept)
        if not dry_run:
            for path in doomed:
                path.unlink()
        return [str(path) for path in doomed]
