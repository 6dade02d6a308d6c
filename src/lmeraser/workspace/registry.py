"""Registry of the generations of a model: their manifests on disk, and which of them is served.

``generations/00000003.json`` is a manifest; the file ``current`` is a pointer to the served one: its name and
digest. A generation is published by writing its manifest, then replacing the pointer in one atomic step: a reader
sees the old generation or the new one. Numbers of generations only grow.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from lmeraser.core.atomic_files import storage_errors, write_atomic
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, FormatError, NoModelError
from lmeraser.models.manifest import Model

_FORMAT = 1


class Generations:
    """The manifests of one workspace.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._current = folder / "current"
        self._parsed: tuple[Digest, Model] | None = None  # parsing a large manifest takes long

    def current(self) -> Model | None:
        """The served generation, or None before the first training."""
        pointer = self._read_pointer()
        while pointer is not None:
            name, digest = pointer
            try:
                data = (self._folder / name).read_bytes()
            except FileNotFoundError as error:
                newer = self._read_pointer()  # a writer may have published and purged meanwhile
                if newer == pointer:
                    raise _corrupt(f"{self._current} names {name}, which is missing") from error
                pointer = newer
                continue
            if Digest.of(data) != digest:
                raise _corrupt(f"{name} has digest {Digest.of(data).short} instead of {digest.short}")
            if self._parsed is None or self._parsed[0] != digest:
                self._parsed = (digest, _parse(name, data))
            return self._parsed[1]
        return None

    def require(self) -> Model:
        """The served generation.

        Raises:
            NoModelError: nothing has been trained yet.
        """
        model = self.current()
        if model is None:
            raise NoModelError("No trained model", next_step="run 'lmeraser train'")
        return model

    def publish(self, model: Model) -> None:
        """Make ``model`` the served generation."""
        name = f"{model.generation:08d}.json"
        data = model.to_bytes()
        digest = Digest.of(data)
        write_atomic(self._folder / name, data)
        write_atomic(self._current, f"{name} {digest}\n".encode())
        self._parsed = (digest, model)

    def withdraw(self) -> None:
        """Serve no generation from now on."""
        with storage_errors(self._current):
            self._current.unlink(missing_ok=True)

    def outdated(self) -> list[Path]:
        """All files of the folder except the served manifest and the pointer to it."""
        if not self._folder.exists():
            return []
        pointer = self._read_pointer()
        kept = {self._current.name, pointer[0] if pointer else None}
        return sorted(path for path in self._folder.iterdir() if path.name not in kept)

    def _read_pointer(self) -> tuple[str, Digest] | None:
        """Name and digest of the served manifest, or None before the first training."""
        try:
            data = self._current.read_bytes()
        except FileNotFoundError:
            return None
        if not (match := re.fullmatch(rb"(\d{8,}\.json) (sha256:[0-9a-f]{64})\n", data)):
            raise _corrupt(f"{self._current} holds {data[:100]!r}")
        return match[1].decode(), Digest(match[2].decode())


def _parse(name: str, data: bytes) -> Model:
    try:
        found = json.loads(data)["format"]
        if isinstance(found, int) and found > _FORMAT:
            raise FormatError(
                "Manifest was written by a newer version of lmeraser",
                got=f"format {found} (this version reads {_FORMAT})",
                next_step="upgrade lmeraser",
            )
        return Model.parse(data)
    except (ValueError, TypeError, KeyError) as error:  # pydantic's errors are ValueErrors
        raise _corrupt(f"{name}: not a manifest") from error


def _corrupt(got: str) -> CorruptError:
    return CorruptError(
        "Manifest of the served model is missing or damaged",
        got=got,
        next_step="delete the folder generations and run 'lmeraser train'; it derives the model again",
    )
