"""Records are found by their payload; a request keeps when the person asked, and how many duplicates were left.

Rows from before have no digest of their payload until `Records.index_payloads` computes it, under keys that these
steps do not have.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns."""
    op.add_column("records", sa.Column("payload", sa.LargeBinary, nullable=True))
    op.create_index("ix_records_payload", "records", ["payload"])
    op.add_column("requests", sa.Column("asked", sa.String, nullable=True))
    for name in ("duplicates", "near_duplicates"):
        op.add_column("requests", sa.Column(name, sa.Integer, nullable=True))
