"""Vectors and texts are classified from JSON as by the library, and hostile bodies get a problem."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.data.modalities import payload_format
from lmeraser.service.payload_reader import PayloadReader
from lmeraser.service.problems import Problem
from modality_records import LENGTH, classes_of, columns_of, records_of
from serving import Running, problem, running

CONFIG: dict[str, Any] = {"data": {"modality": "vector", "length": LENGTH}, "service": {"max_queries": 8}}


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


# --- texts -------------------------------------------------------------------------------------------------


NO_TEXTS = ['""', '" \\n\\t"', '"secret\\u0000secret"', '"secret\\ud800"', "7", "null", '["secret"]']


def test_what_is_no_text_is_named_by_its_place() -> None:
    reader = PayloadReader(
        None,  # type: ignore[arg-type]  # no text gets as far as the model
        payload_format(parse({"data": {"modality": "text"}}, base="instant")),
        most=8,
        threads=1,
    )
    try:
        for item in [*NO_TEXTS, f'"{"x" * ((1 << 20) + 1)}"']:
            with pytest.raises(Problem) as refused:
                reader._payloads(f'{{"texts": ["card", {item}]}}'.encode())
            assert (refused.value.status, refused.value.faults[0].where) == (422, "texts.1"), item[:30]
            assert "secret" not in refused.value.detail
        assert reader._payloads(b'{"texts": ["card", "caf\\u0065\\u0301"]}') == [b"card", "caf\u00e9".encode()]
    finally:
        reader.stop()


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A workspace of texts, with a tiny network."""
    from tiny_texts import save

    folder: Path = tmp_path_factory.mktemp("texts")
    config = {
        "data": {"modality": "text"},
        "text": {"max_tokens": 96},
        "backbone": {"name": str(save("bert", folder / "network")), "micro_batch": 4},
        "embedding": {"views": ["whole"]},
    }
    with Eraser.create(folder / "w", config, classes=classes_of("text"), preset="instant") as eraser:
        eraser.add(records_of("text", range(12)), columns=columns_of("text"))
        eraser.train()
    with running(folder / "w", burst=100_000) as one:
        yield one


@pytest.mark.long
def test_texts_are_answered_as_by_the_library(texts: Running) -> None:
    wanted = ["lost card", "\u05e9\u05dc\u05d5\u05dd \U0001f44b", " refund \r\n charged "]
    answer = texts.call("POST", "/predict", json={"texts": wanted})
    assert answer.status_code == 200, answer.text
    found = texts.service.eraser.predict(wanted)
    assert [one["probability"] for one in answer.json()["answers"]] == [one.probability for one in found]
    assert texts.service.upload_budget.held == 0


@pytest.mark.long
def test_texts_that_are_none_are_named_and_not_repeated(texts: Running) -> None:
    for item in NO_TEXTS:
        answer = sent(texts, f'{{"texts": ["card", {item}]}}'.encode())
        values = problem(answer, 422, "text")
        assert [fault["where"] for fault in values["faults"]] == ["texts.1"], item
        assert "secret" not in answer.text
    problem(sent(texts, b'{"texts": ["\xff"]}'), 400, "invalid")
    problem(sent(texts, b'{"texts": []}'), 400, "invalid")
    assert "texts" in problem(sent(texts, b'{"vectors": [[1]]}'), 422, "payload-type")["detail"]


@pytest.mark.long
def test_a_text_of_10_mb_is_refused_and_a_longer_body_is_not_received(texts: Running) -> None:
    ten = b'{"texts": ["' + b"card " * (2 << 20) + b'"]}'
    values = problem(sent(texts, ten), 422, "text")
    assert values["faults"][0]["where"] == "texts.0"
    problem(sent(texts, b"x" * (33 << 20)), 413, "too-large")
    assert texts.service.upload_budget.held == 0


@pytest.mark.long
def test_a_busy_service_says_so(texts: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    held = texts.service.upload_budget.reserve("others", texts.service.upload_budget.share)
    more = texts.service.upload_budget.reserve("more", texts.service.upload_budget.share)
    try:
        busy = texts.call("POST", "/predict", json={"texts": ["card"]})
        problem(busy, 503, "busy")
        assert busy.headers["Retry-After"]
    finally:
        held.release()
        more.release()
    monkeypatch.setattr(texts.service.payload_reader, "_seconds", 0.0)
    slow = problem(texts.call("POST", "/predict", json={"texts": ["card"]}), 503, "busy")
    assert "texts" in slow["detail"]
    monkeypatch.undo()
    assert texts.call("POST", "/predict", json={"texts": ["card"]}).status_code == 200
