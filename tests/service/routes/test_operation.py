"""Health, readiness, metrics and plans over HTTP."""

from __future__ import annotations

import json

import pytest

from lmeraser.service.model_holder import ModelHolder
from lmeraser.service.routes import operation
from serving import PATIENCE, Running, erasure, fixtures, problem, until

network, trained, root, api = fixtures("prompts")


def test_alive_and_ready(api: Running) -> None:
    assert api.http.get("/healthz").json() == {"status": "ok"}
    assert api.http.get("/readyz").json() == {"status": "ok"}


def test_whoever_asks_again_and_again_has_nothing_read_anew(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    checked: list[int] = []
    monkeypatch.setattr(ModelHolder, "check", lambda _: checked.append(1))
    monkeypatch.setattr(operation, "_READY_SECONDS", PATIENCE)
    assert {api.http.get("/readyz").status_code for _ in range(3)} == {200}
    assert len(checked) == 1
    api.service.ready_until = 0.0
    api.http.get("/readyz")
    assert len(checked) == 2


def test_ready_is_not_said_when_nothing_is_left_to_predict_with(api: Running) -> None:
    everybody = erasure(subjects=[f"w{number}" for number in range(5)])
    assert api.call("POST", "/requests", json=everybody).status_code == 201
    problem(api.http.get("/readyz"), 503, "not-ready")
    assert api.http.get("/healthz").status_code == 200
    api.call("DELETE", f"/requests/{everybody['subject_request_id']}")
    assert api.http.get("/readyz").status_code == 200


def test_metrics_tell_of_requests_images_and_calls(api: Running) -> None:
    api.file("digit-0003")
    api.predict(*api.service.workspace.records.payloads(["digit-0001", "digit-0002"]))
    until(lambda: not api.service.prediction_queue.waiting)  # the answer comes before they are taken off
    text = api.get("/metrics", "read").text
    for line in (
        'lmeraser_requests{state="pending"} 1.0',
        "lmeraser_predicted_queries_total 2.0",
        "lmeraser_predicted_images_total 2.0",
        "lmeraser_rerouted_queries_total ",
        'lmeraser_call_seconds_count{method="POST",route="/requests",status="201"} 1.0',
        "lmeraser_generation 0.0",
        "lmeraser_quarantined_clusters 1.0",
        "lmeraser_waiting_queries 0.0",
        "lmeraser_waiting_images 0.0",
        "lmeraser_deriving 0.0",
    ):
        assert line in text


def test_a_plan_is_that_of_the_library(api: Running) -> None:
    names = erasure("digit-0003", "digit-0004", subjects=["w1"])["subject_identities"]
    planned = api.call("POST", "/plan", "request", json={"subject_identities": names})
    plan = api.service.eraser.plan(ids=["digit-0003", "digit-0004"], subjects=["w1"], near_duplicates=True)
    found, expected = planned.json(), json.loads(json.dumps(plan.to_json()))
    assert found.pop("due")[:10] <= expected.pop("due")[:10], "from one moment to the next"
    assert found == expected
    assert api.service.workspace.requests.all() == []


def test_plans_that_cannot_be_made(api: Running) -> None:
    names = erasure("nobody")["subject_identities"]
    problem(api.call("POST", "/plan", json={"subject_identities": names}), 422, "unknown-identity")
    problem(api.call("POST", "/plan", json={"subject_identities": []}), 400, "invalid")
    problem(api.call("POST", "/plan", json={"subject_identities": names * 1001}), 422, "too-many")
