"""The program: ``python -m lmeraser``, and the command ``lmeraser``."""

from __future__ import annotations

import gc

from lmeraser.cli.main import main as command_line


def main() -> None:
    """Run the command line, after which the process ends."""
    try:
        command_line()
    finally:
        # Else the last collections go over everything that was imported: a fifth of a short command's time.
        gc.freeze()


if __name__ == "__main__":
    main()
