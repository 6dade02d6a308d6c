"""The process that derives models for the service, so that predictions beside it keep their rate and their bits.

    python -m lmeraser.service.derivation WORKSPACE

Reads one line of JSON for every derivation that it is to do and writes lines of JSON: how far it is, then how it
ended. Between derivations it keeps the backbone in memory. When nobody writes to it any more (the service was
stopped or killed) it finishes what it does and ends. What it writes names no record: of an error only its kind,
lmeraser's rule, and where it was raised. Follows `eraser` and `unlearn`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from lmeraser.config import read
from lmeraser.eraser import Eraser
from lmeraser.errors import LmeraserError
from lmeraser.unlearn import UnlearnReport, unlearn

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
            eraser = self._opened(compute)
            report = unlearn(eraser.workspace, eraser.deriving, failed=False, progress=self._progress)
            return {"outcome": "done", **_facts(report)}
        except LmeraserError as error:
            return {"outcome": "refused", "error": type(error).__name__, "rule": error.rule}
        except Exception as error:
            frames = traceback.extract_tb(error.__traceback__)
            where = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames[-5:]]
            return {"outcome": "broken", "error": type(error).__name__, "where": where}

    def close(self) -> None:
        """Release the workspace."""
        if self._eraser is not None:
            self._eraser.close()

    def _opened(self, compute: dict[str, Any]) -> Eraser:
        """The workspace; opened again only when its settings have changed, because the backbone goes with it."""
        known = self._eraser
        if known is not None:
            now = read(self._root / "lmeraser.toml").computed(compute)
            if compute == self._compute and now == known.workspace.config:
                return known
            known.close()
        self._compute = compute
        self._eraser = Eraser(self._root, progress=self._progress, compute=compute)
        return self._eraser

    def _progress(self, step: str, done: int, total: int | None) -> None:
        now = time.monotonic()
        if step != self._step or now - self._told >= _EVERY:
            self._step, self._told = step, now
            self._say({"step": step, "done": done, "total": total})


def _facts(report: UnlearnReport) -> dict[str, Any]:
    """What is counted."""
    ran = report.training.ran if report.training else {}
    return {
        "requests": len(report.requests),
        "failed": sum(request.state == "failed" for request in report.requests),
        "records": len(report.selection.ids),
        "tuned_records": ran.get("tuned_records", 0),
        "seconds": round(report.seconds, 3),
    }


def main() -> None:
    """Derive as long as somebody asks."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # what libraries print is none of these lines
        deriver = Deriver(Path(sys.argv[1]), lambda line: _say(out, line))
        for line in sys.stdin:
            order = json.loads(line)
            os.nice(max(0, order["nice"] - os.nice(0)))
            _say(out, deriver.derive(order["compute"]))
        deriver.close()


def _say(out: IO[str], line: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: finish all the same
        out.write(json.dumps(line) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
