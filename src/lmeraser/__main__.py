"""The program: ``python -m lmeraser``, and the command ``lmeraser``."""

from __future__ import annotations

import gc

from lmeraser.cli.main import main as command_line


def main() -> None:
    """Run the command line, after which the process ends."""
    try:
        command_line()
    finally:
        gc.freeze()  # else the interpreter's last collections go over all that was imported: a fifth of a short command


if __name__ == "__main__":
    main()
