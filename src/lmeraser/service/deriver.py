"""Repeated derivation of one workspace's model, reported in values that name no record.

The backbone stays in memory between derivations. Errors are reported by type, lmeraser's message, and the place
where they were raised, never by their full text. Knows nothing about processes (`derivation_process`).
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lmeraser.config.schema import read
from lmeraser.core.thread_priority import run_with_lower_priority
from lmeraser.eraser import Eraser
from lmeraser.errors import LmeraserError
from lmeraser.unlearning.unlearn import UnlearnReport, unlearn

_REPORT_SECONDS = 0.2  # between two progress reports of the same step

Report = Callable[[dict[str, Any]], None]


class Deriver:
    """Derives models of one workspace, one after the other.

    Args:
        root: folder of the workspace.
        report: called with the progress.
    """

    def __init__(self, root: Path, report: Report) -> None:
        self._root = root
        self._report = report
        self._eraser: Eraser | None = None
        self._compute: dict[str, Any] = {}
        self._step = ""
        self._reported = 0.0

    def derive(self, compute: dict[str, Any]) -> dict[str, Any]:
        """Carry out pending and interrupted requests; the outcome, as JSON values."""
        try:
            eraser = run_with_lower_priority(lambda: self._open_eraser(compute), compute.get("nice", 0))
            report = unlearn(eraser.session, retry_failed=False, after_grace=True)
            return {"outcome": "done", **_counts(report)}
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

    def _open_eraser(self, compute: dict[str, Any]) -> Eraser:
        """The workspace, ready to derive; reopened only for new settings, because that reloads the backbone."""
        if self._eraser is not None:
            config = read(self._root / "lmeraser.toml").computed(compute)
            if compute == self._compute and config == self._eraser.workspace.config:
                return self._eraser
            self._eraser.close()
        self._compute = compute
        self._eraser = Eraser(self._root, progress=self._on_progress, compute=compute)
        if self._eraser.workspace.config.constituent.kind != "none":  # else no deletion computes with it
            self._eraser.session.executors.load()
        return self._eraser

    def _on_progress(self, step: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if step != self._step or now - self._reported >= _REPORT_SECONDS:
            self._step = step
            self._reported = now
            self._report({"step": step, "done": done, "total": total})


def _counts(report: UnlearnReport) -> dict[str, Any]:
    """The counts of a report."""
    stage_counts = report.training.stage_counts if report.training else {}
    return {
        "requests": len(report.requests),
        "failed": sum(request.state == "failed" for request in report.requests),
        "records": len(report.selection.ids),
        "tuned_records": stage_counts.get("tuned_records", 0),
        "seconds": round(report.seconds, 3),
    }
