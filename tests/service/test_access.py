"""Every route lets the scopes pass that it names, and nobody else; the same work is done for everybody."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi.routing import APIRoute

import lmeraser.pipeline.executors.local as local
from conftest import Template
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service.app import ROUTERS
from lmeraser.service.routes import prediction
from lmeraser.workspace.api_keys import SCOPES
from serving import Running, config_of, copied, erasure, prepared, problem, running

NOBODY = str(uuid.uuid4())
OPEN = {("GET", "/discovery"), ("GET", "/signing.pub"), ("GET", "/healthz"), ("GET", "/readyz")}
GUARDED: dict[tuple[str, str], tuple[set[str], dict[str, Any]]] = {
    ("POST", "/requests"): ({"request", "submit"}, {"json": erasure("nobody")}),
    ("GET", "/requests"): ({"read"}, {}),
    ("POST", "/requests/search"): ({"read"}, {"json": {}}),
    ("GET", "/requests/{subject_request_id}"): ({"request", "read"}, {}),
    ("DELETE", "/requests/{subject_request_id}"): ({"request"}, {}),
    ("GET", "/requests/{subject_request_id}/certificate"): ({"request", "read"}, {}),
    ("GET", "/requests/{subject_request_id}/events"): ({"request", "read"}, {}),
    ("POST", "/requests/{subject_request_id}/extension"): ({"request"}, {"params": {"reason": "number"}}),
    ("POST", "/requests/{subject_request_id}/start"): ({"request"}, {}),
    ("POST", "/requests/{subject_request_id}/receipts"): (
        {"request"},
        {"json": {"receipts": [{"system": "warehouse", "digest": "sha256:" + "0" * 64}]}},
    ),
    ("POST", "/find"): (
        {"find"},
        {"json": {"identity_type": "lmeraser_record_id", "identity_value": "nobody"}},
    ),
    ("POST", "/subjects"): ({"find"}, {"json": {}}),
    ("POST", "/records"): ({"find"}, {"json": {}}),
    ("POST", "/records/payload"): ({"records"}, {"json": {"id": "nobody"}}),
    ("GET", "/exports"): ({"read"}, {}),
    ("POST", "/exports/{export_id}/confirm"): ({"confirm"}, {}),
    ("POST", "/plan"): ({"request"}, {"json": {"subject_identities": erasure("nobody")["subject_identities"]}}),
    ("POST", "/predict"): ({"predict"}, {"content": b""}),
    ("GET", "/model"): ({"predict", "read"}, {}),
    ("GET", "/metrics"): ({"read"}, {}),
}


@pytest.fixture(scope="module")
def network() -> LocalExecutor:
    return LocalExecutor(config_of("instant"))


@pytest.fixture(scope="module")
def trained(template: Template, network: LocalExecutor) -> Path:
    return prepared(template, "instant", network)


@pytest.fixture(scope="module")
def api(trained: Path, tmp_path_factory: pytest.TempPathFactory, network: LocalExecutor) -> Iterator[Running]:
    root = copied(trained, tmp_path_factory.mktemp("api"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "load_backbone", lambda config: network.network)
        with running(root, network, burst=100_000) as one:
            yield one


def test_every_route_is_either_open_or_guarded() -> None:
    routes = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]
    found = {(method, route.path) for route in routes for method in route.methods or ()}
    assert found == OPEN | GUARDED.keys()


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_scopes(api: Running, route: tuple[str, str], scope: str) -> None:
    (method, path), (allowed, more) = route, GUARDED[route]
    answer = api.call(method, path.format(subject_request_id=NOBODY, export_id=NOBODY), scope, **more)
    if scope in allowed or scope == "admin":
        assert answer.status_code in (200, 201, 404, 415, 422)
    else:
        assert problem(answer, 403, "scope")["detail"].count(next(iter(sorted(allowed))))


@pytest.mark.parametrize("route", GUARDED, ids=" ".join)
def test_without_a_valid_key_nothing_is_answered(api: Running, route: tuple[str, str]) -> None:
    (method, path), (_, more) = route, GUARDED[route]
    key = api.keys["admin"]
    for header in (None, "", key, f"Basic {key}", "Bearer", "Bearer ", f"Bearer {key}x", f"Bearer {key} {key}"):
        headers = {} if header is None else {"Authorization": header}
        answer = api.http.request(
            method, path.format(subject_request_id=NOBODY, export_id=NOBODY), headers=headers, **more
        )
        problem(answer, 401, "key")
        assert answer.headers["WWW-Authenticate"] == "Bearer"


def test_of_two_keys_in_one_call_none_counts(api: Running) -> None:
    """A proxy in front may have checked the other one."""
    reader, predictor = (f"Bearer {api.keys[scope]}" for scope in ("read", "predict"))
    for two in ((reader, predictor), (predictor, reader), (reader, reader)):
        problem(api.http.get("/requests", headers=[("Authorization", one) for one in two]), 401, "key")


@pytest.mark.parametrize("route", sorted(OPEN), ids=" ".join)
def test_open_routes_need_no_key(api: Running, route: tuple[str, str]) -> None:
    assert api.http.request(*route).status_code == 200


def test_a_revoked_key_ends_at_once(api: Running) -> None:
    keys, now = api.service.workspace.api_keys, api.service.workspace.clock()
    key, text = keys.create("short-lived", ["read"], now=now)
    headers = {"Authorization": f"Bearer {text}"}
    assert api.http.get("/requests", headers=headers).status_code == 200
    keys.revoke(key.id, now=now)
    assert api.http.get("/requests", headers=headers).status_code == 401


def test_each_key_has_its_own_rate_and_wrong_ones_share_that_of_their_address(
    trained: Path, tmp_path: Path, network: LocalExecutor
) -> None:
    root = copied(trained, tmp_path)
    with running(root, network, burst=3, requests_per_second=0.01) as api:
        answers = [api.get("/requests", "read") for _ in range(5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
        assert int(answers[-1].headers["Retry-After"]) > 50
        assert api.get("/requests", "admin").status_code == 200
        wrong = [api.http.get("/requests", headers={"Authorization": f"Bearer {n}"}).status_code for n in range(5)]
        assert wrong == [401, 401, 401, 429, 429]
        assert api.get("/requests", "admin").status_code == 200


def test_a_form_is_not_read_before_the_key_is_right(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prediction, "MultiPartParser", None)
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    problem(api.http.post("/predict", content=b"x" * 3000, headers=kind), 401, "key")
