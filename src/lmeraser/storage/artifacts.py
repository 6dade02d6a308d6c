"""Content-addressed artifacts, and the memo that maps a stage's inputs to its artifact.

An artifact is stored under the digest of its bytes. A memo entry is stored under the keyed digest of a stage's
inputs and names the artifact that the stage produced. Together they are the cache of the training function
(`derive`): a stage whose inputs are in the memo does not run again. Knows nothing about records, models or stages.

Rules:
- an artifact is written before the memo entry that names it, so that no entry dangles after a crash;
- bytes are checked against their digest whenever they are read;
- `sweep` removes everything that is not explicitly kept (mark and sweep, never reference counts), memo entries
  first, so that none of them dangles; `remove` removes what is named, in the same order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import NamedTuple, Protocol

from pydantic import BaseModel, ConfigDict, ValidationError

from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError
from lmeraser.storage.blobs import Blobs


class MemoEntry(BaseModel):
    """The result of a stage for some inputs.

    Attributes:
        artifact: digest of the result.
        fingerprint: of the environment in which the stage ran.
        seconds: how long it took.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    artifact: Digest
    fingerprint: Digest
    seconds: float


class StageOutput(NamedTuple):
    """What a stage that ran has made: the bytes of its result, and how many seconds it took."""

    data: bytes
    seconds: float = 0.0


class ArtifactReader(Protocol):
    """Read access to artifacts."""

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact."""
        ...

    def read_all(self, artifacts: Sequence[Digest]) -> list[bytes]:
        """The bytes of several artifacts, read concurrently where that is faster."""
        ...


class ArtifactStore(ArtifactReader, Protocol):
    """Storage of the results of stages."""

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry for a stage's inputs, if that stage has run."""
        ...

    def put(self, results: Mapping[Digest, StageOutput], *, fingerprint: Digest) -> dict[Digest, MemoEntry]:
        """Store results of stages, and memorize them under their inputs.

        They are given together because a disk flushes many files in little more time than one.

        Args:
            results: of each stage, by the keyed digest of its inputs.
            fingerprint: of the environment in which the stages ran.

        Returns:
            Their memo entries, by the same digests.
        """
        ...


class BlobStore:
    """An `ArtifactStore` that keeps artifacts and memo entries as blobs.

    Args:
        artifacts: holds the artifacts.
        memo: holds the memo entries.
    """

    def __init__(self, artifacts: Blobs, memo: Blobs) -> None:
        self._artifacts = artifacts
        self._memo = memo

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry under ``key``, or None. An entry whose artifact is missing counts as absent."""
        name = _memo_name(key)
        try:
            (data,) = self._memo.read([name])
            entry = MemoEntry.model_validate_json(data)
        except FileNotFoundError:
            return None
        except ValidationError as error:
            raise CorruptError(
                "Damaged memo entry",
                got=f"{self._memo.location(name)}: {error.error_count()} faults",
                next_step="delete this file and run the command again; its stage will run again",
            ) from error
        return entry if self._artifacts.exists(_artifact_name(entry.artifact)) else None

    def put(self, results: Mapping[Digest, StageOutput], *, fingerprint: Digest) -> dict[Digest, MemoEntry]:
        """Write artifacts, then memo entries. Raises `StorageError` when one of them cannot be written."""
        entries = {key: _entry(result, fingerprint) for key, result in results.items()}
        data = {_artifact_name(entries[key].artifact): result.data for key, result in results.items()}
        self._artifacts.write(data)
        self._memo.write({_memo_name(key): entry.model_dump_json().encode() for key, entry in entries.items()})
        return entries

    def keep(self, data: bytes) -> Digest:
        """Write an artifact alone; returns its digest. Raises `StorageError` when it cannot be written."""
        artifact = Digest.of(data)
        self._artifacts.write({_artifact_name(artifact): data})
        return artifact

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact, checked; see `read_all`."""
        return self.read_all([artifact])[0]

    def read_all(self, artifacts: Sequence[Digest]) -> list[bytes]:
        """The bytes of artifacts, checked.

        Raises:
            FileNotFoundError: an artifact has been swept; a reader with an old manifest reads the current one.
            CorruptError: the bytes are not those that were written.
        """
        names = [_artifact_name(artifact) for artifact in artifacts]
        contents = self._artifacts.read(names)
        for artifact, name, data in zip(artifacts, names, contents, strict=True):
            if (digest := Digest.of(data)) != artifact:
                raise CorruptError(
                    "Artifact does not match its digest",
                    got=f"{self._artifacts.location(name)} has {digest}",
                    next_step="delete this file and run 'lmeraser train'; it will be derived again",
                )
        return contents

    def sweep(self, *, artifacts: Set[Digest], keys: Set[Digest], dry_run: bool = False) -> list[str]:
        """Remove all artifacts, memo entries and temporary files except those to keep.

        Args:
            artifacts: digests of the artifacts that stay.
            keys: keys of the memo entries that stay.
            dry_run: remove nothing.

        Returns:
            Locations of what was, or would be, removed.
        """
        kept_artifacts = {_artifact_name(artifact) for artifact in artifacts}
        kept_entries = {_memo_name(key) for key in keys}
        removed = self._memo.sweep(kept_entries, dry_run=dry_run)
        return removed + self._artifacts.sweep(kept_artifacts, dry_run=dry_run)

    def remove(self, *, artifacts: Iterable[Digest], keys: Iterable[Digest]) -> list[str]:
        """Remove these artifacts and memo entries, entries first; what else is stored is not looked at.

        Returns:
            Locations of what was removed.
        """
        removed = self._memo.remove(map(_memo_name, keys))
        return removed + self._artifacts.remove(map(_artifact_name, artifacts))


class MemoryStore:
    """An `ArtifactStore` in memory, for audits, dry runs and workers.

    Args:
        data: artifacts to start with, by digest.
    """

    def __init__(self, data: Mapping[Digest, bytes] | None = None) -> None:
        self._entries: dict[Digest, MemoEntry] = {}
        self._data: dict[Digest, bytes] = dict(data or {})

    def find(self, key: Digest) -> MemoEntry | None:
        """The memo entry under ``key``, or None."""
        return self._entries.get(key)

    def put(self, results: Mapping[Digest, StageOutput], *, fingerprint: Digest) -> dict[Digest, MemoEntry]:
        """Keep the bytes in memory."""
        entries = {key: _entry(result, fingerprint) for key, result in results.items()}
        self._data |= {entries[key].artifact: result.data for key, result in results.items()}
        self._entries |= entries
        return entries

    def read(self, artifact: Digest) -> bytes:
        """The bytes of an artifact."""
        return self._data[artifact]

    def read_all(self, artifacts: Sequence[Digest]) -> list[bytes]:
        """The bytes of artifacts."""
        return [self._data[artifact] for artifact in artifacts]


def _entry(result: StageOutput, fingerprint: Digest) -> MemoEntry:
    artifact = Digest.of(result.data)
    return MemoEntry(artifact=artifact, fingerprint=fingerprint, seconds=round(result.seconds, 4))


def _artifact_name(digest: Digest) -> str:
    return f"{digest.hex[:2]}/{digest.hex}.safetensors"


def _memo_name(key: Digest) -> str:
    return f"{key.hex[:2]}/{key.hex}.json"
