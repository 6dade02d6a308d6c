"""The program: ``python -m lmeraser``, and the command ``lmeraser``."""

from __future__ import annotations

import atexit
import os
import sys
import threading

from lmeraser.cli.main import main as command_line


def main() -> None:
    """Run the command line and end the process."""
    try:
        command_line()
    except SystemExit as ended:
        _end(ended.code)
        raise


def _end(status: object) -> None:
    """End the process without freeing its objects one by one, which takes a quarter of a short command's time.

    All else that the interpreter does at its end is done: threads are waited for, exit handlers run, and what was
    printed is written. Where that is not enough (someone profiles, or the output cannot be written, which the
    interpreter tells), this returns and the process ends as usual.

    Args:
        status: of the process.
    """
    if not isinstance(status, int) or sys.gettrace() or sys.getprofile():
        return
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:
                stream.flush()
    except (OSError, ValueError):
        return
    os._exit(status)


if __name__ == "__main__":
    main()
