"""Content-addressed artifacts, and the memo of which inputs gave which artifact.

An artifact lies under the digest of its bytes; a memo entry lies under the keyed digest of a stage's inputs
and names the artifact that the stage gave. Together they are the memory of F (`derive`): a stage whose inputs
are in the memo is not run again. Follows the usual content-addressed layout; knows nothing about records,
models or what a stage does.

Rules:
- an artifact is written before the memo entry that names it, so an entry never dangles after a crash;
- bytes are checked against their digest whenever they are read;
- `sweep` removes everything that is not named as kept: mark and sweep, never reference counts.
"""

from __future__ import annotations

import os
from collections.abc import Set
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from lmeraser.errors import CorruptError
from lmeraser.files import TEMPORARY, write_atomic
from lmeraser.hashing import Digest


class MemoEntry(BaseModel):
    """What a stage gave for some inputs, where it ran, and how long it took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: Digest
    fingerprint: Digest
    seconds: float


class Store(Protocol):
    """Where F keeps the results of its stages."""

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry for a stage's inputs, if that stage has run."""
        ...

    def keep(self, key: Digest, data: bytes, *, fingerprint: Digest, seconds: float) -> MemoEntry:
        """Store a stage's result and remember its inputs."""
        ...

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact."""
        ...


class FileStore:
    """A `Store` in two folders, ``artifacts/`` and ``memo/``, below ``root``."""

    def __init__(self, root: Path) -> None:
        self._artifacts = root / "artifacts"
        self._memo = root / "memo"

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry under ``key``, or None. An entry whose artifact is gone counts as absent."""
        path = self._memo_path(key)
        try:
            entry = MemoEntry.model_validate_json(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CorruptError(
                "A memo entry is JSON as lmeraser wrote it.",
                got=f"{path}: {error.error_count()} faults",
                next_step="delete this file and run the command again; the stage will run again",
            ) from error
        return entry if self._artifact_path(entry.artifact).exists() else None

    def keep(self, key: Digest, data: bytes, *, fingerprint: Digest, seconds: float) -> MemoEntry:
        """Write the artifact, then the memo entry. Raises `StorageError` when the disk refuses."""
        artifact = Digest.of(data)
        write_atomic(self._artifact_path(artifact), data)
        entry = MemoEntry(artifact=artifact, fingerprint=fingerprint, seconds=round(seconds, 4))
        write_atomic(self._memo_path(key), entry.model_dump_json().encode())
        return entry

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact, checked.

        Raises:
            FileNotFoundError: it has been swept; a reader holding an old manifest reads the current one.
            CorruptError: the bytes on disk are not the ones that were written.
        """
        path = self._artifact_path(artifact)
        data = path.read_bytes()
        if (found := Digest.of(data)) != artifact:
            raise CorruptError(
                "An artifact's bytes have the digest in its name.",
                got=f"{path} has {found}",
                next_step="delete this file and run 'lmeraser train'; it will be derived again",
            )
        return data

    def sweep(self, *, artifacts: Set[Digest], keys: Set[Digest], dry_run: bool = False) -> list[Path]:
        """Remove every artifact, memo entry and temporary file that is not named; returns what went."""
        kept = {self._artifact_path(digest) for digest in artifacts} | {self._memo_path(key) for key in keys}
        there = [
            Path(folder, name)
            for top in (self._artifacts, self._memo)
            for folder, _, names in os.walk(top)
            for name in names
        ]
        doomed = sorted(path for path in there if path not in kept or path.name.startswith(TEMPORARY))
        if not dry_run:
            for path in doomed:
                path.unlink()
        return doomed

    def _artifact_path(self, digest: Digest) -> Path:
        return self._artifacts / digest.hex[:2] / f"{digest.hex}.safetensors"

    def _memo_path(self, key: Digest) -> Path:
        return self._memo / key.hex[:2] / f"{key.hex}.json"


class MemoryStore:
    """A `Store` that starts empty and leaves nothing behind: the audit's."""

    def __init__(self) -> None:
        self._entries: dict[Digest, MemoEntry] = {}
        self._data: dict[Digest, bytes] = {}

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry under ``key``, or None."""
        return self._entries.get(key)

    def keep(self, key: Digest, data: bytes, *, fingerprint: Digest, seconds: float) -> MemoEntry:
        """Keep the bytes in memory."""
        entry = MemoEntry(artifact=Digest.of(data), fingerprint=fingerprint, seconds=seconds)
        self._data[entry.artifact] = data
        self._entries[key] = entry
        return entry

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact."""
        return self._data[artifact]
