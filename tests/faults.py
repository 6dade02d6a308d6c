"""Stop a command at each of its durable operations in turn, and look at what is left.

    python tests/faults.py -     runs what lines on standard input ask for: [SCENARIO, MODE, FOLDER, STEP] as JSON
    python tests/faults.py       runs everything and prints totals

For n = 1, 2, ... (or every STEP-th n, beginning where scenario and mode say) a fresh copy of a prepared workspace
is changed by a forked process that is stopped at its n-th durable operation (a write, flush, rename, removal, SQL
statement or commit), until it runs through. After each stop the workspace is opened again as its user would, and
has to be in the state before the command or after it; then the command is given again (where STEP is not 1, after
every second stop). MODE is

    kill  the process ends at once (os._exit), a file that was being appended to is left half-written
    full  from that operation on, nothing more can be written (ENOSPC)
    deny  that one operation is not permitted (EACCES)

Answers with a JSON object a line: the points that were tried, and everything that was wrong. It is a process of
its own because what forks may have no threads, and stays because importing takes as long as a scenario.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import gc
import itertools
import json
import os
import shutil
import sqlite3
import sys
import tempfile
import uuid
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import Engine, event
from sqlalchemy.exc import OperationalError

from fake import Fake
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.data import statistics
from lmeraser.data.importing import import_records
from lmeraser.data.sources import Row, Source
from lmeraser.errors import LmeraserError
from lmeraser.inference.export.folder import ExportOptions, export_folder
from lmeraser.inference.export.manifest import read_export
from lmeraser.models import clusters
from lmeraser.models.clusters import MOST_IN_A_LIST
from lmeraser.unlearning.residue import scan
from lmeraser.workspace.exports import Holder

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
CONFIG = parse({"partition": {"clusters": 3, "sample_size": 6}, "global_head": {"weight": 0.5}})
CLASSES = ("cat", "dog", "eel")
REQUEST = "00000000-0000-4000-8000-000000000001"
ALL = range(12)
SAMPLED = 0  # in the sample of all twelve, as `trained` makes sure
ORDINARY = 10  # not in it
OUTSIDE = "outside"  # folder of copies of the model, beside the workspace
REFUSED, BROKEN = 3, 4  # exit codes of the forked process


def picture(number: int) -> bytes:
    """A PNG of random pixels, different for every number."""
    buffer = BytesIO()
    pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def name(number: int) -> str:
    return f"record-of-person-{number:04d}"


def rows(numbers: Sequence[int]) -> Source:
    every = [Row(n, name(n), f"person-{n % 4}", CLASSES[n % 3], picture(n)) for n in numbers]
    return Source("pictures", CLASSES, len(every), every)


def opened(root: Path) -> Eraser:
    eraser = Eraser(root, clock=lambda: NOW)
    eraser.session.executors.use(Fake())
    return eraser


def add(eraser: Eraser, numbers: Sequence[int]) -> None:
    workspace = eraser.workspace
    with workspace.writing("add"):
        import_records(workspace.records, rows(numbers), ledger=workspace.ledger, now=NOW)


@dataclass
class Scenario:
    """A command, the workspace it starts from, and what may be there afterwards.

    Attributes:
        prepare: makes the workspace from an empty one.
        command: what is stopped.
        before: numbers of the records held before it.
        after: numbers of the records held after it.
        labels: labels that differ from the rows', after it.
        pages: whether manifests are in pages, as those of many clusters.
    """

    prepare: Callable[[Eraser], None]
    command: Callable[[Eraser], Any]
    before: Sequence[int]
    after: Sequence[int]
    labels: dict[int, int] = field(default_factory=dict)
    pages: bool = False


def trained(eraser: Eraser) -> None:
    add(eraser, ALL)
    eraser.train()
    assert name(SAMPLED) in eraser.sampled_ids()
    assert name(ORDINARY) not in eraser.sampled_ids()


def asked(eraser: Eraser) -> None:
    trained(eraser)
    eraser.request(ids=[name(4)], subjects=["person-3"], request=REQUEST, reference="a ticket")


def add_and_train(eraser: Eraser) -> None:
    add(eraser, range(12, 15))
    eraser.train()


def littered(eraser: Eraser) -> None:
    """Trained, with leftovers that a purge removes."""
    trained(eraser)
    root = eraser.workspace.root
    (root / "reports").mkdir()
    for path in ("reports/clusters.png", "artifacts/.tmp-left", "generations/00000099.json", ".tmp-left"):
        (root / path).write_bytes(picture(99))
    with eraser.workspace.database.transaction() as connection:
        eraser.workspace.database.mark_compaction_due(connection)


def export(eraser: Eraser) -> None:
    out = eraser.workspace.root.parent / OUTSIDE / str(uuid.uuid4())
    export_folder(eraser.session, out, ExportOptions(holder=Holder(contact="a person")))


def exported(eraser: Eraser) -> None:
    trained(eraser)
    export(eraser)


SCENARIOS = {
    "add": Scenario(lambda e: None, lambda e: add(e, ALL), (), ALL),
    "add_more": Scenario(trained, add_and_train, ALL, range(15)),
    "train": Scenario(lambda e: add(e, ALL), lambda e: e.train(), ALL, ALL),
    "unlearn": Scenario(
        trained, lambda e: e.unlearn(ids=[name(ORDINARY)]), ALL, [n for n in ALL if n != ORDINARY]
    ),
    "unlearn_in_pages": Scenario(
        trained, lambda e: e.unlearn(ids=[name(ORDINARY)]), ALL, [n for n in ALL if n != ORDINARY], pages=True
    ),
    "unlearn_sampled": Scenario(
        trained, lambda e: e.unlearn(ids=[name(SAMPLED)]), ALL, [n for n in ALL if n != SAMPLED]
    ),
    "unlearn_untrained": Scenario(
        lambda e: add(e, ALL), lambda e: e.unlearn(ids=[name(ORDINARY)]), ALL, [n for n in ALL if n != ORDINARY]
    ),
    "unlearn_pending": Scenario(
        asked, lambda e: e.unlearn(request=REQUEST, audit=True), ALL, [n for n in ALL if n != 4 and n % 4 != 3]
    ),
    "request": Scenario(
        trained, lambda e: e.request(ids=[name(4)], request=REQUEST, reference="a ticket"), ALL, ALL
    ),
    "extend": Scenario(asked, lambda e: e.requests()[0].extended or e.extend(REQUEST, reason="other"), ALL, ALL),
    "cancel": Scenario(asked, lambda e: e.cancel(REQUEST), ALL, ALL),
    "relabel": Scenario(trained, lambda e: e.relabel("eel", ids=[name(4)]), ALL, ALL, {4: 2}),
    "purge": Scenario(littered, lambda e: e.purge(), ALL, ALL),
    "export": Scenario(trained, lambda e: export(e), ALL, ALL),
    "confirm": Scenario(exported, lambda e: e.confirm_export(e.exports()[0].copy.id), ALL, ALL),
}


class Crash(BaseException):
    """Stands for the end of the process where it cannot end."""


class Fault:
    """Counts durable operations and stops at the n-th; mode ``crash`` raises `Crash` there and ever after."""

    def __init__(self, mode: str, at: int) -> None:
        self.mode, self.at, self.count = mode, at, 0
        self.flushed: dict[int, int] = {}

    def operation(self, what: str, *, removal: bool = False) -> None:
        self.count += 1
        if self.mode == "kill" and self.count == self.at:
            os._exit(9)
        if self.mode == "crash" and self.count >= self.at:
            raise Crash
        if (self.mode == "deny" and self.count == self.at) or (
            self.mode == "full" and self.count >= self.at and not removal
        ):
            number = errno.EACCES if self.mode == "deny" else errno.ENOSPC
            if what == "sql":
                text = (
                    "attempt to write a readonly database" if self.mode == "deny" else "database or disk is full"
                )
                raise OperationalError("statement", {}, sqlite3.OperationalError(text))
            raise OSError(number, os.strerror(number))

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Watch every durable operation of this process while the body runs."""
        real = {f: getattr(os, f) for f in ("fsync", "replace", "rename", "chmod", "mkdir", "unlink", "remove")}
        commit = lambda _: self.operation("sql")  # noqa: E731
        try:
            setattr(os, "fsync", self._fsync(real.pop("fsync")))  # noqa: B010
            for function, original in real.items():
                setattr(os, function, self._counted(original, removal=function in ("unlink", "remove")))
            event.listen(Engine, "before_cursor_execute", self._statement)
            event.listen(Engine, "commit", commit)
            yield
        finally:
            setattr(os, "fsync", getattr(os.fsync, "__wrapped__"))  # noqa: B009, B010
            for function, original in real.items():
                setattr(os, function, original)
            event.remove(Engine, "before_cursor_execute", self._statement)
            event.remove(Engine, "commit", commit)

    def _fsync(self, real: Callable[[int], None]) -> Callable[[int], None]:
        @functools.wraps(real)
        def fsync(handle: int) -> None:
            status = os.fstat(handle)
            if self.mode == "kill" and self.count + 1 == self.at and (old := self.flushed.get(status.st_ino)):
                os.truncate(handle, old + (status.st_size - old) // 2)  # only half of what was appended arrived
            self.operation("fsync")
            real(handle)
            self.flushed[status.st_ino] = os.fstat(handle).st_size

        return fsync

    def _counted(self, real: Callable[..., Any], *, removal: bool = False) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.operation("file", removal=removal)
            return real(*arguments, **options)

        return counted

    def _statement(self, _c: Any, _u: Any, statement: str, *_rest: Any) -> None:
        if not statement.startswith(("SELECT", "BEGIN", "PRAGMA main", "PRAGMA temp")):
            self.operation("sql")


def stopped(root: Path, command: Callable[[Eraser], Any], mode: str, at: int) -> int:
    """Run a command in a forked process that is stopped at an operation; its exit code."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    try:
        fault = Fault(mode, at)
        for path in root.glob("ledger"):
            fault.flushed[path.stat().st_ino] = path.stat().st_size
        with fault.installed(), opened(root) as eraser:
            command(eraser)
        os._exit(0 if fault.count < at else REFUSED)
    except LmeraserError:
        os._exit(REFUSED)
    except BaseException as error:
        sys.stderr.write(f"{mode} {at}: {error!r}\n")
        os._exit(BROKEN)


def fresh_digest(folder: Path, numbers: Sequence[int], labels: dict[int, int], *, even_empty: bool = False) -> str:
    """The oracle: the digest of training once on these records."""
    if not numbers and not even_empty:
        return ""
    shutil.rmtree(folder, ignore_errors=True)
    Eraser.create(folder, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(folder) as eraser:
        every = [
            Row(n, name(n), f"person-{n % 4}", CLASSES[labels.get(n, n % 3)], picture(n))
            for n in reversed(numbers)
        ]
        workspace = eraser.workspace
        with workspace.writing("add"):
            source = Source("pictures", CLASSES, len(every), every)
            import_records(workspace.records, source, ledger=workspace.ledger, now=NOW)
        eraser.train()
        return eraser.model_digest


@functools.cache
def _known_digest(numbers: tuple[int, ...], labels: tuple[tuple[int, int], ...], pages: bool) -> str:
    """The oracle's digest; scenarios share it. ``pages`` says how the manifest is kept now."""
    with tempfile.TemporaryDirectory() as folder:
        return fresh_digest(Path(folder) / "oracle", numbers, dict(labels))


def faults_of(root: Path, scenario: Scenario, oracle: dict[str, str]) -> list[str]:
    """What is wrong with a workspace after its command was stopped."""
    found = []
    before, after = ({name(n) for n in numbers} for numbers in (scenario.before, scenario.after))
    with opened(root) as eraser:
        eraser.status()  # a reader, before anybody repairs anything
        if eraser.workspace.generations.current():
            eraser.quarantined()
        held = set(eraser.record_ids())
        if held not in (after, before):
            found.append(f"neither before nor after: {sorted(held)}")
        if held:
            eraser.train()
            lawful = [oracle[state] for state, ids in (("before", before), ("after", after)) if ids == held]
            if eraser.model_digest not in lawful:
                found.append("another model than training on the records that are left gives")
        found += _faults_of_evidence(eraser, gone=bool(before - held))
        eraser.purge()
    gone = [int(record_id[-4:]) for record_id in before - held]
    probes = {name(n): picture(n) for n in [*gone, 99]}
    others = [picture(int(record_id[-4:])) for record_id in held]
    if not (residue := scan(root, probes, [name(n) for n in gone], retained=others)).clean:
        found.append(f"residue: {residue.finds}")
    return found


def _faults_of_evidence(eraser: Eraser, *, gone: bool) -> list[str]:
    found = []
    report = eraser.check_ledger()
    if not report.sound:
        found.append(f"ledger: {report.differences}")
    if any(request.state == "in_progress" for request in eraser.requests()):
        found.append("a request is still in progress")
    completed = [request for request in eraser.requests() if request.state == "completed"]
    if gone and not completed:
        found.append("records are gone without a completed request")
    found += [f"copy {path}" for path in _copies(eraser) if path not in eraser.workspace.exports.ids()]
    for request in completed:
        if not (eraser.workspace.certificates / f"{request.id}.json").exists():
            found.append("a completed request without certificate")
    return found


def _copies(eraser: Eraser) -> list[str]:
    """Ids of the copies outside, each of which has to be whole; what was not finished has a temporary name."""
    folders = (eraser.workspace.root.parent / OUTSIDE).glob("[!.]*")
    return [read_export(path).export for path in folders]


def repeated(root: Path, scenario: Scenario, oracle: dict[str, str]) -> list[str]:
    """What is wrong after the same command is given again and runs through."""
    with opened(root) as eraser:
        try:
            scenario.command(eraser)
        except LmeraserError as error:
            if "not in a state that allows this" not in str(error):  # it had been cancelled or completed already
                return [f"given again: {error}"]
        held = set(eraser.record_ids())
        wrong = [] if held == {name(n) for n in scenario.after} else [f"given again: {sorted(held)}"]
        served = eraser.workspace.generations.current()
        if served is not None and served.model_digest != oracle["after"]:
            wrong.append("given again: another model than training on what is left gives")
        return wrong if eraser.check_ledger().sound else [*wrong, "given again: ledger"]


def run(scenario: Scenario, mode: str, folder: Path, points: Iterator[int], *, again: int = 1) -> dict[str, Any]:
    """Try points of a scenario, until one lies behind the command's last operation.

    After every ``again``-th of them the command is given again, too.
    """
    clusters.MOST_IN_A_LIST = 0 if scenario.pages else MOST_IN_A_LIST
    base, work = folder / "base", folder / "work"
    Eraser.create(base, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(base) as eraser:
        scenario.prepare(eraser)
    oracle = {
        "before": _known_digest(tuple(scenario.before), (), scenario.pages),
        "after": _known_digest(tuple(scenario.after), tuple(scenario.labels.items()), scenario.pages),
    }
    failures: list[str] = []
    for tried, at in enumerate(points):
        for changed in (work, folder / OUTSIDE):
            shutil.rmtree(changed, ignore_errors=True)
        shutil.copytree(base, work)
        code = stopped(work, scenario.command, mode, at)
        wrong = [] if code in (0, 9, REFUSED) else [f"ended with {code}"]
        try:
            wrong += faults_of(work, scenario, oracle)
            if tried % again == 0:
                wrong += repeated(work, scenario, oracle)
        except Exception as error:
            wrong.append(f"cannot be opened: {error!r}")
        failures += [f"{mode} at operation {at}: {line}" for line in wrong]
        if code == 0:
            return {"points": tried, "failures": failures}
    raise AssertionError


def every(step: int, name: str, mode: str) -> Iterator[int]:
    """Every ``step``-th point; the scenarios and modes begin at different ones."""
    return itertools.count(1 + zlib.crc32(f"{name} {mode}".encode()) % step, step)


def main() -> None:
    """What is asked for, or, without arguments, everything."""
    gc.freeze()  # what was imported stays; no fork has to look through it, nor to copy it for that
    gc.set_threshold(50_000)
    statistics._IN_FILE_BYTES = 0  # so that files of large values are written and removed, too
    if sys.argv[1:] == ["-"]:
        for line in sys.stdin:
            name, mode, folder, step = json.loads(line)
            result = run(SCENARIOS[name], mode, Path(folder), every(step, name, mode), again=1 if step == 1 else 2)
            sys.stdout.write(json.dumps(result) + "\n")
            sys.stdout.flush()
        return
    for mode in ("kill", "full", "deny"):
        points, failures = 0, 0
        for scenario in SCENARIOS.values():
            with tempfile.TemporaryDirectory() as folder:
                result = run(scenario, mode, Path(folder), itertools.count(1))
            points, failures = points + result["points"], failures + len(result["failures"])
        sys.stdout.write(f"{mode}: {points} points in {len(SCENARIOS)} scenarios, {failures} failures\n")


if __name__ == "__main__":
    main()
