"""Steps of experiments, kept on disk: done once, named by a digest of all that they depend on.

A step leaves one JSON file, with arrays beside it, and counts as done when the JSON is there. Knows nothing about
what steps do.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmeraser._version import __version__
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import Digest
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.experiments.cells import Outcome


class Steps:
    """Outcomes in a folder.

    Args:
        folder: where they are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def outcome(self, kind: str, key: Any, run: Callable[[], Outcome]) -> Outcome:
        """The outcome of a step: kept, or run now.

        Args:
            kind: what is done.
            key: JSON values that name all that it depends on.
            run: does it.
        """
        name = f"{kind}-{Digest.of_json([kind, key, __version__]).hex[:16]}"
        file, arrays = self._folder / f"{name}.json", self._folder / f"{name}.safetensors"
        if not file.exists():
            outcome = run()
            write_atomic(arrays, to_bytes(dict(outcome.arrays)))
            values = {"step": kind, "of": key, "facts": outcome.facts}
            write_atomic(file, json.dumps(values, indent=1, sort_keys=True).encode())
        return Outcome(json.loads(file.read_text())["facts"], from_bytes(arrays.read_bytes()))
