"""onnxruntime gives the probabilities of the workspace, for any number of queries."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lmeraser
from conftest import DIGIT_COLUMNS, Run, Template, digits, needs
from inference.export.test_graph import TOLERANCE, pictures, vector_workspace
from lmeraser import Eraser
from lmeraser.errors import InputError
from lmeraser.inference.export.manifest import read_export
from modality_records import classes_of, columns_of, records_of
from serving import copied, prepared

pytestmark = needs("onnxruntime", "onnxscript")


def run_graph(folder: Path, **inputs: Any) -> Any:
    import onnxruntime

    session = onnxruntime.InferenceSession(folder / "model.onnx")
    (probabilities,) = session.run(["probabilities"], inputs)
    return probabilities


def test_an_export_as_one_graph_has_no_other_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: dict[str, Any] = {}

    def instead(*_: Any, facts: dict[str, str]) -> bytes:  # tracing a graph takes seconds
        told.update(facts)
        return b"graph"

    monkeypatch.setattr("lmeraser.inference.export.onnx_file.onnx_file", instead)
    out = tmp_path / "out"
    with vector_workspace(tmp_path / "w") as eraser:
        report = eraser.export(out, format="onnx", license="mit")
        assert report.backbone_needed is None
        assert eraser.exports()[0].copy.format == "onnx"
    assert told["export"] == report.export
    check_files(out)


def check_files(out: Path) -> None:
    assert read_export(out).content == "onnx"
    assert {path.name for path in out.iterdir()} == {
        *("model.onnx", "export.json", "export.sig", "signing.pub", "README.md")
    }
    assert "onnxruntime" in (out / "README.md").read_text()
    with pytest.raises(InputError, match="for other libraries"):
        lmeraser.load_predictor(out)


@pytest.mark.long
def test_vectors_in_onnxruntime_have_the_probabilities_of_the_workspace(tmp_path: Path) -> None:
    import onnxruntime

    out = tmp_path / "out"
    with vector_workspace(tmp_path / "w") as eraser:
        report = eraser.export(out, format="onnx", license="mit")
        vectors = np.stack([record["vector"] for record in records_of("vector", range(50, 57))]).astype(np.float32)
        expected = eraser.predict_proba(vectors)
    for count in (1, 7):
        found = run_graph(out, vectors=vectors[:count])
        np.testing.assert_allclose(found, expected[:count], rtol=0, atol=TOLERANCE)
    session = onnxruntime.InferenceSession(out / "model.onnx")
    (asked,) = session.get_inputs()
    assert (asked.name, asked.shape[0]) == ("vectors", "batch")
    told = session.get_modelmeta().custom_metadata_map
    assert json.loads(told["classes"]) == list(classes_of("vector"))
    assert told["export"] == report.export
    check_files(out)


@pytest.mark.long
def test_images_in_onnxruntime_have_the_probabilities_of_the_workspace(
    template: Template, tmp_path: Path, run: Run
) -> None:
    root = copied(prepared(template, "instant"), tmp_path)
    assert run("-w", root, "export", tmp_path / "out", "--format", "onnx").code == 0
    with Eraser(root) as eraser:
        for shape in ((1, 40, 50, 3), (5, 33, 80, 3)):
            images = pictures(shape)
            found = run_graph(tmp_path / "out", images=images)
            np.testing.assert_allclose(found, eraser.predict_proba(list(images)), rtol=0, atol=TOLERANCE)


@pytest.mark.long
@pytest.mark.parametrize("layers", ["final", "auto"])
def test_images_of_a_transformer_in_onnxruntime_have_the_probabilities_of_the_workspace(
    tmp_path: Path, layers: str
) -> None:
    from make_workspaces import backbone as save_backbone

    save_backbone(tmp_path / "backbone")
    chosen: dict[str, Any] = {
        "backbone": {"name": str(tmp_path / "backbone"), "image_size": 32, "micro_batch": 4},
        "embedding": {"layers": [layers]},
    }
    with Eraser.create(tmp_path / "w", chosen, preset="instant") as eraser:
        eraser.add(digits(range(24)), columns=DIGIT_COLUMNS)
        eraser.train()
        eraser.export(tmp_path / "out", format="onnx")
        images = pictures((5, 33, 80, 3))
        found = run_graph(tmp_path / "out", images=images)
        np.testing.assert_allclose(found, eraser.predict_proba(list(images)), rtol=0, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "layers"), [("bert", "final"), ("roberta", "final"), ("mpnet", "final"), ("bert", "auto")]
)
def test_texts_in_onnxruntime_have_the_probabilities_of_the_workspace(
    tmp_path: Path, family: str, layers: str
) -> None:
    pytest.importorskip("tokenizers")
    from tiny_texts import save

    chosen: dict[str, Any] = {
        "data": {"modality": "text"},
        "backbone": {"name": str(save(family, tmp_path / family)), "micro_batch": 4},
        "text": {"max_tokens": 64},
        "embedding": {"layers": [layers]},
        "compute": {"workers": 1},
    }
    with Eraser.create(tmp_path / "w", chosen, classes=classes_of("text"), preset="instant") as eraser:
        eraser.add(records_of("text", range(12)), columns=columns_of("text"))
        eraser.train()
        eraser.export(tmp_path / "out", format="onnx")
        texts = ["lost card", "please refund it twice", "login", "close"]
        encoder = eraser.predictor().encoder
        windows = [encoder.load(text).windows for text in texts]
        assert {len(each) for each in windows} == {1}
        longest = max(len(window) for (window,) in windows)
        ids = np.zeros((len(texts), longest), dtype=np.int64)
        mask = np.zeros_like(ids)
        for row, (window,) in enumerate(windows):
            ids[row, : len(window)] = window
            mask[row, : len(window)] = 1
        found = run_graph(tmp_path / "out", input_ids=ids, attention_mask=mask)
        np.testing.assert_allclose(found, eraser.predict_proba(texts), rtol=0, atol=1e-4)
