"""Bodies are read for callers who may send them, cost what they are worth, and hold nobody else up."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.requests import Request

import lmeraser.pipeline.executors.local as local
from conftest import Template
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service import bodies
from lmeraser.service.opendsr_requests import ErasureRequest
from lmeraser.service.problems import MAX_FAULTS
from serving import Running, config_of, copied, erasure, prepared, problem, running


@pytest.fixture(scope="module")
def api(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    network = LocalExecutor(config_of("instant"))
    root = copied(prepared(template, "instant", network), tmp_path_factory.mktemp("api"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "load_backbone", lambda config: network.network)
        with running(root, network, burst=100_000) as one:
            yield one


JSON = {"Content-Type": "application/json"}


def sent(api: Running, path: str, body: bytes, scope: str = "request") -> Any:
    headers = {**JSON, "Authorization": f"Bearer {api.keys[scope]}"}
    return api.http.post(path, content=body, headers=headers)


def many(count: int, **identity: Any) -> bytes:
    return json.dumps({**erasure("x"), "subject_identities": [identity] * count}).encode()


@pytest.mark.parametrize("path", ["/requests", "/plan"])
def test_nothing_is_read_before_the_key_is_right(api: Running, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    def read(_: Request) -> None:
        raise AssertionError("read")

    monkeypatch.setattr(Request, "stream", read)
    for headers in (JSON, {**JSON, "Authorization": "Bearer x"}):
        problem(api.http.post(path, content=b"x" * 100_000, headers=headers), 401, "key")
    problem(sent(api, path, b"x" * 100_000, "predict"), 403, "scope")


@pytest.mark.parametrize("path", ["/requests", "/plan"])
@pytest.mark.parametrize("body", [b'{"subject_identities":[%s]}' % b",".join([b"1"] * 400_000), many(20_000)])
def test_a_list_that_is_too_long_is_refused_before_its_items_are_checked(
    api: Running, monkeypatch: pytest.MonkeyPatch, path: str, body: bytes
) -> None:
    monkeypatch.setattr(ErasureRequest, "model_validate", None)
    refused = sent(api, path, body)
    problem(refused, 422, "too-many")
    assert len(refused.content) < 1000


@pytest.mark.parametrize(
    "change",
    [
        {"subject_identities": [{}] * 1000},
        {"subject_identities": ["x" * 100] * 1000},
        {"status_callback_urls": ["x" * 3000] * 500},
        {"status_callback_urls": [1] * 100_000},
        {"regulation": ["x"] * 100_000},
        {"submitted_time": "9" * 100_000},
        {"subject_request_id": "x" * 100_000},
        {"api_version": "x" * 100_000},
    ],
)
def test_faults_are_few_however_many_are_made(api: Running, change: dict[str, Any]) -> None:
    refused = sent(api, "/requests", json.dumps({**erasure("x"), **change}).encode())
    values = problem(refused, 400, "invalid")
    assert 1 <= len(values["faults"]) <= MAX_FAULTS
    assert len(refused.content) < 4000
    assert (f"the first {MAX_FAULTS} faults" in values["detail"]) == (len(values["faults"]) == MAX_FAULTS)


def test_a_name_that_stands_twice_in_an_object_is_refused(api: Running) -> None:
    """What a proxy in front has checked may be the other one."""
    twice = json.dumps(erasure("x")).encode().replace(b"{", b'{"subject_identities": [], ', 1)
    problem(sent(api, "/requests", twice), 400, "invalid")
    inside = (
        json.dumps(erasure("x")).encode().replace(b'"identity_value"', b'"identity_value": "y", "identity_value"')
    )
    problem(sent(api, "/requests", inside), 400, "invalid")


@pytest.mark.parametrize(
    "body",
    [
        json.dumps({**erasure("x"), "more": float("nan")}).encode(),
        json.dumps({**erasure("x"), "more": float("-inf")}).encode(),
        json.dumps(erasure("x")).encode("utf-16"),
        b"\xef\xbb\xbf" + json.dumps(erasure("x")).encode(),
        json.dumps({**erasure("x"), "more": "\xff"}, ensure_ascii=False).encode("latin-1"),
        b"[" * 20_000,
    ],
)
def test_what_is_no_json_in_utf_8_is_refused(api: Running, body: bytes) -> None:
    """Also where it stands in fields that are ignored: a proxy in front may read it otherwise, or not at all."""
    problem(sent(api, "/requests", body), 400, "invalid")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/requests", {**erasure("x"), "extensions": {"lmeraser": {"with_duplicats": True}}}),
        ("/plan", {**erasure("x"), "extensions": {"lmeraser": {"with_duplicats": True}}}),
        ("/requests/search", {"serach": "x"}),
        ("/records", {"subjekt": "x"}),
        ("/subjects", {"serach": "x"}),
    ],
)
def test_a_mistyped_option_or_filter_is_not_left_out_unseen(api: Running, path: str, body: dict[str, Any]) -> None:
    problem(sent(api, path, json.dumps(body).encode(), "admin"), 400, "invalid")


def test_fields_of_others_are_ignored_where_the_format_is_theirs(api: Running) -> None:
    body = {**erasure("x"), "their_field": 1, "extensions": {"another": {"option": 1}}}
    problem(sent(api, "/requests", json.dumps(body).encode()), 422, "unknown-identity")


def test_every_list_and_string_of_the_schema_has_a_bound(api: Running) -> None:
    schemas = api.http.get("/openapi.json").json()["components"]["schemas"]

    def unbounded(schema: Any, where: str) -> list[str]:
        if isinstance(schema, list):
            return [found for part in schema for found in unbounded(part, where)]
        if not isinstance(schema, dict):
            return []
        if "$ref" in schema:
            name = schema["$ref"].rpartition("/")[2]
            return unbounded(schemas[name], f"{where} {name}")
        fixed = {"maxLength", "enum", "const", "format"}
        bad = (schema.get("type") == "string" and not fixed & schema.keys()) or (
            schema.get("type") == "array" and "maxItems" not in schema
        )
        inner = [
            *schema.get("properties", {}).items(),
            *((key, schema[key]) for key in ("items", "anyOf") if key in schema),
        ]
        return [where] * bad + [found for name, part in inner for found in unbounded(part, f"{where}.{name}")]

    for name in ("ErasureRequest", "PlanRequest"):
        assert unbounded(schemas[name], name) == []


def test_a_large_body_is_checked_in_a_thread_of_its_own_and_costs_more(
    api: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads, costs = list[str](), list[int]()
    parse, take = bodies._parse, api.service.rate_limiter.take

    def parsing(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name.rpartition("_")[0])
        return parse(*arguments)

    def taking(caller: str, tokens: int = 1) -> None:
        costs.append(tokens)
        take(caller, tokens)

    monkeypatch.setattr(bodies, "_parse", parsing)
    monkeypatch.setattr(api.service.rate_limiter, "take", taking)
    identity = erasure("n" * 900)["subject_identities"][0]
    for count in (1, 200):
        problem(sent(api, "/requests", many(count, **identity)), 422, "unknown-identity")
    assert threads[1] == "body-parser" != threads[0]
    assert costs == [1, 1, 200 * 990 // 65536, 200 // 20]
    costs.clear()
    monkeypatch.setattr(ErasureRequest, "model_validate", lambda _: costs.append(-1))
    assert sent(api, "/requests", many(200)).status_code == 500
    assert costs == [1, 200 // 20, -1], "identities are paid for before they are checked, faulty ones as well"


def test_one_caller_cannot_take_all_places_of_a_queue(api: Running) -> None:
    key = next(key.id for key in api.service.workspace.api_keys.all() if key.name == "request")
    thread = api.service.body_parser
    body = many(200, **erasure("n" * 900)["subject_identities"][0])
    with thread._budget.reserve(key, 8):
        problem(sent(api, "/requests", body), 503, "busy")
        problem(sent(api, "/requests", body, "admin"), 422, "unknown-identity")
        assert api.file("digit-0003").status_code == 201, "small bodies do not queue"


def test_a_body_that_does_not_arrive_is_given_up(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: Request) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError("arrived")

    monkeypatch.setattr(Request, "body", nothing)
    monkeypatch.setattr(bodies, "_SECONDS", 0.01)
    problem(sent(api, "/requests", b"{}"), 408, "slow")
