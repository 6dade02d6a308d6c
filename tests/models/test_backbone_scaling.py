"""A new workspace scales images as its backbone's publisher does; those of version 0.1 go on as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from conftest import Run, png, tiny_config
from lmeraser.config.schema import Config, parse, read, to_toml
from lmeraser.data.images import CanvasSize, reduce_image, to_canvas
from lmeraser.models.backbone_scaling import adopt_scaling
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.modalities.image import canvas_sizes, view_input
from small import SIZE, Small, config, members

NOISE = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
CROPPED = {"do_resize": True, "size": {"shortest_edge": 48}, "do_center_crop": True, "crop_size": {"height": 32}}


def adopted(folder: Path, values: Any, file: str = "preprocessor_config.json", **backbone: Any) -> tuple[Any, Any]:
    (folder / file).write_text(json.dumps(values))
    settings = parse({"backbone": {"name": str(folder), "image_size": 32, **backbone}})
    found = adopt_scaling(settings).backbone
    return found.resample, found.resize


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"resample": 3, **CROPPED}, ("bicubic", 48)),
        ({"resample": 2, **CROPPED}, ("bilinear", 48)),
        ({"do_resize": True, "size": 256, "do_center_crop": True, "crop_size": 224}, (None, 37)),  # of version 4
        ({"resample": 3, "do_resize": True, "size": {"height": 32, "width": 32}}, ("bicubic", None)),
        ({"resample": 0, **CROPPED, "do_center_crop": False}, (None, None)),
        ({**CROPPED, "size": {"shortest_edge": 0}}, (None, None)),
        ({**CROPPED, "size": {"shortest_edge": 16}}, (None, None)),
        ({**CROPPED, "size": {"shortest_edge": 10**6}}, (None, None)),
        ({"image_mean": [0.5] * 3}, (None, None)),
        (["no settings"], (None, None)),
        ({"resample": [3], "size": {}, "crop_size": None}, (None, None)),
    ],
)
def test_what_is_open_is_the_publishers(tmp_path: Path, values: Any, expected: Any) -> None:
    assert adopted(tmp_path, values) == expected


def test_other_files_and_given_settings(tmp_path: Path) -> None:
    values = {"resample": 3, **CROPPED}
    assert adopted(tmp_path, values, resample="bilinear", resize=40) == ("bilinear", 40)
    (tmp_path / "preprocessor_config.json").unlink()
    assert adopted(tmp_path, {"image_processor": values}, "processor_config.json") == ("bicubic", 48)
    (tmp_path / "processor_config.json").unlink()
    timm = {"interpolation": "bicubic", "crop_pct": 0.8, "crop_mode": "center"}
    assert adopted(tmp_path, {"pretrained_cfg": timm}, "config.json") == ("bicubic", 40)
    assert adopt_scaling(parse({})) == parse({})


def test_a_workspace_is_created_with_them(tmp_path: Path, run: Run) -> None:
    folder = tmp_path / "bb"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    adopted(folder, {"resample": 3, **CROPPED})
    (tmp_path / "c.toml").write_text('[backbone]\nname = "bb"\nimage_size = 32\n')
    assert run("-w", tmp_path / "w", "init", "--config", tmp_path / "c.toml").code == 0
    stored = read(tmp_path / "w" / "lmeraser.toml").backbone
    assert (stored.resample, stored.resize) == ("bicubic", 48)


def test_settings_of_version_0_1_keep_their_digests(tmp_path: Path) -> None:
    bilinear, bicubic = (tiny_config(backbone={"resample": name}) for name in ("bilinear", "bicubic"))
    assert tiny_config().model_settings() == bilinear.model_settings()
    assert "resample" not in bilinear.model_settings()["backbone"]
    assert bicubic.model_settings()["backbone"]["resample"] == "bicubic"
    (tmp_path / "s.toml").write_text(to_toml(bicubic))
    assert read(tmp_path / "s.toml") == bicubic


@pytest.mark.parametrize("resample", ["bilinear", "bicubic", "lanczos"])
def test_every_canvas_is_made_with_the_filter(resample: Any) -> None:
    side = 18
    square = Image.fromarray(NOISE[:, 5:45])
    expected = np.asarray(square.resize((side, side), Image.Resampling[resample.upper()]))
    image = Image.fromarray(NOISE)
    np.testing.assert_array_equal(to_canvas(image, side, resample), expected)
    reduced = reduce_image(image, {CanvasSize(side, resample)})
    np.testing.assert_array_equal(to_canvas(reduced, side, resample), expected)
    chosen = config(backbone={"image_size": SIZE, "resize": side, "micro_batch": 4, "resample": resample})
    assert canvas_sizes(chosen) == {CanvasSize(side, resample)}
    backbone = Small()
    inside = expected[1:17, 1:17]
    seen = view_input([image], "clean", backbone, chosen)[0]
    np.testing.assert_allclose(seen.permute(1, 2, 0).numpy(), inside / 127.5 - 1, atol=1e-6)
    loaded = tuner_canvases(chosen, backbone)
    np.testing.assert_array_equal(loaded[[0]][0], expected)


def tuner_canvases(chosen: Config, backbone: Backbone) -> Any:
    from lmeraser.models.tuners import create_tuner

    tuner: Any = create_tuner(chosen, backbone)
    return tuner.load(members(1).ids, lambda ids: [png(NOISE)], budget=10**8, parallel=map)._canvases
