"""Whoever follows a request is told every state, the steps of its derivation, and the end."""

from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from lmeraser import Eraser
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service.limits import Budget
from lmeraser.service.routes import erasure as erasure_routes
from lmeraser.service.routes import events
from lmeraser.service.supervisor import DerivationProgress, DerivationSupervisor
from serving import PATIENCE, Running, erasure, fixtures, problem

STATES = ["pending", "in_progress", "completed"]


network, trained, root, api = fixtures("instant", max_streams=2)


@pytest.fixture(autouse=True)
def derived_by_tests_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in ("start", "stop"):
        monkeypatch.setattr(DerivationSupervisor, part, lambda _: None)


def filed(api: Running) -> str:
    wanted = erasure("digit-0003")
    assert api.call("POST", "/requests", json=wanted).status_code == 201
    return str(wanted["subject_request_id"])


def parsed(text: str) -> list[tuple[str, Any]]:
    """Names and data of events."""
    found = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            found.append((fields["event"], json.loads(fields["data"])))
    return found


def test_every_state_is_told_and_the_stream_ends_with_the_request(
    api: Running, network: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_POLL_SECONDS", 0.01)
    request, texts, workspace = filed(api), list[str](), api.service.workspace
    follower = threading.Thread(target=lambda: texts.append(api.get(f"/requests/{request}/events", "read").text))
    follower.start()
    with Eraser(workspace.root) as beside:
        beside.session.executors.use(network)
        beside.unlearn()
    follower.join(PATIENCE)
    told = parsed(texts[0])
    states = [status["request_status"] for _, status in told]
    assert states == [state for state in STATES if state in states], "each once, in their order"
    assert states[-1] == "completed"


def test_one_that_has_ended_is_told_once(api: Running) -> None:
    request = filed(api)
    api.call("DELETE", f"/requests/{request}")
    answer = api.get(f"/requests/{request}/events", "request")
    assert answer.headers["content-type"].startswith("text/event-stream")
    ((event, status),) = parsed(answer.text)
    assert (event, status["request_status"]) == ("status", "cancelled")
    assert status == api.get(f"/requests/{request}").json()


def test_steps_are_told_while_it_is_in_progress(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    request = filed(api)
    steps = iter(
        [
            DerivationProgress(1, "starting"),
            DerivationProgress(1, "tuning clusters", 1, 4),
            DerivationProgress(1, "tuning clusters", 4, 4),
            DerivationProgress(1),
        ]
    )

    async def sleep(_: float) -> None:
        api.service.supervisor.progress = next(steps, DerivationProgress(1))
        if api.service.supervisor.progress.step == "":
            api.service.stopping.set()

    monkeypatch.setattr("lmeraser.service.routes.events.anyio.sleep", sleep)
    workspace = api.service.workspace
    with workspace.writing("test"), workspace.write_transaction() as connection:
        workspace.request_changes.begin(connection, workspace.requests.all(), None, now=workspace.clock())
    told = parsed(api.get(f"/requests/{request}/events").text)
    assert [event for event, _ in told] == ["status", "progress", "progress", "progress"]
    assert told[2][1] == {"step": "tuning clusters", "done": 1, "total": 4}


def test_silence_is_broken_and_the_stream_ends_with_the_service(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "_KEEPALIVE_SECONDS", -1.0)
    request, slept = filed(api), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            api.service.stopping.set()

    monkeypatch.setattr("lmeraser.service.routes.events.anyio.sleep", sleep)
    text = api.get(f"/requests/{request}/events").text
    assert text.count(": ping\n\n") == 3
    assert len(parsed(text)) == 1


@pytest.mark.parametrize("seen", ["pending", "in_progress"])
def test_a_stream_ends_when_its_key_is_revoked(api: Running, monkeypatch: pytest.MonkeyPatch, seen: str) -> None:
    request, workspace = filed(api), api.service.workspace
    if seen == "in_progress":
        with workspace.writing("test"), workspace.write_transaction() as connection:
            workspace.request_changes.begin(connection, workspace.requests.all(), None, now=workspace.clock())
    key = next(key for key in workspace.api_keys.all() if key.name == "read")
    polls: list[float] = []

    async def sleep(seconds: float) -> None:
        polls.append(seconds)
        assert len(polls) < 3, "it goes on"
        if len(polls) == 2:
            workspace.api_keys.revoke(key.id, now=workspace.clock())

    monkeypatch.setattr("lmeraser.service.routes.events.anyio.sleep", sleep)
    ((_, status),) = parsed(api.get(f"/requests/{request}/events", "read").text)
    assert status["request_status"] == seen
    assert api.service.streams.held == 0


def test_many_streams_cost_no_more_than_a_few(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    request, slept = filed(api), list[float]()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        api.service.stopping.set()

    monkeypatch.setattr("lmeraser.service.routes.events.anyio.sleep", sleep)
    monkeypatch.setattr(api.service, "streams", Budget(100))
    with api.service.streams.reserve("others", 99):
        api.get(f"/requests/{request}/events")
    assert slept == [pytest.approx(10 * events._POLL_SECONDS)]


def test_streams_look_for_news_in_a_thread_of_their_own(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a hundred streams take no thread from calls that somebody waits for."""
    request, threads = filed(api), list[str]()
    api.call("DELETE", f"/requests/{request}")
    real = erasure_routes.find_request

    def noted(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name)
        return real(*arguments)

    monkeypatch.setattr(events, "find_request", noted)
    assert api.get(f"/requests/{request}/events", "request").status_code == 200
    assert threads[-1].startswith("stream-check")


def test_not_too_many_follow_at_once(api: Running) -> None:
    request = filed(api)
    api.call("DELETE", f"/requests/{request}")
    for _ in range(5):
        assert api.get(f"/requests/{request}/events").status_code == 200
    assert api.service.streams.held == 0, "those that ended made room"
    admin = next(key for key in api.service.workspace.api_keys.all() if key.name == "admin")
    with api.service.streams.reserve(admin.id, 1):
        problem(api.get(f"/requests/{request}/events"), 503, "busy")  # half of them are for one key
        assert api.get(f"/requests/{request}/events", "read").status_code == 200
        with api.service.streams.reserve("another", 1):
            problem(api.get(f"/requests/{request}/events", "read"), 503, "busy")
