"""Requests get a grace period, a reference of the desk, one extension, and the key that filed them."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Add the columns; requests of before have none of these, and start at once."""
    for name in ("starts", "filed_by", "extended", "extension_reason", "cancel_reason"):
        op.add_column("requests", sa.Column(name, sa.String, nullable=True))
    op.add_column("requests", sa.Column("reference_slot", sa.Integer, nullable=True))
    op.add_column("requests", sa.Column("sealed_reference", sa.LargeBinary, nullable=True))
