"""Which tables a database has, and the way to those of this version: the steps in `migrations`, run by Alembic.

A new database goes the whole way. One with older tables is refused until somebody asks for the missing steps with
`lmeraser upgrade`: they change private data that there should be a backup of. All steps are one transaction.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from lmeraser.errors import FormatError
from lmeraser.storage.engines import DatabaseBackend

VERSION = "0002"  # of the last step
_STEPS = Path(__file__).parent / "migrations"
_TABLE = "alembic_version"


def prepare(reached: DatabaseBackend) -> None:
    """Make the tables of a new database; refuse those of another version.

    Raises:
        FormatError: they are older or newer.
    """
    with reached.engine.begin() as connection:
        found = version(connection)
        if found is None and not inspect(connection).has_table("facts"):
            _run(connection)
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


def upgrade(reached: DatabaseBackend) -> tuple[str, str]:
    """Run the steps that are missing; all or, after any error, none.

    Returns:
        The versions before and after.

    Raises:
        FormatError: the tables are newer than this version of lmeraser.
    """
    with reached.schema_transaction() as connection:
        before = version(connection)
        if before is None or before > VERSION:
            raise FormatError(
                f"This version of lmeraser upgrades tables up to version {VERSION}.",
                got=f"version {before or 'of before the first release'} in {reached.shown}",
                next_step="use a newer lmeraser; nothing was changed" if before else "make a new workspace",
            )
        _run(connection)
    return before, VERSION


def _run(connection: Connection) -> None:
    """Run the steps that are missing."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_STEPS))
    command.upgrade(config, "head")
