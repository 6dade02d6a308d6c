"""The description of the service holds: calls made from it never break it, and answers are as it says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import APIRouter, Depends
from hypothesis import HealthCheck, given, settings
from hypothesis.errors import Unsatisfiable
from starlette.testclient import TestClient

import lmeraser.pipeline.executors.local as local
from conftest import Template, examples
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.service.access import require_scope
from lmeraser.service.app import make_app
from serving import Running, config_of, copied, prepared, problem, running


@pytest.fixture(scope="module")
def api(template: Template, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    network = LocalExecutor(config_of("instant"))
    root = copied(prepared(template, "instant", network), tmp_path_factory.mktemp("api"), burst=100_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local, "load_backbone", lambda config: network.network)
        with running(root, network) as one:
            yield one


@pytest.mark.parametrize("mode", ["positive", "negative"])
def test_calls_made_from_the_description_are_answered_as_it_says(api: Running, mode: str) -> None:
    import schemathesis
    from schemathesis import GenerationMode
    from schemathesis.checks import content_type_conformance, not_a_server_error, response_schema_conformance
    from schemathesis.core.result import Ok
    from schemathesis.specs.openapi.checks import status_code_conformance

    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    described = schemathesis.openapi.from_asgi("/openapi.json", api.http.app)
    headers = {"Authorization": f"Bearer {api.keys['admin']}"}
    operations = [found.ok() for found in described.get_all_operations() if isinstance(found, Ok)]
    assert len(operations) == 24
    for operation in operations:

        @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
        @settings(examples(fast=4, explore=30), suppress_health_check=list(HealthCheck))
        def answered(case: schemathesis.Case[Any]) -> None:
            case.call_and_validate(checks=checks, headers=headers)

        with contextlib.suppress(Unsatisfiable):  # nothing can be wrong in a call without arguments
            answered()


def test_everything_is_described_with_an_example_where_something_is_sent(api: Running) -> None:
    found = api.http.get("/openapi.json").json()
    for path, operations in found["paths"].items():
        for method, operation in operations.items():
            where = f"{method} {path}"
            assert operation["description"], where
            assert "default" in operation["responses"] or path in ("/healthz", "/signing.pub"), where
            if "requestBody" in operation and "multipart/form-data" not in operation["requestBody"]["content"]:
                named = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[
                    2
                ]
                assert found["components"]["schemas"][named]["examples"], where
            if "security" not in operation:
                assert path in ("/discovery", "/signing.pub", "/healthz", "/readyz"), where


def test_an_example_is_accepted_as_far_as_its_names_are_known(api: Running) -> None:
    components = api.http.get("/openapi.json").json()["components"]["schemas"]
    example = {**components["ErasureRequest"]["examples"][0], "status_callback_urls": []}
    answer = api.call("POST", "/requests", json=example)
    assert answer.json()["type"] == "urn:lmeraser:problem:unknown-identity"


def test_nobody_is_sent_elsewhere_with_a_key(api: Running) -> None:
    """A redirection behind a proxy would name plain HTTP, and callers follow it with key and body."""
    answer = api.http.post("/requests/", json={}, headers={"Host": "elsewhere.example"})
    problem(answer, 404, "not-found")
    assert "location" not in answer.headers


def test_more_routes_use_the_same_access_and_problems(api: Running) -> None:
    router = APIRouter()

    @router.get("/more", dependencies=[Depends(require_scope("read"))])
    def more() -> dict[str, int]:
        return {"more": 1}

    client = TestClient(make_app(api.service, [router]))
    assert client.get("/more").json()["type"] == "urn:lmeraser:problem:key"
    headers = {"Authorization": f"Bearer {api.keys['read']}"}
    assert client.get("/more", headers=headers).json() == {"more": 1}


def test_the_package_is_imported_without_the_extra(tmp_path: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys\n"
        "names = 'fastapi', 'starlette', 'uvicorn', 'httpx2', 'itsdangerous', 'prometheus_client'\n"
        "sys.modules |= dict.fromkeys(names)\n"
        "import lmeraser.eraser, lmeraser.cli.main\n"
        "sys.argv = ['lmeraser', '-w', sys.argv[1], 'serve']\n"
        "lmeraser.cli.main.main()"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'lmeraser[service]'" in done.stderr
