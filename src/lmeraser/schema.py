"""Which tables a database has, and the way to those of this version (Alembic).

A new database gets all tables at once. One with older tables is refused until somebody asks for the missing steps
with `lmeraser upgrade`: they change private data that there should be a backup of. All steps are one transaction.
Follows `engines`; the steps are in `migrations`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect

from lmeraser.errors import FormatError

if TYPE_CHECKING:
    from sqlalchemy import MetaData

    from lmeraser.engines import Reached

VERSION = "0001"  # of the last step
_STEPS = Path(__file__).parent / "migrations"
_TABLE = "alembic_version"


def prepare(reached: Reached, metadata: MetaData) -> None:
    """Make the tables of a new database; refuse those of another version.

    Raises:
        FormatError: they are older or newer.
    """
    with reached.engine.begin() as connection:
        found = version(connection)
        if found is None and not inspect(connection).has_table("facts"):
            _make(connection, metadata)
        elif found != VERSION:
            newer = found is not None and found > VERSION
            raise FormatError(
                f"This version of lmeraser works with tables of version {VERSION}.",
                got=f"version {found or 'of before the first release'} in {reached.shown}",
                next_step="upgrade lmeraser; nothing was changed"
                if newer
                else "make a backup of the workspace and its database, then run 'lmeraser upgrade'",
            )


def version(connection: Connection) -> str | None:
    """The version of the tables; None if there are none."""
    if not inspect(connection).has_table(_TABLE):
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalar_one_or_none()


def upgrade(reached: Reached) -> tuple[str, str]:
    """Run the steps that are missing; all or, after any error, none.

    Returns:
        The versions before and after.

    Raises:
        FormatError: the tables are newer than this version of lmeraser.
    """
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_STEPS))
    with reached.changing_tables() as connection:
        before = version(connection)
        if before is None or before > VERSION:
            raise FormatError(
                f"This version of lmeraser upgrades tables up to version {VERSION}.",
                got=f"version {before or 'of before the first release'} in {reached.shown}",
                next_step="use a newer lmeraser; nothing was changed" if before else "make a new workspace",
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return before, VERSION


def _make(connection: Connection, metadata: MetaData) -> None:
    # Tables are known once the modules that own them were imported.
    import lmeraser.ledger
    import lmeraser.records
    import lmeraser.requests  # noqa: F401

    metadata.create_all(connection)
    key = f"CONSTRAINT {_TABLE}_pkc PRIMARY KEY (version_num)"  # as Alembic makes it
    connection.exec_driver_sql(f"CREATE TABLE {_TABLE} (version_num VARCHAR(32) NOT NULL, {key})")
    connection.exec_driver_sql(f"INSERT INTO {_TABLE} VALUES ('{VERSION}')")
