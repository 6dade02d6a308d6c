"""``python -m lmeraser`` is the command line."""

from lmeraser.cli.main import main

main()
