"""Copies of the model outside of the workspace, and who holds them."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "exports",
        sa.Column("id", sa.String, primary_key=True),
        sa.Column("tries", sa.Integer, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("since", "next")),
        sa.Column("slot", sa.Integer, nullable=True),
        sa.Column("sealed_holder", sa.LargeBinary, nullable=True),
    )
