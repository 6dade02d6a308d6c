"""Digests of receipts that other systems gave for deletions, attached to requests."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "receipts",
        sa.Column("request", sa.String, primary_key=True),
        sa.Column("digest", sa.String, primary_key=True),
        sa.Column("system", sa.String, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
    )
