"""Requests are carried out by a process beside the service, whatever becomes of either."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from conftest import Template
from faults import name, opened
from lmeraser import Eraser
from lmeraser.service.supervisor import DerivationSupervisor
from lmeraser.workspace.workspace import Workspace
from serving import copied, fake_workspace, prepared, set_service, until


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    return copied(prepared(template, "instant"), tmp_path, batch_seconds=0.3)


@pytest.fixture
def ended() -> list[Mapping[str, Any]]:
    return []


@pytest.fixture
def supervisor(root: Path, ended: list[Mapping[str, Any]]) -> Iterator[DerivationSupervisor]:
    workspace = Workspace(root)
    one = DerivationSupervisor(workspace, ended.append)
    yield one
    one.stop()
    workspace.close()


def test_a_request_that_can_be_taken_back_is_left_alone(template: Template, tmp_path: Path) -> None:
    with opened(fake_workspace(template, tmp_path)) as eraser:
        supervisor = DerivationSupervisor(eraser.workspace, lambda ended: None)
        assert supervisor._seconds_until_start() is None
        waits = eraser.request(ids=[name(1)])
        assert supervisor._seconds_until_start() is None, "it is in its grace period"
        eraser.start(waits.id)
        seconds = supervisor._seconds_until_start()
        assert seconds is not None
        assert 0 <= seconds <= eraser.workspace.config.service.batch_seconds


def states(root: Path) -> set[str]:
    with Eraser(root) as eraser:
        return {request.state for request in eraser.requests()}


def test_what_waits_is_carried_out_together_by_a_process_that_stays(
    root: Path, supervisor: DerivationSupervisor, ended: list[Mapping[str, Any]]
) -> None:
    with Eraser(root) as eraser:
        for number in (3, 4):
            eraser.request(ids=[f"digit-{number:04d}"])
        supervisor.start()
        until(lambda: ended)
        assert ended[0]["outcome"] == "done"
        assert (ended[0]["requests"], ended[0]["records"]) == (2, 2)
        process = supervisor.process_id
        assert process not in (None, os.getpid())
        assert "digit-" not in Path(f"/proc/{process}/cmdline").read_text()
        # What computes gives way; what writes to the database, while others wait for it, does not.
        assert os.getpriority(os.PRIO_PROCESS, process or 0) == os.getpriority(os.PRIO_PROCESS, 0)
        assert json.loads(supervisor._command) == {"compute": {"nice": 10}}
        eraser.request(subjects=["w1"])
        supervisor.check_now()
        until(lambda: len(ended) == 2)
        assert supervisor.process_id == process, "it keeps the backbone"
        assert supervisor.progress.step == ""
        assert eraser.status().up_to_date
        assert eraser.check_ledger().sound
        assert eraser.audit().identical
    assert states(root) == {"completed"}


@pytest.mark.parametrize("stopped", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_process_that_is_killed_is_started_again_and_one_that_is_stopped_leaves_the_rest_to_the_next(
    root: Path, ended: list[Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch, stopped: bool
) -> None:
    ensure_process = DerivationSupervisor._ensure_process

    def kill_the_first(supervisor: DerivationSupervisor) -> subprocess.Popen[str]:
        process = ensure_process(supervisor)
        if not ended:
            process.send_signal(signal.SIGKILL)
        return process

    monkeypatch.setattr(DerivationSupervisor, "_ensure_process", kill_the_first)
    with Eraser(root) as eraser:
        eraser.request(ids=["digit-0003"])
        if stopped:
            stopped_when(root, ended, lambda supervisor: ended and supervisor.process_id)
        stopped_when(root, ended, lambda _: not eraser.workspace.requests.all("pending", "in_progress"))
    assert ended[0]["outcome"] == "died"
    assert states(root) == {"completed"}


def stopped_when(
    root: Path, ended: list[Mapping[str, Any]], condition: Callable[[DerivationSupervisor], object]
) -> None:
    workspace = Workspace(root)
    supervisor = DerivationSupervisor(workspace, ended.append)
    supervisor.start()
    until(lambda: condition(supervisor))
    process = supervisor.process_id
    supervisor.stop()
    workspace.close()
    if process is not None:
        with pytest.raises(ProcessLookupError):
            os.kill(process, 0)


def test_the_window_is_waited_for_and_what_was_left_in_progress_is_not(root: Path) -> None:
    set_service(root, batch_seconds=3600.0)
    workspace = Workspace(root)
    supervisor = DerivationSupervisor(workspace, lambda ended: None)
    assert supervisor._seconds_until_start() is None
    with Eraser(root) as eraser:
        request = eraser.request(ids=["digit-0003"])
        assert 3000 < (supervisor._seconds_until_start() or 0) <= 3600
        with eraser.workspace.writing("test"), eraser.workspace.write_transaction() as connection:
            eraser.workspace.request_changes.begin(connection, [request], None, now=eraser.workspace.clock())
        assert (supervisor._seconds_until_start() or 0) <= 0
    workspace.close()


def test_after_a_bad_end_it_waits_longer_each_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace, ended = Workspace(root), list[Mapping[str, Any]]()
    supervisor = DerivationSupervisor(workspace, ended.append)
    ends = iter([{"outcome": "broken", "error": "OSError"}] * 8 + [{"outcome": "refused", "error": "LockedError"}])
    monkeypatch.setattr(supervisor, "_run_derivation", lambda: next(ends))
    delays = []
    for _ in range(9):
        supervisor._derive()
        delays.append(supervisor._backoff)
    assert delays == [1, 2, 4, 8, 16, 32, 60, 60, 1]
    assert len(ended) == 9
    workspace.close()


def test_between_derivations_it_rests_in_proportion(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_service(root, deriving_share=0.25)
    now = 1000.0
    monkeypatch.setattr("lmeraser.service.supervisor.time.monotonic", lambda: now)
    workspace = Workspace(root)
    supervisor = DerivationSupervisor(workspace, lambda ended: None)

    def derive(seconds: float) -> Mapping[str, Any]:
        nonlocal now
        now += seconds
        return {"outcome": "done"}

    with Eraser(root) as eraser:
        request = eraser.request(ids=["digit-0003"])
        assert supervisor._seconds_until_start() == pytest.approx(0.3), "the first one has nothing to rest from"
        for seconds, rest in ((10.0, 30.0), (3600.0, 60.0)):
            monkeypatch.setattr(supervisor, "_run_derivation", lambda seconds=seconds: derive(seconds))
            supervisor._derive()
            assert supervisor._seconds_until_start() == pytest.approx(rest)
        with eraser.workspace.writing("test"), eraser.workspace.write_transaction() as connection:
            eraser.workspace.request_changes.begin(connection, [request], None, now=eraser.workspace.clock())
        assert supervisor._seconds_until_start() == 0, "what a crash left is carried on"
    workspace.close()
