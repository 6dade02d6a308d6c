"""Finished requests keep neither the keyed digest of their names nor the numbers of their clusters."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Remove them from requests of before; the database is due to be rewritten then."""
    requests = sa.table(
        "requests", sa.column("state", sa.String), sa.column("selector", sa.String), sa.column("before", sa.JSON)
    )
    finished = requests.c.state.in_(["completed", "cancelled"])
    op.execute(requests.update().where(finished).values(selector="", before=sa.null()))
    facts = sa.table("facts", sa.column("name", sa.String), sa.column("value", sa.String))
    op.execute(facts.update().where(facts.c.name == "compaction").values(value="due"))
