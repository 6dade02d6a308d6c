"""Digests of payloads and of what names look like; when a person asked, and how many duplicates a request left.

Rows from before have no digests of these until `Records.index_payloads` computes them, under keys that these steps
do not have.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    for name in ("payload", "near_id", "near_subject"):
        op.add_column("records", sa.Column(name, sa.LargeBinary, nullable=True))
        op.create_index(f"ix_records_{name}", "records", [name])
    op.add_column("requests", sa.Column("asked", sa.String, nullable=True))
    for name in ("duplicates", "near_duplicates"):
        op.add_column("requests", sa.Column(name, sa.Integer, nullable=True))
