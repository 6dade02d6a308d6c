"""New and upgraded tables are the same; other versions are refused; an upgrade happens whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import inspect

from conftest import DIGIT_COLUMNS, Run, digits, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.errors import CorruptError, FormatError, LockedError
from lmeraser.storage import migrate
from lmeraser.storage.database import schema
from lmeraser.storage.engines import DatabaseBackend, SQLite, open_backend
from lmeraser.workspace.workspace import Workspace
from upgrades import BROKEN, LATER, later


@pytest.fixture
def reached(tmp_path: Path) -> Iterator[DatabaseBackend]:
    found = open_backend(tmp_path / "records.db")
    yield found
    found.engine.dispose()


def test_the_last_step_has_the_version_of_the_program() -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate._STEPS))
    assert ScriptDirectory.from_config(config).get_heads() == [migrate.VERSION]


def test_the_steps_make_the_tables_that_the_modules_name(reached: DatabaseBackend) -> None:
    migrate.prepare(reached)
    asked = ("columns", "indexes", "foreign_keys", "pk_constraint", "unique_constraints")
    with reached.engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), schema) == []
        inspector = inspect(connection)
        before = {(t, a): repr(getattr(inspector, f"get_{a}")(t)) for t in schema.tables for a in asked}
        schema.drop_all(connection)
        schema.create_all(connection)
        inspector = inspect(connection)
        assert before == {(t, a): repr(getattr(inspector, f"get_{a}")(t)) for t in schema.tables for a in asked}


def test_preparing_again_changes_nothing(reached: DatabaseBackend) -> None:
    migrate.prepare(reached)
    migrate.prepare(reached)
    assert migrate.upgrade(reached) == (migrate.VERSION, migrate.VERSION)


@pytest.fixture
def filled(tmp_path: Path) -> Path:
    path = tmp_path / "w"
    with Eraser.create(path, tiny_config()) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
    return path


@pytest.mark.sqlite
def test_an_older_workspace_is_refused_until_it_is_upgraded(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    with Eraser(filled) as eraser:
        digest, images = eraser.status().manifest_digest, eraser.workspace.records.payloads(eraser.record_ids())
    version = migrate.VERSION
    later(tmp_path, monkeypatch)
    refused = run("-w", filled, "status")
    assert refused.code == 2
    assert f"older version of lmeraser: version {version} in" in refused.err
    assert "backup" in refused.err
    assert "lmeraser upgrade" in refused.err
    assert "upgraded" in run("-w", filled, "upgrade").out
    with Eraser(filled) as eraser:
        eraser.session.executors.use(Fake())
        assert eraser.workspace.records.payloads(eraser.record_ids()) == images
        assert eraser.audit().identical
        eraser.unlearn(ids=["digit-0003"])  # what belongs to the record still goes with it
        assert eraser.audit().identical
        assert eraser.check_ledger().sound
        assert eraser.workspace.generations.require().previous == digest
        with eraser.workspace.database.reading() as connection:
            colours = connection.exec_driver_sql("SELECT DISTINCT colour FROM records").all()
            left = connection.exec_driver_sql("SELECT count(*) FROM images").scalar_one()
    assert (colours, left) == ([("red",)], 19)
    again = run("-w", filled, "upgrade", "--json").json
    assert again == {"tables_before": LATER, "tables_now": LATER, "subjects": {}, "ids": {}}


@pytest.mark.sqlite
def test_a_step_that_fails_leaves_all_as_it_was(
    filled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        later(tmp_path, patch, BROKEN)
        with pytest.raises(Exception, match="no_such_table"):
            Workspace(filled).upgrade()
    with Eraser(filled) as eraser:
        eraser.session.executors.use(Fake())
        assert eraser.audit().identical


@pytest.mark.sqlite
def test_every_version_leads_to_the_tables_of_this_one(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(migrate._STEPS))
    for step in ScriptDirectory.from_config(config).walk_revisions():
        older = open_backend(tmp_path / f"{step.revision}.db")
        with older.engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, step.revision)
        assert migrate.upgrade(older) == (step.revision, migrate.VERSION)
        with older.engine.begin() as connection:
            assert compare_metadata(MigrationContext.configure(connection), schema) == []
        older.engine.dispose()


def test_tables_of_a_newer_version_are_refused(filled: Path, run: Run) -> None:
    with Eraser(filled) as eraser, eraser.workspace.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    for verb in ("status", "upgrade"):
        refused = run("-w", filled, verb)
        assert refused.code == 2
        assert "9999" in refused.err
        assert "nothing was changed" in refused.err


@pytest.mark.sqlite
def test_tables_without_a_version_are_refused(filled: Path) -> None:
    with Eraser(filled) as eraser, eraser.workspace.database.transaction() as connection:
        connection.exec_driver_sql("DROP TABLE alembic_version")
    with pytest.raises(FormatError, match="before the first release"):
        Eraser(filled).status()
    with pytest.raises(FormatError, match="create a new workspace"):
        Workspace(filled).upgrade()


def test_nobody_writes_while_tables_change(filled: Path) -> None:
    refused = pytest.raises(LockedError, match="something")
    with closing(Workspace(filled)) as first, first.writing("something"), refused:
        Workspace(filled, wait=0).upgrade()


@pytest.mark.sqlite
def test_a_step_that_leaves_rows_without_their_record_is_undone(filled: Path) -> None:
    reached = SQLite(filled / "records.db")
    others = "places", "features", "codes"
    with pytest.raises(CorruptError, match="20 rows"), reached.schema_transaction() as connection:
        assert [connection.exec_driver_sql(f"DELETE FROM {table}").rowcount for table in ("records", *others)]
    with reached.engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM records").scalar_one() == 20
    reached.engine.dispose()
