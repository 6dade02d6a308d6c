"""One command per verb; `lmeraser.cli` puts them together."""
