"""Deriving models of one workspace again and again, told in values that name no record.

Between derivations the backbone stays in memory. What is said of an error is its kind, lmeraser's rule, and where
it was raised. Follows `eraser` and `unlearn`; knows nothing about processes.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmeraser.config.schema import read
from lmeraser.core.thread_priority import gently
from lmeraser.eraser import Eraser
from lmeraser.errors import LmeraserError
from lmeraser.unlearning.unlearn import UnlearnReport, unlearn

_EVERY = 0.2  # seconds between two lines about one step

Say = Callable[[dict[str, Any]], None]


class Deriver:
    """Derives models of one workspace, one after the other.

    Args:
        root: the workspace's folder.
        say: tells how far it is.
    """

    def __init__(self, root: Path, say: Say) -> None:
        self._root, self._say = root, say
        self._eraser: Eraser | None = None
        self._compute: dict[str, Any] = {}
        self._step, self._told = "", 0.0

    def derive(self, compute: dict[str, Any]) -> dict[str, Any]:
        """Carry out what is pending or in progress; how it ended, as JSON values."""
        try:
            eraser = gently(lambda: self._opened(compute), compute.get("nice", 0))
            report = unlearn(eraser.workspace, eraser.deriving, failed=False, progress=self._progress)
            return {"outcome": "done", **_facts(report)}
        except LmeraserError as error:
            return {"outcome": "refused", "error": type(error).__name__, "message": error.message}
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-5:]]
            return {"outcome": "broken", "error": type(error).__name__, "where": where}

    def close(self) -> None:
        """Release the workspace."""
        if self._eraser is not None:
            self._eraser.close()

    def _opened(self, compute: dict[str, Any]) -> Eraser:
        """The workspace, ready; opened again only when its settings have changed: the backbone goes with it."""
        known = self._eraser
        if known is not None:
            now = read(self._root / "lmeraser.toml").computed(compute)
            if compute == self._compute and now == known.workspace.config:
                return known
            known.close()
        self._compute = compute
        self._eraser = Eraser(self._root, progress=self._progress, compute=compute)
        self._eraser.deriving()
        return self._eraser

    def _progress(self, step: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if step != self._step or now - self._told >= _EVERY:
            self._step, self._told = step, now
            self._say({"step": step, "done": done, "total": total})


def _facts(report: UnlearnReport) -> dict[str, Any]:
    """What is counted."""
    stage_counts = report.training.stage_counts if report.training else {}
    return {
        "requests": len(report.requests),
        "failed": sum(request.state == "failed" for request in report.requests),
        "records": len(report.selection.ids),
        "tuned_records": stage_counts.get("tuned_records", 0),
        "seconds": round(report.seconds, 3),
    }
