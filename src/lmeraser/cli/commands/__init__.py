"""The commands, one function per verb; `lmeraser.cli.main` registers them."""
