"""What is answered is on the disk, and one refusal does not disturb the others."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from conftest import Template
from faults import NOW, name, opened
from lmeraser import Eraser
from lmeraser.errors import StorageError, UnknownRecordError
from lmeraser.service import request_writer
from lmeraser.service.request_writer import RequestWriter
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.state import Request
from serving import PATIENCE, fake_workspace


@pytest.fixture
def eraser(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    with opened(fake_workspace(template, tmp_path)) as one:
        yield one


@pytest.fixture
def woken() -> list[int]:
    return []


@pytest.fixture
def writer(eraser: Eraser, woken: list[int]) -> RequestWriter:
    return RequestWriter(eraser.workspace, lambda: woken.append(1), seconds=60.0)


def accepting(eraser: Eraser, *ids: str) -> Any:
    def change(connection: Connection) -> Request:
        return eraser.workspace.request_changes.accept(
            RequestDraft(Selector.of(ids)), now=NOW, connection=connection
        )

    return change


def test_changes_that_wait_are_made_together_and_answered_after_the_commit(
    eraser: Eraser, writer: RequestWriter, woken: list[int]
) -> None:
    seen: list[set[str]] = []

    def look(_: object) -> None:
        with opened(eraser.workspace.root) as other:
            seen.append({request.id for request in other.requests()})

    made = [writer.submit(accepting(eraser, name(number))) for number in range(5)]
    wrong = writer.submit(accepting(eraser, "nobody"))
    assert writer.waiting == 6
    made[0].add_done_callback(look)
    writer.start()
    ids = {one.result(10).id for one in made}
    with pytest.raises(UnknownRecordError):
        wrong.result(10)
    writer.stop()
    assert seen == [ids], "all of them are committed when the first is answered"
    assert woken == [1]
    assert {request.id for request in eraser.requests()} == ids


def test_callers_take_turns_so_that_many_changes_of_one_hold_up_nobody_else(eraser: Eraser) -> None:
    commits: list[int] = []
    writer = RequestWriter(eraser.workspace, lambda: commits.append(len(made)), seconds=0.0)
    made: list[str] = []

    def noting(what: str) -> Callable[[Connection], None]:
        return lambda _: made.append(what)

    for number in range(4):
        writer.submit(noting(f"a{number}"), "a")
    for caller in "bc":
        writer.submit(noting(caller), caller)
    assert writer.waiting == 6
    writer.start()
    writer.stop()
    assert made == ["a0", "b", "c", "a1", "a2", "a3"]
    assert commits == [1, 2, 3, 4, 5, 6], "the time of a transaction is over after one change"


def test_whose_changes_took_the_least_time_is_served_first(eraser: Eraser) -> None:
    writer = RequestWriter(eraser.workspace, lambda: None, seconds=0.0)
    made: list[str] = []

    def using(what: str, seconds: float) -> Callable[[Connection], None]:
        def change(connection: Connection) -> None:
            made.append(what)
            until = time.thread_time() + seconds
            while time.thread_time() < until:
                pass

        return change

    for number in range(3):
        writer.submit(using(f"large {number}", 0.05), "large")
    for number in range(3):
        writer.submit(using(f"small {number}", 0.001), "small")
    writer.start()
    writer.stop()
    assert made == ["large 0", "small 0", "small 1", "small 2", "large 1", "large 2"]


def test_a_transaction_is_ended_by_time_on_the_cpu_and_not_by_waiting(eraser: Eraser) -> None:
    """On a machine that is full each change takes long; one flush to the disk for each would take longer still."""
    commits: list[int] = []
    writer = RequestWriter(eraser.workspace, lambda: commits.append(len(made)), seconds=0.01)
    made: list[int] = []

    def waiting(connection: Connection) -> None:
        time.sleep(0.02)  # as for the processor
        made.append(1)

    for _ in range(3):
        writer.submit(waiting)
    writer.start()
    writer.stop()
    assert commits == [3]


def test_an_answer_does_not_wait_for_the_ledgers_file(
    eraser: Eraser, writer: RequestWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(eraser.workspace.ledger, "flush", full)
        writer.start()
        accepted = writer.submit(accepting(eraser, name(1))).result(10)
        assert writer.submit(accepting(eraser, name(2))).result(10).state == "pending"
        writer.stop()
    assert accepted.id in {request.id for request in eraser.requests()}
    eraser.workspace.settle_requests("test")
    assert eraser.check_ledger().sound
    assert len(eraser.workspace.ledger.path.read_bytes().splitlines()) == len(eraser.workspace.ledger.entries())


def test_who_comes_next_does_not_wait_for_what_others_leave_to_do(
    eraser: Eraser, writer: RequestWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    settling, let = threading.Event(), threading.Event()

    def settle(_: str) -> None:
        settling.set()
        let.wait(PATIENCE)

    with monkeypatch.context() as patch:
        patch.setattr(request_writer, "_REST_SECONDS", 0.0)
        patch.setattr(eraser.workspace, "settle_requests", settle)
        writer.start()
        writer.submit(accepting(eraser, name(1))).result(PATIENCE)
        assert settling.wait(PATIENCE)
        assert writer.submit(accepting(eraser, name(2))).result(PATIENCE).state == "pending"
        assert not let.is_set()
    let.set()
    writer.stop()
    lines = eraser.workspace.ledger.path.read_bytes().splitlines()
    assert len(lines) == len(eraser.workspace.ledger.entries()), "nothing is left to do in the end"


def test_a_change_that_nobody_waits_for_any_more_is_not_made(eraser: Eraser, writer: RequestWriter) -> None:
    given_up, kept = (writer.submit(accepting(eraser, name(number))) for number in (1, 2))
    assert given_up.cancel()
    writer.start()
    writer.stop()
    assert [request.id for request in eraser.requests()] == [kept.result().id]


def test_if_the_disk_refuses_nobody_is_accepted_and_the_next_ones_are(
    eraser: Eraser, writer: RequestWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(eraser.workspace.ledger, "note", full)
        lost = [writer.submit(accepting(eraser, name(number))) for number in (1, 2)]
        writer.start()
        for one in lost:
            with pytest.raises(StorageError):
                one.result(10)
    assert writer.submit(accepting(eraser, name(1))).result(10).state == "pending"
    writer.stop()
    assert len(eraser.requests()) == 1
    assert eraser.check_ledger().sound
