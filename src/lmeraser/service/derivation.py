"""The process that derives models for the service, so that predictions beside it keep their rate and their bits.

    python -m lmeraser.service.derivation WORKSPACE

Reads one line of JSON for every derivation that it is to do and writes lines of JSON: how far it is, then how it
ended. When nobody writes to it any more (the service was stopped or killed) it finishes what it does and ends.

Getting ready takes seconds (imports, the backbone), and it gives way meanwhile; what computes gives way by
``compute.nice``. The thread that writes to the database does not: others wait for its transactions. Follows
`deriver`, which it imports late for that reason.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from lmeraser.core.thread_priority import gently

if TYPE_CHECKING:
    from lmeraser.service.deriver import Deriver, Say


def main() -> None:
    """Derive as long as somebody asks."""
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out, Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)  # what libraries print is none of these lines
        deriver: Deriver | None = None
        for line in sys.stdin:
            compute = json.loads(line)["compute"]
            if deriver is None:
                deriver = gently(lambda: _deriver(lambda said: _say(out, said)), compute.get("nice", 0))
            _say(out, deriver.derive(compute))
            gc.collect()
            gc.freeze()  # what stays is not looked through again, in a transaction perhaps
        if deriver is not None:
            deriver.close()


def _deriver(say: Say) -> Deriver:
    from lmeraser.service.deriver import Deriver

    return Deriver(Path(sys.argv[1]), say)


def _say(out: IO[str], line: dict[str, Any]) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody listens any more: finish all the same
        out.write(json.dumps(line) + "\n")
        out.flush()


if __name__ == "__main__":
    main()
