"""The generations of a model on disk, and which of them is served.

``generations/00000003.json`` is a manifest; the file ``current`` names the one that is served. A generation is
published by writing its manifest, then replacing ``current`` in one atomic step: a reader sees the old generation
or the new one. Generations only move forward. Knows nothing about how a model came to be.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from lmeraser.errors import CorruptError, FormatError, NoModelError
from lmeraser.files import write_atomic
from lmeraser.model import Model

_FORMAT = 1


class Generations:
    """The manifests of one workspace."""

    def __init__(self, root: Path) -> None:
        self._folder = root / "generations"
        self._current = self._folder / "current"

    def current(self) -> Model | None:
        """The served generation, or None before the first training."""
        try:
            name = self._current.read_text(encoding="ascii").strip()
            data = (self._folder / name).read_bytes()
        except FileNotFoundError:
            return None
        try:
            model = Model.model_validate_json(data)
        except ValidationError as error:
            raise CorruptError(
                "A manifest is JSON as lmeraser wrote it.",
                got=f"{name}: {error.error_count()} faults",
                next_step="run 'lmeraser train'; it derives the model again from the records",
            ) from error
        if model.format > _FORMAT:
            raise FormatError(
                f"This version reads manifests of format {_FORMAT}.",
                got=f"format {model.format}",
                next_step="upgrade lmeraser",
            )
        return model

    def require(self) -> Model:
        """The served generation.

        Raises:
            NoModelError: nothing has been trained yet.
        """
        model = self.current()
        if model is None:
            raise NoModelError(
                "This needs a trained model.", got="no generation yet", next_step="run 'lmeraser train'"
            )
        return model

    def publish(self, model: Model) -> None:
        """Make ``model`` the served generation."""
        name = f"{model.generation:08d}.json"
        write_atomic(self._folder / name, model.model_dump_json(indent=1).encode() + b"\n")
        write_atomic(self._current, name.encode() + b"\n")

    def outdated(self) -> list[Path]:
        """Every file of the folder except the served manifest and the pointer to it."""
        if not self._folder.exists():
            return []
        served = self._current.read_text(encoding="ascii").strip() if self._current.exists() else ""
        return sorted(path for path in self._folder.iterdir() if path.name not in ("current", served))
