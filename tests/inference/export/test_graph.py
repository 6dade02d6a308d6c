"""The graph resizes as Pillow does to the last pixel, and its probabilities are those of the workspace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import DIGIT_COLUMNS, Template, digits, examples
from lmeraser import Eraser
from lmeraser.core.sufficient_statistics import SCALE
from lmeraser.core.tensors import from_bytes
from lmeraser.data.canvases import to_canvas
from lmeraser.errors import InputError
from lmeraser.inference.export import graph
from lmeraser.inference.export.graph import INPUTS, Graph, check_one_head, heads_of, resize
from lmeraser.models.backbones.frozen import plain_kernels
from lmeraser.models.modalities import load_backbone
from modality_records import LENGTH, classes_of, columns_of, records_of
from serving import copied, prepared
from ties import possible_probabilities

TOLERANCE = 1e-5


@given(
    height=st.integers(2, 120),
    width=st.integers(2, 120),
    side=st.integers(4, 60),
    resample=st.sampled_from(["bilinear", "bicubic", "lanczos"]),
    crop=st.booleans(),
    seed=st.integers(0, 1000),
)
@examples(fast=60, explore=2000)
def test_images_are_resized_as_pillow_does(
    height: int, width: int, side: int, resample: Any, crop: bool, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    expected = to_canvas(Image.fromarray(image), side, resample, "crop" if crop else "squeeze")
    pixels = torch.from_numpy(image).permute(2, 0, 1)[None].double()
    found = resize(pixels, side, resample, crop=crop)[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(found, expected)


def graph_of(eraser: Eraser) -> Graph:
    model = eraser.workspace.generations.require()
    check_one_head(model)
    config = model.config()
    with plain_kernels():
        backbone = load_backbone(config)
    assert backbone.digest == model.backbone
    heads = heads_of(model, lambda digest: from_bytes(eraser.workspace.store.read(digest)))
    return Graph(INPUTS[config.data.modality](backbone, config), heads, config).eval()


def pictures(shape: tuple[int, ...]) -> Any:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def test_images_have_the_probabilities_of_the_workspace(template: Template, tmp_path: Path) -> None:
    with Eraser(copied(prepared(template, "instant"), tmp_path)) as eraser:
        graph = graph_of(eraser)
        for shape in ((5, 40, 50, 3), (1, 90, 61, 3)):
            images = pictures(shape)
            with torch.no_grad():
                found = graph(torch.from_numpy(images)).numpy()
            np.testing.assert_allclose(found, eraser.predict_proba(list(images)), rtol=0, atol=TOLERANCE)


@pytest.mark.long
@pytest.mark.parametrize(
    "chosen",
    [
        {"embedding": {"views": ["clean", "mirror", "whole", "near", "far", "frame"], "layers": ["auto"]}},
        {"embedding": {"views": ["clean"], "random_features": 300}, "backbone": {"fit": "squeeze"}},
        {"global_head": {"weight": 0.5}, "constituent": {"kind": "head"}, "tuning": {"epochs": 2}},
        {"backbone": {"resample": "lanczos", "resize": 40}},
    ],
    ids=["layers", "random features, squeezed", "two heads", "lanczos"],
)
def test_every_setting_has_the_probabilities_of_the_workspace(tmp_path: Path, chosen: dict[str, Any]) -> None:
    base: dict[str, Any] = {"partition": {"method": "single"}, "compute": {"workers": 2}}
    backbone = {"image_size": 32, "micro_batch": 4, **chosen.get("backbone", {})}
    settings = {**base, **chosen, "backbone": backbone}
    with Eraser.create(tmp_path / "w", settings, preset="instant") as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
        images = pictures((6, 70, 41, 3))
        expected = eraser.predict_proba(list(images))
        whole = graph_of(eraser)
    with torch.no_grad():
        found = whole(torch.from_numpy(images)).numpy()
        given = whole.inputs(torch.from_numpy(images))
        whole.register_module("inputs", torch.nn.Identity())

        def probabilities(vectors: torch.Tensor) -> Any:
            return whole(vectors).numpy()[0]

        for one, wanted, vectors in zip(found, expected, given, strict=True):
            possible = possible_probabilities(vectors, SCALE, (graph, "unit_rms"), probabilities)
            np.testing.assert_allclose(next(possible), one, rtol=0, atol=TOLERANCE)
            if not np.allclose(one, wanted, rtol=0, atol=TOLERANCE):
                assert any(np.allclose(each, wanted, rtol=0, atol=TOLERANCE) for each in possible), (one, wanted)


def test_a_model_with_several_heads_is_refused(template: Template, tmp_path: Path) -> None:
    with Eraser(copied(prepared(template, "prompts"), tmp_path)) as eraser:
        with pytest.raises(InputError, match="Only a model with one head"):
            eraser.export(tmp_path / "out", format="onnx")
        assert not (tmp_path / "out").exists()
        assert eraser.exports() == []


def vector_workspace(root: Path) -> Eraser:
    """A trained workspace of vectors with a global head and a random layer."""
    chosen: dict[str, Any] = {
        "data": {"modality": "vector", "length": LENGTH},
        "embedding": {"random_features": 32},
        "compute": {"workers": 1},
    }
    eraser = Eraser.create(root, chosen, classes=classes_of("vector"), preset="instant")
    eraser.add(records_of("vector", range(24)), columns=columns_of("vector"))
    eraser.train()
    return eraser


def test_vectors_have_the_probabilities_of_the_workspace(tmp_path: Path) -> None:
    with vector_workspace(tmp_path / "w") as eraser:
        vectors = np.stack([record["vector"] for record in records_of("vector", range(50, 57))]).astype(np.float32)
        with torch.no_grad():
            found = graph_of(eraser)(torch.from_numpy(vectors)).numpy()
        np.testing.assert_allclose(found, eraser.predict_proba(vectors), rtol=0, atol=TOLERANCE)
