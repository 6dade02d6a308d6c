"""One command per verb; `lmeraser.cli.main` puts them together."""
