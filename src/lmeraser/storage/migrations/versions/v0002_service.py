"""Tables of the HTTP service: who may use it, and who is told what becomes of requests."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make them."""
    op.create_table(
        "api_keys",
        sa.Column("id", sa.String, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("name", "scopes", "made")),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("revoked", sa.String, nullable=True),
    )
    op.create_table(
        "subscriptions",
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("request", sa.String, nullable=False),
        sa.Column("told", sa.String, nullable=False),
        sa.Column("tries", sa.Integer, nullable=False),
        *(sa.Column(name, sa.String, nullable=False) for name in ("since", "next")),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("sealed_url", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_subscriptions_request", "subscriptions", ["request"])
