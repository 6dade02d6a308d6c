"""The tables of the first release.

They are written out here, whatever the modules that own them look like later.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_Sorted = sa.String().with_variant(sa.String(collation="C"), "postgresql")


def _number(*, key: bool = True) -> sa.Column[int]:
    return sa.Column("number", sa.Integer, primary_key=key, autoincrement=False)


def _owner() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(["number"], ["records.number"], ondelete="CASCADE", onupdate="CASCADE")


def upgrade() -> None:
    """Make all tables."""
    op.create_table(
        "facts",
        sa.Column("name", sa.String, primary_key=True),
        sa.Column("value", sa.String, nullable=False),
    )
    op.create_table("doomed", sa.Column("slot", sa.Integer, primary_key=True, autoincrement=False))
    op.create_table(
        "outbox",
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("line", sa.String, nullable=False),
    )
    op.create_table("suppressed", sa.Column("digest", sa.String, primary_key=True))
    op.create_table(
        "touched",
        sa.Column("revision", sa.Integer, primary_key=True),
        sa.Column("partition", sa.String, primary_key=True),
        sa.Column("place", sa.String, primary_key=True),
    )
    _records()
    _requests()


def _records() -> None:
    op.create_table(
        "records",
        _number(),
        sa.Column("id", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("subject", sa.LargeBinary, nullable=True),
        sa.Column("entry", sa.Integer, nullable=False),
        sa.Column("card", sa.LargeBinary, nullable=False),
    )
    op.create_index("ix_records_subject", "records", ["subject"])
    for name in ("images", "codes"):
        op.create_table(name, _number(), sa.Column("data", sa.LargeBinary, nullable=False), _owner())
    op.create_table(
        "features",
        _number(),
        sa.Column("key", sa.String, nullable=False),
        sa.Column("data", sa.LargeBinary, nullable=False),
        _owner(),
    )
    op.create_table(
        "places",
        _number(),
        sa.Column("partition", _Sorted, primary_key=True),
        sa.Column("place", _Sorted, nullable=False),
        sa.Column("sampled", sa.Boolean, nullable=False),
        _owner(),
    )
    op.create_index("places_by_place", "places", ["partition", "place", "number"])
    op.create_table(
        "sums",
        sa.Column("key", sa.String, primary_key=True),
        sa.Column("slot", sa.Integer, nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("gram", sa.LargeBinary, nullable=False),
        sa.Column("moments", sa.LargeBinary, nullable=False),
    )


def _requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.String, primary_key=True),
        *(sa.Column(name, sa.String, nullable=False) for name in ("regulation", "state")),
        *(sa.Column(name, sa.String, nullable=False) for name in ("received", "due", "changed")),
        sa.Column("names", sa.Integer, nullable=False),
        sa.Column("selector", sa.String, nullable=False),
        sa.Column("audit", sa.Boolean, nullable=False),
        *(sa.Column(name, sa.Integer, nullable=True) for name in ("records", "already_deleted")),
        sa.Column("before", sa.JSON, nullable=True),
        *(sa.Column(name, sa.String, nullable=True) for name in ("reason", "certificate")),
        sa.Column("slot", sa.Integer, nullable=True),
        sa.Column("sealed_names", sa.LargeBinary, nullable=True),
    )
    op.create_index("ix_requests_state", "requests", ["state"])
