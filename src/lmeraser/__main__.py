"""``python -m lmeraser`` is the command line."""

from lmeraser.cli import main

main()
