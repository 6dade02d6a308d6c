"""Fixtures shared by all tests: real handwritten digits, settings that run in seconds, real image data.

How the suite is fast and never flaky:

* Temporary folders lie in memory where there is room, so that flushing a file costs nothing.
* A process loads the default backbone once.
* Workspaces that many tests start from are trained once a session (`template`) and copied.
* What is imported is never searched for garbage again, which took an eighth of the time.
* Libraries that few tests need are imported by these tests: each process imports every test module (`needs`).
* Files whose tests wait for other processes begin first, so that no process that runs tests ends with one of them.
* Hypothesis draws the same examples in every run (profile ``fast``); ``make test-long`` explores with new ones
  (profile ``explore``) and prints its seed.
"""

from __future__ import annotations

import copy
import gc
import io
import json
import os
import shutil
import sys
import tempfile
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from datetime import UTC, datetime
from functools import cache, lru_cache, partial, wraps
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from filelock import FileLock
from hypothesis import settings
from PIL import Image as PillowImage
from sklearn.datasets import load_digits
from sqlalchemy import create_engine, select, text, update

import lmeraser.storage.engines
from lmeraser import Columns, Eraser
from lmeraser.cli import main as cli
from lmeraser.config.schema import Config, parse
from lmeraser.data.identities import records_table
from lmeraser.data.provenance import (
    PROVENANCE,
    PUBLIC_DIGESTS,
    describe_public_digests,
    image_digests,
    sort_digests,
)
from lmeraser.data.records import Records
from lmeraser.storage.engines import PostgreSQL

if TYPE_CHECKING:
    from lmeraser.models.backbones.base import Backbone


CHECKOUT = Path(__file__).parents[1]
MEMORY = Path("/dev/shm")
DEFAULT_BACKBONE = "efficientnet-lite0"
WAITING = {
    *("test_faults.py", "test_demo.py", "test_server.py", "test_supervisor.py", "test_browser.py"),
    *("test_processes.py", "test_distributed.py", "test_engines.py"),
}
ROOM = 4 << 30  # bytes that have to be free there; a run needs less than one

# `deadline` measures the machine, not the code; a database of examples would make a run depend on earlier ones.
settings.register_profile("fast", derandomize=True, deadline=None, database=None, max_examples=40)
settings.register_profile("explore", deadline=None, database=None, print_blob=True)
settings.load_profile("fast")


def examples(fast: int, explore: int) -> settings:
    """As many examples as the profile has time for."""
    return settings(max_examples=chosen(fast, explore))


def chosen(fast: int, explore: int) -> int:
    """A number that depends on the profile."""
    return explore if settings.get_current_profile_name() == "explore" else fast


def needs(*modules: str) -> pytest.MarkDecorator:
    """Skip where one of these modules is not installed; unlike `pytest.importorskip`, nothing is imported."""
    missing = [name for name in modules if find_spec(name) is None]
    return pytest.mark.skipif(bool(missing), reason=f"needs {', '.join(missing)}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--postgresql", metavar="URL", help="keep records on this server instead of in SQLite files")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite: looks into the files of a SQLite database")
    if "TMPDIR" not in os.environ and MEMORY.is_dir() and shutil.disk_usage(MEMORY).free >= ROOM:
        os.environ["TMPDIR"] = str(MEMORY)  # processes that tests start put their folders there, too
        tempfile.tempdir = None
    if "LMERASER_CACHE" not in os.environ:  # what a session has checked, it has checked itself
        cache = os.environ["LMERASER_CACHE"] = tempfile.mkdtemp(prefix="lmeraser-cache-")
        config.add_cleanup(lambda: shutil.rmtree(cache, ignore_errors=True))
    if url := config.getoption("--postgresql"):
        setattr(lmeraser.storage.engines, "SQLite", partial(on_server, url))  # noqa: B010


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.set_threshold(20_000, 20, 20)
        gc.enable()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--postgresql"):
        items[:] = [item for item in items if not item.get_closest_marker("sqlite")]
    items.sort(key=lambda item: item.path.name not in WAITING)  # stable: otherwise in the random order


def pytest_runtest_setup() -> None:
    load_backbones_once()


def load_backbones_once() -> None:
    """Let the executors of this process share a loaded EfficientNet-Lite0, as soon as they have been imported.

    Loading takes as long as training on tens of records. What a folder holds is always loaded: tests change it.
    """
    local = sys.modules.get("lmeraser.pipeline.executors.local")
    if local is None or hasattr(local.load_backbone, "__wrapped__"):
        return
    original: Callable[[Config], Backbone] = local.load_backbone

    @lru_cache(maxsize=8)
    def once(settings: str, device: str) -> Backbone:
        return original(parse({"backbone": json.loads(settings), "compute": {"device": device}}))

    @wraps(original)
    def load(config: Config) -> Backbone:
        if config.backbone.name != DEFAULT_BACKBONE:
            return original(config)
        # A copy, so that what one test replaces in its backbone no other test gets.
        return copy.copy(once(config.backbone.model_dump_json(), config.compute.device))

    setattr(local, "load_backbone", load)  # noqa: B010


def on_server(url: str, path: Path) -> PostgreSQL:
    """A database of its own for each file that a test names; a copy of the file is a copy of the database."""
    admin = create_engine(
        f"{url}/postgres".replace("postgresql:", "postgresql+psycopg:"), isolation_level="AUTOCOMMIT"
    )
    name, owner = path.read_text().split("\n") if path.exists() else ("", "")
    if owner != str(path.absolute()):
        fresh = f"t{uuid.uuid4().hex}"
        with admin.connect() as connection:
            connection.execute(
                text(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
            )
            connection.execute(text(f"CREATE DATABASE {fresh} TEMPLATE {name or 'template1'}"))
        name = fresh
        path.write_text(f"{name}\n{path.absolute()}")
    admin.dispose()
    return PostgreSQL(f"{url}/{name}")


DIGIT_CLASSES = [str(digit) for digit in range(10)]
DIGIT_COLUMNS = Columns(id="id", subject="writer")


NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)


def forget(records: Records, ids: Sequence[str], subjects: Sequence[str] = ()) -> None:
    """Delete records in a transaction of their own."""
    with records.database.transaction() as connection:
        records.delete(connection, ids, subjects=subjects)


def exchange_payload(records: Records, record_id: str, payload: bytes) -> None:
    """Keep another payload in a record's row, as an operator might who holds the keys; no digest changes."""
    database = records.database
    with database.transaction() as connection:
        number = records._index.require_numbers([record_id], connection)[record_id]
        row = {"data": database.keys.encrypt(number, "images", payload), "number": number}
        connection.execute(text("UPDATE images SET data = :data WHERE number = :number"), row)


def respell(
    records: Records, record_id: str, *, to: str | None = None, subject: str | None = None, before: bool = False
) -> None:
    """Give a record another id or subject in its row, as if it had been imported so; with ``before``, by 0.1."""
    index = records._index
    (known,) = index.find("id", [record_id])
    renamed = known._replace(id=to or record_id, subject=subject or known.subject)
    with records.database.transaction() as connection:
        number = index.require_numbers([record_id], connection)[record_id]
        its_row = records_table.c.number == number
        entry = connection.execute(select(records_table.c.entry).where(its_row)).scalar_one()
        row = index.make_row(number, renamed, entry)
        if before:
            connection.execute(text("DELETE FROM facts WHERE name = 'names'"))
            if renamed.subject is not None:
                row["subject"] = index.lookup_digest("subject", renamed.subject)
        connection.execute(update(records_table).where(its_row).values(**row))


def png(pixels: Any) -> bytes:
    """An array, uint8 [h, w] or [h, w, 3], as the bytes of a PNG file."""
    buffer = io.BytesIO()
    PillowImage.fromarray(np.asarray(pixels, dtype=np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def listing(folder: Path, images: Sequence[bytes]) -> Path:
    """A backbone's folder with a list of its public images and nothing to compute with."""
    folder.mkdir(parents=True, exist_ok=True)
    digests = b"".join(digest for image in images for digest in image_digests(image))
    (folder / PUBLIC_DIGESTS).write_bytes(sort_digests(digests))
    told = {"public_records": describe_public_digests(folder / PUBLIC_DIGESTS, len(images))}
    (folder / PROVENANCE).write_text(json.dumps(told))
    return folder


@cache
def _digits() -> list[tuple[bytes, int]]:
    digits = load_digits()
    images = (digits.images * 255 / 16).round()
    return [(png(image), int(label)) for image, label in zip(images, digits.target, strict=True)]


def digits(numbers: Sequence[int]) -> Dataset:
    """Real handwritten digits as a data set: ``digit-0007`` by writer ``w2`` is number 7 of scikit-learn's."""
    rows = [
        {
            "id": f"digit-{number:04d}",
            "writer": f"w{number % 5}",
            "image": {"bytes": _digits()[number][0], "path": None},
            "label": _digits()[number][1],
        }
        for number in numbers
    ]
    features = {"id": Value("string"), "writer": Value("string"), "image": Image()}
    return Dataset.from_list(rows, features=Features({**features, "label": ClassLabel(names=DIGIT_CLASSES)}))


def tiny_config(**changes: dict[str, Any]) -> Config:
    """Settings on the real EfficientNet-Lite0 that train tens of records in about a second."""
    base: dict[str, dict[str, Any]] = {
        "backbone": {"image_size": 32, "micro_batch": 4},
        "partition": {"sample_size": 12, "clusters": 4},
        "tuning": {"epochs": 2, "batch_size": 8},
        "compute": {"workers": 2},
    }
    for section, values in changes.items():
        base[section] = {**base.get(section, {}), **values}
    return parse(base)


class Template(NamedTuple):
    """Makes a folder once a session, however many processes run tests, for tests that work on copies of it."""

    folder: Path

    def __call__(self, name: str, make: Callable[[Path], object]) -> Path:
        """The folder of this name, as ``make`` makes it at the path that it is given; only to be copied."""
        self.folder.mkdir(exist_ok=True)
        done = self.folder / name
        with FileLock(self.folder / f"{name}.lock"):
            if not done.exists():
                part = self.folder / f"{name}.part"
                shutil.rmtree(part, ignore_errors=True)  # a process may have been killed here
                make(part)
                part.rename(done)
        return done


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Template:
    base = tmp_path_factory.getbasetemp()
    return Template((base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "templates")


def _train_tiny(root: Path) -> None:
    with Eraser.create(root, tiny_config()) as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()


@pytest.fixture
def eraser(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    """A trained workspace of 40 digits; 12 of them shape the partition."""
    root = shutil.copytree(template("tiny", _train_tiny), tmp_path / "workspace")
    with Eraser(root) as opened:
        yield opened


@pytest.fixture
def in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Manifests of any number of clusters are in pages, of two clusters or so."""
    monkeypatch.setattr("lmeraser.models.clusters.MOST_IN_A_LIST", 0)
    monkeypatch.setattr("lmeraser.models.cluster_page._PAGE", 2)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real image data: LMERASER_DATA, or shared/data beside the checkout or in it; else a skip."""
    beside, inside = (parent / "shared" / "data" for parent in (CHECKOUT.parent, CHECKOUT))
    folder = Path(os.environ.get("LMERASER_DATA", beside if beside.is_dir() else inside))
    if not folder.is_dir():
        pytest.skip("needs real image data; set LMERASER_DATA to its folder")
    return folder


class Result(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line in this process: exit code, standard output and standard error."""
    monkeypatch.delenv("LMERASER_WORKSPACE", raising=False)

    def call(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["lmeraser", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            cli.main()
        code = caught.value.code
        assert isinstance(code, int)
        return Result(code, *capsys.readouterr())

    return call


@pytest.fixture(scope="module")
def trained(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace of 40 digits; only read by the tests."""
    return Path(shutil.copytree(template("tiny", _train_tiny), tmp_path_factory.mktemp("trained") / "w"))


@pytest.fixture
def work(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained workspace that may be changed."""
    return Path(shutil.copytree(trained, tmp_path / "w"))
