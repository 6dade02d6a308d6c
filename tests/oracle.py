"""The independent oracle: trains once, from nothing, on a list of records, in a process of its own.

Reads one JSON request a line (its number, settings, numbers of records in the order in which they are added) and
answers with the number and the model digest. It is started with another number of threads than the tests run with.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any


class Oracle:
    """The other process; a context manager."""

    def __init__(self, threads: int) -> None:
        names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
        environment = {**os.environ, **dict.fromkeys(names, str(threads))}
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self._requests = itertools.count()

    def digest(self, settings: dict[str, Any], numbers: list[int]) -> str:
        """Digest of the model that one training on these records (`records_of`) gives."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = next(self._requests)
        self._process.stdin.write(
            json.dumps({"request": request, "settings": settings, "numbers": numbers}) + "\n"
        )
        self._process.stdin.flush()
        for line in self._process.stdout:
            answer: dict[str, Any] = json.loads(line)
            if answer["request"] == request:  # others were asked for by a test that did not wait for the answer
                return str(answer["digest"])
        raise RuntimeError("the oracle has ended")

    def __enter__(self) -> Oracle:
        return self

    def __exit__(self, *exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


def _train_once(settings: dict[str, Any], numbers: list[int]) -> str:
    from conftest import load_backbones_once
    from lmeraser import Eraser
    from modality_records import classes_of, columns_of, records_of

    modality = settings.get("data", {}).get("modality", "image")

    with (
        tempfile.TemporaryDirectory() as folder,
        Eraser.create(
            Path(folder) / "workspace", settings, preset="prompts", classes=classes_of(modality)
        ) as eraser,
    ):
        if numbers:
            eraser.add(records_of(modality, numbers), columns=columns_of(modality))
        load_backbones_once()
        eraser.train()
        return eraser.model_digest


def _serve() -> None:
    for line in sys.stdin:
        request = json.loads(line)
        digest = _train_once(request["settings"], request["numbers"])
        sys.stdout.write(json.dumps({"request": request["request"], "digest": digest}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
