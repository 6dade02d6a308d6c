"""Vectors are classified from JSON as by the library, and hostile bodies get a problem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmeraser import Eraser
from modality_records import LENGTH, classes_of, columns_of, records_of
from serving import Running, problem, running

CONFIG: dict[str, Any] = {"data": {"modality": "vector", "length": LENGTH}, "service": {"max_images": 8}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root: Path = tmp_path_factory.mktemp("vectors") / "w"
    with Eraser.create(root, CONFIG, classes=classes_of("vector"), preset="instant") as eraser:
        eraser.add(records_of("vector", range(24)), columns=columns_of("vector"))
        eraser.train()
    with running(root, burst=100_000) as one:
        yield one


def sent(api: Running, body: bytes, kind: str = "application/json") -> Any:
    headers = {"Authorization": f"Bearer {api.keys['predict']}", "Content-Type": kind}
    return api.http.post("/predict", content=body, headers=headers)


def test_answers_are_those_of_the_library(api: Running) -> None:
    vectors = [[float(number) for number in record["vector"]] for record in records_of("vector", range(5))]
    answer = api.call("POST", "/predict", json={"vectors": vectors})
    assert answer.status_code == 200, answer.text
    found = api.service.eraser.predict(vectors)
    assert [one["probability"] for one in answer.json()["answers"]] == [one.probability for one in found]
    assert api.service.upload_budget.held == 0


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"x", b'{"vectors": [[1', b'{"vectors": [[NaN,1,1,1,1,1]]}', b"\xff"]
)
def test_what_is_no_json(api: Running, body: bytes) -> None:
    problem(sent(api, body), 400, "invalid")


@pytest.mark.parametrize(
    "item", [b"[1e400,1,1,1,1,1]", b"[1e39,1,1,1,1,1]", b"[true,1,1,1,1,1]", b"[[1]]", b"7", b'"x"', b"[1]", b"{}"]
)
def test_a_faulty_vector_is_named(api: Running, item: bytes) -> None:
    values = problem(sent(api, b'{"vectors": [[1,2,3,4,5,6], ' + item + b"]}"), 422, "vector")
    assert [fault["where"] for fault in values["faults"]] == ["vectors.1"]


def test_bodies_of_another_kind_and_too_long_ones(api: Running) -> None:
    assert "vectors" in problem(api.predict(b"x"), 415, "payload-type")["detail"]
    assert "vectors" in problem(sent(api, b'{"texts": ["x"]}'), 422, "payload-type")["detail"]
    problem(sent(api, b'{"vectors": [' + b"[],"[:2] + b",[]" * 100_000 + b"]}"), 422, "too-many")
    problem(sent(api, b'{"vectors": [' + b"[1,2,3,4,5,6]," * 100_000 + b"1]}"), 422, "too-many")


def test_the_description_names_what_the_workspace_takes(api: Running) -> None:
    found = api.http.get("/openapi.json").json()
    assert list(found["paths"]["/predict"]["post"]["requestBody"]["content"]) == ["application/json"]
    schema = found["components"]["schemas"]["PredictionRequest"]["properties"]["vectors"]
    assert (schema["maxItems"], schema["items"]["maxItems"]) == (8, LENGTH)
