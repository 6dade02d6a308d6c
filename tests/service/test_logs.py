"""Nothing personal is in any log line, answer to an error, or argument of a process."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import re
import uuid
from pathlib import Path
from typing import Any

import pytest

from lmeraser import Eraser
from lmeraser.pipeline.executors.local import LocalExecutor
from serving import Running, erasure, fixtures, problem, until

PERSONAL = re.compile(r"digit-\d{4}|\bw[0-4]\b|mallory|4111-1111|patient")


network, trained, root, api = fixtures("instant")


def wrong_calls(api: Running) -> list[Any]:
    """Calls that are refused, with something personal in every part of them."""
    named = erasure("digit-0003", "mallory", subjects=["w1"])
    key = api.keys["admin"]
    bearer = {"Authorization": f"Bearer {key}"}
    twisted = {**named, "subject_identities": [{"identity_type": "mallory", "mallory": 1}], "w1": "digit-0003"}
    return [
        api.call("POST", "/requests", json=named),
        api.call("POST", "/requests", json=twisted),
        api.call("POST", "/requests", json=erasure("digit-0003", status_callback_urls=["https://mallory/w1"])),
        api.call("POST", "/requests", json=erasure("digit-0003", subject_request_type="mallory")),
        api.call("POST", "/requests", json={"mallory": {"mallory": ["mallory"]}}),
        api.http.post("/requests", content=b'{"mallory', headers=bearer),
        api.call("POST", "/plan", json={"subject_identities": named["subject_identities"]}),
        api.get("/requests/mallory"),
        api.get("/requests?status=mallory&limit=mallory"),
        api.get("/mallory/digit-0003"),
        api.http.request("MALLORY", "/requests/mallory", headers={**bearer, "X": "mallory"}),
        api.http.get("/requests", headers={"Authorization": "Bearer mallory"}),
        api.call("POST", "/predict", files={"mallory": ("mallory.png", b"mallory", "image/mallory")}),
        api.call("POST", "/predict", files={"images": ("mallory.png", b"mallory", "image/mallory")}),
        api.http.post("/predict", content=b"mallory", headers={**bearer, "Content-Type": "multipart/mallory"}),
    ]


def test_errors_do_not_repeat_what_was_sent(api: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for answer in wrong_calls(api):
        assert 400 <= answer.status_code < 500
        assert answer.headers["content-type"] == "application/problem+json"
        assert not PERSONAL.search(answer.text), answer.text
        assert not any(PERSONAL.search(value) for value in answer.headers.values())
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith(("lmeraser", "uvicorn")))
    assert "POST /requests 422" in ours
    assert "GET /requests/{subject_request_id} 400" in ours
    assert "- - 404" in ours
    assert not PERSONAL.search(ours)


@pytest.mark.parametrize("where", ["here", pytest.param("process", marks=pytest.mark.long)])
def test_a_whole_life_of_a_request_leaves_nothing_personal_in_logs_answers_or_arguments(
    api: Running, network: LocalExecutor, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    caplog.set_level(logging.INFO, "lmeraser")
    if where == "process":
        supervisor = api.service.supervisor
        supervisor._config = supervisor._config.model_copy(update={"batch_seconds": 0.0})
    wanted = erasure("digit-0003", subjects=["w1"])
    assert api.call("POST", "/requests", json=wanted).status_code == 201
    path, told = f"/requests/{wanted['subject_request_id']}", []

    def completed() -> bool:
        told.append(api.get(path).text)
        process = api.service.supervisor.process_id
        if process:
            told.append(Path(f"/proc/{process}/cmdline").read_text())
        return bool(api.get(path).json()["request_status"] == "completed")

    if where == "here":
        assert not completed()
        with Eraser(api.service.workspace.root) as beside:
            beside.session.executors.use(network)
            beside.unlearn()
    until(completed)
    told += [api.get(one).text for one in (path, f"{path}/events", "/requests", "/metrics")]
    certificate = api.get(f"{path}/certificate").json()
    told.append(base64.b64decode(certificate["payload"]).decode())  # not the signature, which is any bytes
    assert not PERSONAL.search("\n".join([*told, caplog.text]))


def test_methods_are_free_text_and_reach_neither_log_nor_metrics(
    api: Running, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "lmeraser")
    for path in ("/requests", "/healthz", f"/requests/{uuid.uuid4()}", "/nowhere", "/ui/login"):
        for number in range(9):
            assert api.http.request(f"MALLORY{number}", path).status_code in (404, 405)
    lines = [record.getMessage() for record in caplog.records if record.name.startswith("lmeraser")]
    metrics = api.get("/metrics", "read").text
    assert "MALLORY" not in "\n".join(lines) + metrics
    series = {
        line.partition("{")[2].partition("}")[0] for line in metrics.splitlines() if "call_seconds_count" in line
    }
    assert len(series) <= 6


def test_a_client_that_goes_away_is_no_error(api: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lmeraser")
    app: Any = api.http.app

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        raise AssertionError(message)

    for path, kind in (("/requests", b"application/json"), ("/predict", b"multipart/form-data; boundary=x")):
        messages = iter([{"type": "http.request", "body": b"--x", "more_body": True}, {"type": "http.disconnect"}])
        headers = [(b"authorization", f"Bearer {api.keys['admin']}".encode()), (b"content-type", kind)]
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "client": ("127.0.0.1", 1), "server": ("testserver", 80), "scheme": "http",
            "http_version": "1.1", "root_path": "",
        }  # fmt: skip
        asyncio.run(app(scope, receive, send))
    assert [record.levelname for record in caplog.records if record.name == "lmeraser.service"] == ["INFO", "INFO"]
    assert "POST /predict 499" in caplog.text
    assert "POST /requests 499" in caplog.text


def test_an_error_that_nobody_expected_tells_its_place_and_not_its_text(
    api: Running, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("patient 17")

    monkeypatch.setattr(type(api.service.metrics), "text", broken)
    values = problem(api.get("/metrics"), 500, "internal")
    assert "patient" not in json.dumps(values)
    assert "patient" not in caplog.text
    assert re.search(r"RuntimeError at test_logs\.py:\d+ < operation\.py:\d+", caplog.text)


def test_lines_name_the_key_and_never_its_text(api: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "lmeraser")
    api.get("/requests", "read")
    text = api.keys["read"]
    assert f"key {text.split('_')[1]}" in caplog.text
    assert text.split("_", 2)[2] not in caplog.text
