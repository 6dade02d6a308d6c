"""Predictions over HTTP are those of the library, and hostile forms get a problem."""

from __future__ import annotations

import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import lmeraser.pipeline.executors.local as local
from conftest import png
from lmeraser import Eraser
from lmeraser.pipeline.executors.local import LocalExecutor
from serving import PATIENCE, Running, config_of, fixtures, problem, running

network, trained, root, api = fixtures("prompts", max_queries=8)


def images(api: Running, count: int) -> list[bytes]:
    records = api.service.workspace.records
    return records.payloads(api.service.eraser.record_ids()[:count])


def of_the_library(api: Running, some: list[bytes]) -> list[dict[str, Any]]:
    with Eraser(api.service.workspace.root) as eraser:
        found = eraser.predict(some)
    return [{**one.__dict__, "clusters": list(one.clusters)} for one in found]


def test_answers_are_those_of_the_library_to_the_last_bit(api: Running) -> None:
    some = images(api, 7)
    answer = api.predict(*some, scope="admin")
    assert answer.status_code == 200
    assert answer.json()["answers"] == of_the_library(api, some)
    model = api.get("/model", "predict").json()
    assert (answer.json()["generation"], answer.json()["model_digest"]) == (0, model["model_digest"])
    api.file("digit-0003")
    assert api.predict(*some, scope="admin").json()["answers"] == of_the_library(api, some)


def test_a_key_for_predictions_is_not_told_what_is_quarantined(api: Running) -> None:
    (image,) = images(api, 1)
    told = [api.predict(image).json()["answers"][0].keys(), api.get("/model", "predict").json().keys()]
    api.file("digit-0003")
    assert [api.predict(image).json()["answers"][0].keys(), api.get("/model", "predict").json().keys()] == told
    assert told == [
        {"label", "class_name", "probability"},
        {"generation", "model_digest", "fingerprints", "classes"},
    ]
    assert api.get("/model", "read").json()["quarantined"]
    assert {"clusters", "rerouted"} < api.predict(image, scope="admin").json()["answers"][0].keys()


def test_many_callers_share_passes_and_nobody_gets_anothers_answer(api: Running) -> None:
    some = images(api, 24)
    alone = [api.predict(one).json()["answers"] for one in some]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda one: api.predict(one).json()["answers"], some)) == alone
    limit = time.monotonic() + PATIENCE  # the last pass says so after its answers
    while api.service.prediction_queue.waiting:
        assert time.monotonic() < limit
        time.sleep(0.01)


def test_a_faulty_image_is_named_and_does_not_disturb_others(api: Running) -> None:
    (good,) = images(api, 1)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda one: api.predict(good, one), [good, good[:-5], b"text", good]))
    assert [answer.status_code for answer in answers] == [200, 422, 415, 200]
    (fault,) = problem(answers[1], 422, "image")["faults"]
    assert fault["where"] == "images.1"


def test_forms_that_are_none(api: Running) -> None:
    (good,) = images(api, 1)
    problem(api.call("POST", "/predict", content=good), 415, "form")
    problem(api.call("POST", "/predict", json={"images": "x"}), 415, "form")
    problem(api.call("POST", "/predict", files={"pictures": good}), 400, "form")
    problem(api.call("POST", "/predict", files={"images": good}, data={"more": "x"}), 400, "form")
    problem(api.predict(*[good] * 9), 400, "form")
    key = {"Authorization": f"Bearer {api.keys['predict']}"}
    for kind in ("multipart/form-data", "multipart/form-data; boundary=x", "multipart/form-data; boundary="):
        for body in (b"", b"--x", b"--x\r\nContent-Disposition: form-data; name=images\r\n\r\n", b"\0" * 100):
            headers = {**key, "Content-Type": kind}
            problem(api.http.post("/predict", content=body, headers=headers), 400, "form")


def test_too_many_bytes_and_too_many_pixels(
    trained: Path, tmp_path: Path, network: LocalExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "load_backbone", lambda config: network.network)
    root = Path(shutil.copytree(trained, tmp_path / "w"))
    limits = {"max_upload_mb": 1, "max_megapixels": 0.01, "max_waiting_megapixels": 0.001}
    with running(root, network, **limits) as api:
        problem(api.predict(b"x" * (1 << 20)), 413, "too-large")
        problem(api.predict(png([[0] * 101] * 100)), 413, "image-size")
        assert api.predict(png([[0] * 60] * 60)).status_code == 200, "one alone may be larger than what may wait"
        assert api.service.image_decoder.budget.held == 0
        with api.service.image_decoder.budget.reserve("another", 39_000):
            busy = api.predict(png([[0] * 60] * 60))
        assert problem(busy, 503, "busy")
        assert busy.headers["Retry-After"] == "1"


def test_nothing_of_an_upload_reaches_the_disk(api: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    import tempfile

    def on_disk(*_: object) -> None:
        raise AssertionError("an upload on the disk")

    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", on_disk)
    path = api.service.workspace.root.parent / "large.png"
    Image.new("RGB", (900, 800)).save(path, compress_level=0)
    assert path.stat().st_size > 2 << 20
    assert api.predict(path.read_bytes()).status_code == 200


def test_without_a_model_predictions_are_refused(tmp_path: Path, network: LocalExecutor) -> None:
    root = tmp_path / "w"
    Eraser.create(root, config_of("prompts")).close()
    with running(root, network) as api:
        problem(api.predict(png([[0] * 8] * 8)), 503, "no-model")
        problem(api.get("/model"), 503, "no-model")
        problem(api.http.get("/readyz"), 503, "not-ready")
        assert api.http.get("/healthz").status_code == 200
