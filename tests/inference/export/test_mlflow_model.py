"""MLflow logs, loads and serves an export, with the probabilities of the workspace and without a pickle."""

from __future__ import annotations

import base64
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Template, needs
from inference.export.test_graph import vector_workspace
from lmeraser import Eraser
from lmeraser.errors import InputError, VerificationError
from lmeraser.inference.export.mlflow_model import PyfuncModel, log_model, save_model
from modality_records import records_of
from serving import copied, prepared

pytestmark = [
    needs("mlflow"),
    pytest.mark.filterwarnings("ignore"),  # its own
    pytest.mark.long,  # importing it takes seconds
]


@pytest.fixture(autouse=True)
def _tracking(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    import mlflow

    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "tracking").as_uri())
    yield
    mlflow.set_tracking_uri(None)


def test_vectors_are_logged_and_loaded(tmp_path: Path) -> None:
    import mlflow

    with vector_workspace(tmp_path / "w") as eraser:
        report = eraser.export(tmp_path / "out")
        vectors = np.stack([record["vector"] for record in records_of("vector", range(50, 57))]).astype(np.float32)
        expected = eraser.predict_proba(vectors)
    with mlflow.start_run():
        logged = log_model(tmp_path / "out", name="vectors")
    loaded = mlflow.pyfunc.load_model(logged.model_uri)
    found = loaded.predict(vectors)
    np.testing.assert_array_equal(found.to_numpy(), expected)
    assert list(found.columns) == ["card", "money", "account"]
    assert loaded.metadata.metadata["lmeraser_export"] == report.export
    saved = [path.suffix for path in (tmp_path / "tracking").rglob("*")]
    assert ".pkl" not in saved


def test_images_are_served_as_base64(template: Template, tmp_path: Path) -> None:
    import mlflow
    from mlflow.pyfunc.scoring_server import init
    from starlette.testclient import TestClient

    with Eraser(copied(prepared(template, "instant"), tmp_path)) as eraser:
        eraser.export(tmp_path / "out")
        images = eraser.workspace.records.payloads(eraser.record_ids()[:3])
        expected = eraser.predict_proba(images)
    save_model(tmp_path / "out", tmp_path / "model")
    server = TestClient(init(mlflow.pyfunc.load_model(str(tmp_path / "model"))))
    body = {"dataframe_records": [{"image": base64.b64encode(image).decode()} for image in images]}
    answer = server.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    found = [list(row.values()) for row in answer.json()["predictions"]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_what_is_no_export_or_was_changed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Not an exported model"):
        save_model(tmp_path, tmp_path / "model")
    with vector_workspace(tmp_path / "w") as eraser:
        eraser.export(tmp_path / "out")
    with (tmp_path / "out" / "export.json").open("ab") as file:
        file.write(b" ")
    with pytest.raises(VerificationError):
        save_model(tmp_path / "out", tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_lists_are_taken_as_they_are() -> None:
    class Echo:
        classes = ("a",)

        def predict_proba(self, queries: Any) -> Any:
            return np.array([[float(len(list(queries)))]])

    with warnings.catch_warnings():
        model = PyfuncModel(Echo())  # type: ignore[arg-type]  # a stand-in
        assert model.predict(["x", "y"]).to_numpy().tolist() == [[2.0]]
