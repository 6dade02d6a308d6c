"""Content-addressed artifacts, and the memo of which inputs gave which artifact.

An artifact lies under the digest of its bytes; a memo entry lies under the keyed digest of a stage's inputs
and names the artifact that the stage gave. Together they are the memory of F (`derive`): a stage whose inputs
are in the memo is not run again. Follows the usual content-addressed layout; knows nothing about records,
models or what a stage does, nor where blobs lie.

Rules:
- an artifact is written before the memo entry that names it, so an entry never dangles after a crash;
- bytes are checked against their digest whenever they are read;
- `sweep` removes everything that is not named as kept: mark and sweep, never reference counts; memo entries
  first, so that none of them dangles.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError
from lmeraser.storage.blobs import Blobs


class MemoEntry(BaseModel):
    """What a stage gave for some inputs, where it ran, and how long it took."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: Digest
    fingerprint: Digest
    seconds: float


class Artifacts(Protocol):
    """Where artifacts are read."""

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact."""
        ...

    def read_all(self, artifacts: Sequence[Digest]) -> list[bytes]:
        """The bytes of artifacts, read together where that is faster."""
        ...


class Store(Artifacts, Protocol):
    """Where F keeps the results of its stages."""

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry for a stage's inputs, if that stage has run."""
        ...

    def keep(self, key: Digest, data: bytes, *, fingerprint: Digest, seconds: float) -> MemoEntry:
        """Store a stage's result and remember its inputs."""
        ...


class BlobStore:
    """A `Store` of blobs.

    Args:
        artifacts: for artifacts.
        memo: for memo entries.
    """

    def __init__(self, artifacts: Blobs, memo: Blobs) -> None:
        self._artifacts, self._memo = artifacts, memo

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry under ``key``, or None. An entry whose artifact is gone counts as absent."""
        name = _memo_name(key)
        try:
            (data,) = self._memo.read([name])
            entry = MemoEntry.model_validate_json(data)
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CorruptError(
                "A memo entry is JSON as lmeraser wrote it.",
                got=f"{self._memo.where(name)}: {error.error_count()} faults",
                next_step="delete this file and run the command again; the stage will run again",
            ) from error
        return entry if self._artifacts.has(_artifact_name(entry.artifact)) else None

    def keep(self, key: Digest, data: bytes, *, fingerprint: Digest, seconds: float) -> MemoEntry:
        """Write the artifact, then the memo entry. Raises `StorageError` when one of them cannot be written."""
        artifact = Digest.of(data)
        self._artifacts.write(_artifact_name(artifact), data)
        entry = MemoEntry(artifact=artifact, fingerprint=fingerprint, seconds=round(seconds, 4))
        self._memo.write(_memo_name(key), entry.model_dump_json().encode())
        return entry

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact, checked; see `read_all`."""
        return self.read_all([artifact])[0]

    def read_all(self, artifacts: Sequence[Digest]) -> list[bytes]:
        """The bytes of artifacts, checked.

        Raises:
            FileNotFoundError: one has been swept; a reader holding an old manifest reads the current one.
            CorruptError: the bytes that are there are not the ones that were written.
        """
        names = [_artifact_name(artifact) for artifact in artifacts]
        read = self._artifacts.read(names)
        for artifact, name, data in zip(artifacts, names, read, strict=True):
            if (found := Digest.of(data)) != artifact:
                raise CorruptError(
                    "An artifact's bytes have the digest in its name.",
                    got=f"{self._artifacts.where(name)} has {found}",
                    next_step="delete this file and run 'lmeraser train'; it will be derived again",
                )
        return read

    def sweep(self, *, artifacts: Set[Digest], keys: Set[Digest], dry_run: bool = False) -> list[str]:
        """Remove every artifact, memo entry and unfinished file that is not named; returns what went."""
        memo = self._memo.sweep({_memo_name(key) for key in keys}, dry_run=dry_run)
        return memo + self._artifacts.sweep({_artifact_name(each) for each in artifacts}, dry_run=dry_run)


class MemoryStore:
    """A `Store` that leaves nothing behind: the audit's, and a worker's.

    Args:
        data: artifacts that it starts with.
    """

    def __init__(self, data: Mapping[Digest, bytes] | None = None) -> None:
        self._entries: dict[Digest, MemoEntry] = {}
        self._data: dict[Digest, bytes] = dict(data or {})

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

    def read_all(self, artifacts: Sequence[Digest]) -> list[bytes]:
        """The bytes of artifacts."""
        return [self._data[artifact] for artifact in artifacts]


def _artifact_name(digest: Digest) -> str:
    return f"{digest.hex[:2]}/{digest.hex}.safetensors"


def _memo_name(key: Digest) -> str:
    return f"{key.hex[:2]}/{key.hex}.json"
