"""A later version of the program, whose database has one more migration step."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lmeraser.storage import migrate as schema

# What a later version might do: a table is replaced, which others belong to.
LATER = "9999"
STEP = f"""
import sqlalchemy as sa
from alembic import op

revision = "{LATER}"
down_revision = "{schema.VERSION}"


def upgrade():
    replaced = "always" if op.get_bind().dialect.name == "sqlite" else "auto"
    with op.batch_alter_table("records", recreate=replaced) as batch:
        batch.add_column(sa.Column("colour", sa.String, nullable=True))
    op.execute("UPDATE records SET colour = 'red'")
"""
BROKEN = STEP + "    op.execute('UPDATE no_such_table SET x = 1')\n"


def later(tmp_path: Path, patch: pytest.MonkeyPatch, step: str = STEP) -> None:
    """A version of the program with one more step."""
    steps = tmp_path / "steps"
    shutil.copytree(schema._STEPS, steps, ignore=shutil.ignore_patterns("__pycache__"))
    (steps / "versions" / f"v{LATER}_later.py").write_text(step)
    patch.setattr(schema, "_STEPS", steps)
    patch.setattr(schema, "VERSION", LATER)
