"""Records, requests and ledger do on a PostgreSQL server what they do in a SQLite file."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, text

import faults
from conftest import DIGIT_COLUMNS, digits, needs, on_server, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.errors import ConfigError, CorruptError, FormatError, LockedError, StorageError
from lmeraser.storage import engines, migrate
from lmeraser.storage.engines import PostgreSQL, SQLite
from lmeraser.workspace.backup import backup
from lmeraser.workspace.restore import restore
from lmeraser.workspace.workspace import Workspace
from upgrades import BROKEN, LATER, later
from workspace.requests import test_repository

pytestmark = needs("psycopg")


def program(name: str) -> str:
    found = shutil.which(name) or next(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), None)
    if found is None:
        pytest.skip(f"needs PostgreSQL's {name}")
    return found


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """A real server on a free port; the URL without a database."""
    # Not below pytest's folder, which every run of pytest that starts meanwhile closes to other users again.
    with tempfile.TemporaryDirectory() as folder:
        yield from serve(Path(folder))


def serve(folder: Path) -> Iterator[str]:
    who: dict[str, Any] = {"user": "postgres"} if os.getuid() == 0 else {}
    if who:
        shutil.chown(folder, "postgres")
    data = folder / "data"
    run: dict[str, Any] = {"capture_output": True, "cwd": folder, **who}
    make = [program("initdb"), "-D", str(data), "-A", "trust", "-U", "tester", "-E", "UTF8", "--locale=C.UTF-8"]
    subprocess.run(make, check=True, **run)
    for _ in range(5):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        settings = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        start = ["-o", settings, "-l", str(folder / "log"), "-w", "-t", "240", "start"]
        if subprocess.run([program("pg_ctl"), "-D", data, *start], check=False, **run).returncode == 0:
            break  # else another process may have taken the port meanwhile
    else:
        raise AssertionError((folder / "log").read_text())
    yield f"postgresql://tester@127.0.0.1:{port}"
    stopped = subprocess.run([program("pg_ctl"), "-D", data, "-t", "240", "stop"], check=False, text=True, **run)
    assert stopped.returncode == 0, stopped.stderr + (folder / "log").read_text()[-3000:]


SUITES = (
    "workspace/requests/test_repository.py",
    "data/test_changelog.py",
    "data/test_records.py",
    "data/test_statistics.py",
    "workspace/requests/test_selection.py",
    "evidence/test_ledger.py",
    "storage/test_migrate.py",
    "data/test_importing.py",
    "pipeline/test_incremental.py",
    "unlearning/test_relabel.py",
    "workspace/requests/test_state.py",
    "unlearning/test_unlearn.py",
)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_suites_pass_on_a_server(server: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--postgresql", server, "--basetemp", str(tmp_path / "t")]
    files = [str(Path(__file__).parents[1] / suite) for suite in SUITES]
    finished = subprocess.run(
        [*command, "-p", "no:cacheprovider", *files], capture_output=True, text=True, check=False, timeout=880
    )
    assert finished.returncode == 0, finished.stdout[-3000:] + finished.stderr[-1500:]


def test_several_connections_meet_on_a_server(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a file; the other tests of this module add, derive, delete and upgrade."""
    monkeypatch.setattr(engines, "SQLite", partial(on_server, server))
    for number, meet in enumerate(
        (
            test_repository.test_many_requests_at_once_while_models_are_derived,
            test_repository.test_a_request_that_has_begun_cannot_be_cancelled,
        )
    ):
        root = tmp_path / str(number)
        Eraser.create(root, faults.CONFIG, classes=faults.CLASSES, clock=lambda: faults.NOW).close()
        with faults.opened(root) as eraser:
            faults.trained(eraser)
            meet(root, eraser)


def url_of(server: str, path: Path) -> str:
    """A new, empty database."""
    reached = on_server(server, path)
    reached.engine.dispose()
    return reached.engine.url.set(drivername="postgresql").render_as_string()


@pytest.mark.parametrize("pages", [False, True])
def test_a_workspace_on_a_server_gives_the_same_model_and_can_be_opened_again(
    server: str, tmp_path: Path, request: pytest.FixtureRequest, pages: bool
) -> None:
    if pages:
        request.getfixturevalue("in_pages")
    url = url_of(server, tmp_path / "records.db")
    digests = []
    for name, storage in (("file", {}), ("server", {"database": url})):
        with Eraser.create(tmp_path / name, tiny_config(storage=storage)) as eraser:
            eraser.session.executors.use(Fake())
            eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
            eraser.train()
            eraser.unlearn(ids=["digit-0003"])
            assert eraser.check_ledger().sound
            assert bool(eraser.workspace.generations.require().pages) is pages
        with Eraser(tmp_path / name) as eraser:
            digests.append(eraser.model_digest)
            assert eraser.status().records == 19
            assert "digit-0003" not in eraser.record_ids()
        assert (tmp_path / name / "records.db").exists() is (name == "file")
    assert digests[0] == digests[1]


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_workspace_of_many_clusters_on_a_server_is_restored(server: str, tmp_path: Path) -> None:
    url, root = url_of(server, tmp_path / "records.db"), tmp_path / "w"
    chosen = {"method": "class_tree", "clusters": None, "max_records": 1}
    with Eraser.create(root, tiny_config(partition=chosen, storage={"database": url})) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits(range(600)), columns=DIGIT_COLUMNS)
        eraser.train()
        eraser.unlearn(ids=["digit-0003"])
        assert len(eraser.workspace.generations.require().pages) > 1
        backup(eraser.workspace, tmp_path / "backup.tar")
        eraser.unlearn(ids=["digit-0004"])
        digests = {eraser.model_digest}
    newest = (root / "ledger").read_bytes()
    shutil.rmtree(root)
    empty(server, url)
    assert restore(tmp_path / "backup.tar", root, newest=newest).records_deleted == 1
    with Eraser(root) as eraser:
        eraser.session.executors.use(Fake())
        eraser.train()
        assert eraser.check_ledger().sound
        digests.add(eraser.model_digest)
    with Eraser.create(tmp_path / "file", tiny_config(partition=chosen)) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits([number for number in range(600) if number not in (3, 4)]), columns=DIGIT_COLUMNS)
        eraser.train()
        digests.add(eraser.model_digest)
    assert len(digests) == 1


def empty(server: str, url: str) -> None:
    """Make a database anew."""
    name = url.rpartition("/")[2]
    admin = create_engine(
        f"{server}/postgres".replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    with admin.connect() as connection:
        connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        connection.execute(text(f"CREATE DATABASE {name}"))
    admin.dispose()


def test_a_database_belongs_to_one_workspace(server: str, tmp_path: Path) -> None:
    url = url_of(server, tmp_path / "records.db")
    Eraser.create(tmp_path / "one", tiny_config(storage={"database": url})).close()
    with pytest.raises(CorruptError, match="The ledger does not end where the database says"):
        Eraser.create(tmp_path / "two", tiny_config(storage={"database": url}))


def test_one_writer_at_a_time_wherever_its_folder_is(server: str, tmp_path: Path) -> None:
    first, second = (on_server(server, tmp_path / "records.db") for _ in range(2))
    with first.writer_lock(0):
        with pytest.raises(LockedError, match="--wait"), second.writer_lock(0.3):
            pass
        started = threading.Event()
        waited: list[bool] = []

        def write() -> None:
            started.set()
            with second.writer_lock(60):
                waited.append(True)

        thread = threading.Thread(target=write)
        thread.start()
        started.wait()
        assert not waited
    thread.join(60)
    assert waited
    for reached in (first, second):
        reached.engine.dispose()


@pytest.mark.parametrize("url", ["sqlite:///x.db", "mysql://u:secret@h/n", "no url: secret", ""])
def test_another_url_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ConfigError, match="postgresql://USER@HOST/NAME") as error:
        PostgreSQL(url)
    assert "secret" not in str(error.value)


def test_a_server_that_is_not_there_is_an_error_without_the_password(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="check that the server runs") as error:
        Eraser.create(tmp_path / "w", tiny_config(storage={"database": "postgresql://me:secret@127.0.0.1:1/x"}))
    assert "secret" not in str(error.value)


def test_a_file_has_a_size_and_needs_no_other_lock(tmp_path: Path) -> None:
    reached = SQLite(tmp_path / "records.db")
    with reached.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE t (x)")
    with reached.writer_lock(0), reached.writer_lock(0):
        assert reached.size() > 0
    reached.engine.dispose()


def test_an_older_database_is_upgraded_or_left_as_it_was(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = url_of(server, tmp_path / "records.db")
    with Eraser.create(tmp_path / "w", tiny_config(storage={"database": url})) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
        digest = eraser.model_digest
    version = migrate.VERSION
    with monkeypatch.context() as patch:
        later(tmp_path / "broken", patch, BROKEN)
        with (
            contextlib.closing(Workspace(tmp_path / "w")) as workspace,
            pytest.raises(Exception, match="no_such_table"),
        ):
            workspace.upgrade()
    later(tmp_path, monkeypatch)
    with pytest.raises(FormatError, match="lmeraser upgrade") as refused, Eraser(tmp_path / "w") as eraser:
        eraser.status()
    assert version in str(refused.value)
    with contextlib.closing(Workspace(tmp_path / "w")) as workspace:
        assert workspace.upgrade() == (version, LATER)
    with Eraser(tmp_path / "w") as eraser:
        eraser.session.executors.use(Fake())
        assert eraser.audit().identical
        assert eraser.model_digest == digest
        assert eraser.unlearn(ids=["digit-0003"])
        assert eraser.audit().identical
