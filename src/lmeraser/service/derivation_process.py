"""The process that derives models for the service, so that predictions keep their rate and their bits.

    python -m lmeraser.service.derivation_process WORKSPACE

Reads one line of JSON per derivation from stdin, and writes lines of JSON to stdout: progress, then the outcome.
At end of input (the service was stopped or killed) it finishes the current derivation and exits.

Startup takes seconds (imports, the backbone) and runs at a lower priority; computation runs at the priority that
``compute.nice`` sets. The thread that writes to the database keeps its priority, because others wait for its
transactions. That is why `deriver` is imported late.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lmeraser.core.thread_priority import run_with_lower_priority

if TYPE_CHECKING:
    from lmeraser.service.deriver import Deriver, Report


def main() -> None:
    """Derive once per line of input."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, Path(os.devnull).open("w") as null:
        os.dup2(null.fileno(), 1)  # what libraries print must not mix with the messages
        deriver: Deriver | None = None
        for line in sys.stdin:
            compute = json.loads(line)["compute"]
            if deriver is None:
                deriver = run_with_lower_priority(
                    lambda: _load_deriver(lambda message: _write(out, message)), compute.get("nice", 0)
                )
            _write(out, deriver.derive(compute))
            gc.collect()
            gc.freeze()  # keeps collections short, which may run inside a transaction
        if deriver is not None:
            deriver.close()


def _load_deriver(report: Report) -> Deriver:
    from lmeraser.service.deriver import Deriver

    return Deriver(Path(sys.argv[1]), report)


def _write(out: IO[str], message: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # the service is gone: finish all the same
        out.write(json.dumps(message) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
