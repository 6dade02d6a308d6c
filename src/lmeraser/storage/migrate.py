"""Versions of the database's tables, and upgrades by the steps in `migrations`, run by Alembic.

A new database runs all steps. One with older tables is refused until the missing steps are requested with
`lmeraser upgrade`: they change private data, which should be backed up first. All steps are one transaction.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect

from lmeraser.errors import FormatError
from lmeraser.storage.engines import DatabaseBackend

VERSION = "0007"  # of the tables after the last step
_STEPS = Path(__file__).parent / "migrations"
_TABLE = "alembic_version"


def prepare(backend: DatabaseBackend) -> None:
    """Create the tables of a new database; refuse tables of another version.

    Raises:
        FormatError: the tables are older or newer than those of this version.
    """
    with backend.engine.begin() as connection:
        found = version(connection)
        if found is None and not inspect(connection).has_table("facts"):
            _run(connection)
        elif found != VERSION:
            if found is not None and found > VERSION:
                raise _newer_tables(backend, found)
            raise FormatError(
                "Database has tables of an older version of lmeraser",
                got=f"version {found or 'before the first release'} in {backend.display_name} "
                f"(this one works with {VERSION})",
                next_step="make a backup of the workspace and its database, then run 'lmeraser upgrade'",
            )


def version(connection: Connection) -> str | None:
    """The version of the tables; None if there are none."""
    if not inspect(connection).has_table(_TABLE):
        return None
    return connection.exec_driver_sql(f"SELECT version_num FROM {_TABLE}").scalar_one_or_none()


def upgrade(backend: DatabaseBackend) -> tuple[str, str]:
    """Run the missing steps; after any error, none of them has happened.

    Returns:
        The versions before and after.

    Raises:
        FormatError: the tables are newer than this version of lmeraser, or older than the first release.
    """
    with backend.schema_transaction() as connection:
        before = version(connection)
        if before is None:
            raise FormatError(
                "Tables of before the first release cannot be upgraded",
                got=backend.display_name,
                next_step="create a new workspace",
            )
        if before > VERSION:
            raise _newer_tables(backend, before)
        _run(connection)
    return before, VERSION


def _newer_tables(backend: DatabaseBackend, found: str) -> FormatError:
    return FormatError(
        "Database has tables of a newer version of lmeraser",
        got=f"version {found} in {backend.display_name} (this one works with {VERSION})",
        next_step="use a newer lmeraser; nothing was changed",
    )


def _run(connection: Connection) -> None:
    """Run the missing steps in the transaction of a connection."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_STEPS))
    command.upgrade(config, "head")
