"""Cache of experiment steps on disk: each step runs once per digest of everything that it depends on.

A step leaves one JSON file with its arrays beside it, and counts as done once the JSON exists. Must not depend on
what the steps do.
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
from lmeraser.experiments.trials import StepResult


class StepCache:
    """Step results in a folder.

    Args:
        folder: where the results are stored.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def get_or_run(self, kind: str, key: Any, run: Callable[[], StepResult]) -> StepResult:
        """Return the stored result of a step, or run the step and store its result.

        Args:
            kind: the kind of step.
            key: JSON values that identify everything the result depends on.
            run: computes the result.
        """
        name = f"{kind}-{Digest.of_json([kind, key, __version__]).hex[:16]}"
        file = self._folder / f"{name}.json"
        arrays = self._folder / f"{name}.safetensors"
        if not file.exists():
            result = run()
            write_atomic(arrays, to_bytes(dict(result.arrays)))
            values = {"step": kind, "of": key, "facts": result.facts}
            write_atomic(file, json.dumps(values, indent=1, sort_keys=True).encode())
        return StepResult(json.loads(file.read_text())["facts"], from_bytes(arrays.read_bytes()))
