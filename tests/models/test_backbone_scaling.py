"""A new workspace scales images as its backbone's publisher does; those of version 0.1 go on as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import Run, png, tiny_config
from lmeraser.config.schema import Config, parse, read
from lmeraser.config.toml_file import to_toml
from lmeraser.data.canvases import CanvasSize, reduce_image, to_canvas
from lmeraser.models.backbone_scaling import adopt_scaling, describe_scaling
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.backbones.huggingface import HuggingFaceBackbone
from lmeraser.models.backbones.location import Location
from lmeraser.models.backbones.published_scaling import published_scaling
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
        ({"resample": 3, "do_resize": True, "size": {"height": 32, "width": 32}}, ("bicubic", 32)),
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


@pytest.mark.parametrize(
    "values",
    [
        {"image_size": 224},
        {"image_size": [224, 224]},
        {"vision_config": {"image_size": 224}},
        {"pretrained_cfg": {"input_size": [3, 224, 224]}},
    ],
)
def test_another_size_than_the_backbones_is_mentioned(tmp_path: Path, values: dict[str, Any]) -> None:
    """It works with smaller inputs, too, and is worse."""
    (tmp_path / "config.json").write_text(json.dumps(values))
    for size, mentioned in ((96, True), (224, False)):
        given = parse({"backbone": {"name": str(tmp_path), "image_size": size}})
        assert (
            "create the workspace with backbone.image_size = 224" in str(describe_scaling(given, given))
        ) == mentioned
    sized = parse({"backbone": {"name": str(tmp_path), "image_size": 96, "resize": 110}})
    assert "made for 224 px" in str(describe_scaling(sized, sized))
    unknowns: list[dict[str, Any]] = [{}, {"image_size": [224, 160]}, {"image_size": None}, {"vision_config": []}]
    for unknown in unknowns:
        (tmp_path / "config.json").write_text(json.dumps(unknown))
        assert "made for" not in str(describe_scaling(given, given))


def test_other_files_and_given_settings(tmp_path: Path) -> None:
    values = {"resample": 3, **CROPPED}
    assert adopted(tmp_path, values, resample="bilinear", resize=40) == ("bilinear", 40)
    (tmp_path / "preprocessor_config.json").unlink()
    assert adopted(tmp_path, {"image_processor": values}, "processor_config.json") == ("bicubic", 48)
    (tmp_path / "processor_config.json").unlink()
    timm = {"interpolation": "bicubic", "crop_pct": 0.8, "crop_mode": "center"}
    assert adopted(tmp_path, {"pretrained_cfg": timm}, "config.json") == ("bicubic", 40)
    assert adopt_scaling(parse({})) == parse({})


def test_a_file_tells_that_images_are_squeezed(tmp_path: Path) -> None:
    size = {"do_resize": True, "size": {"height": 40, "width": 40}}
    crop = {"do_center_crop": True, "crop_size": {"height": 32, "width": 32}}
    timm = {"pretrained_cfg": {"crop_mode": "squash", "crop_pct": 0.8}}
    for file, values, side, fit in [
        ("preprocessor_config.json", {**size, **crop}, 40, "squeeze"),
        ("preprocessor_config.json", size, 32, "squeeze"),
        ("preprocessor_config.json", {**size, "size": {"height": 40, "width": 30}}, None, None),
        ("preprocessor_config.json", CROPPED, 48, None),
        ("config.json", timm, 40, "squeeze"),
    ]:
        (tmp_path / "preprocessor_config.json").unlink(missing_ok=True)
        (tmp_path / file).write_text(json.dumps(values))
        found = adopt_scaling(parse({"backbone": {"name": str(tmp_path), "image_size": 32}})).backbone
        assert (found.resize, found.fit) == (side, fit)
    given = parse({"backbone": {"name": str(tmp_path), "image_size": 32, "fit": "crop"}})
    assert adopt_scaling(given) == given  # side and fit belong together


@pytest.mark.parametrize(
    ("family", "values", "expected"),
    [
        ("vit", {}, ("squeeze", 224, 224, "bilinear")),
        ("vit", {"size": 96, "resample": 1}, ("squeeze", 96, 96, "lanczos")),
        ("deit", {}, ("squeeze", 256, 224, "bicubic")),
        ("clip", {}, ("crop", 224, 224, "bicubic")),
        ("levit", {}, ("crop", 256, 224, "bicubic")),  # 8/7 of the side in its file
        ("convnext", {"size": {"shortest_edge": 224}}, ("crop", 256, 224, "bicubic")),
        ("convnext", {"size": {"shortest_edge": 384}}, ("squeeze", 384, 384, "bicubic")),
        ("poolformer", {}, ("crop", 248, 224, "bicubic")),
        ("owlv2", {}, None),  # pads
        ("detr", {}, None),  # keeps the shape
        ("vit", {"do_resize": False}, None),
    ],
)
def test_the_rule_of_a_processor_is_measured(tmp_path: Path, family: str, values: Any, expected: Any) -> None:
    save_processor(tmp_path, family, **values)
    rule = published_scaling(Location(str(tmp_path), local_files_only=True))
    assert (None if rule is None else (rule.fit, rule.side, rule.crop, rule.resample)) == expected


def test_a_squeezed_image_has_the_publishers_features(tmp_path: Path, run: Run) -> None:
    import transformers as hf

    folder = tmp_path / "bb"
    torch.manual_seed(0)
    layout = hf.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=32,
        patch_size=8,
    )
    model = hf.ViTModel(layout, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    save_processor(folder, "vit", size={"height": 32, "width": 32}, resample=3)
    (tmp_path / "c.toml").write_text('[backbone]\nname = "bb"\nimage_size = 32\nmicro_batch = 2\n')
    created = run("-w", tmp_path / "w", "init", "--config", tmp_path / "c.toml")
    assert created.code == 0
    assert "squeezed to 32 x 32 px (bicubic filter)" in created.out
    chosen = read(tmp_path / "w" / "lmeraser.toml")
    assert (chosen.backbone.fit, chosen.backbone.resize, chosen.backbone.resample) == ("squeeze", 32, "bicubic")
    backbone = HuggingFaceBackbone(chosen.backbone, torch.device("cpu"))
    images = [Image.fromarray(NOISE), Image.fromarray(np.ascontiguousarray(NOISE[:25].transpose(1, 0, 2)))]
    processor = hf.AutoImageProcessor.from_pretrained(folder)
    with torch.inference_mode():
        theirs = model(**processor(images=images, return_tensors="pt")).last_hidden_state[:, 0]
        ours = backbone.features(view_input(images, "clean", backbone, chosen))
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_the_rule_of_a_model_on_the_hub_comes_from_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    given = parse({"backbone": {"name": "hub:nobody/vit", "image_size": 96}})
    assert adopt_scaling(given) == given
    assert "no rule" in str(describe_scaling(given, given))
    cached = tmp_path / "models--nobody--vit"
    save_processor(cached / "snapshots" / "0" / "", "vit")
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0")
    found = adopt_scaling(given)
    assert (found.backbone.fit, found.backbone.resize, found.backbone.resample) == ("squeeze", 96, "bilinear")
    assert "squeezed to 96 x 96" in str(describe_scaling(given, found))


def save_processor(folder: Path, family: str, **values: Any) -> None:
    """Save the image processor of a family of transformers, which Pillow carries out."""
    from importlib import import_module

    module = import_module(f"transformers.models.{family}.image_processing_pil_{family}")
    (kind,) = (getattr(module, name) for name in module.__all__ if name.endswith("ImageProcessorPil"))
    kind(**values).save_pretrained(folder)


def test_views_of_a_squeezed_image() -> None:
    backbone = Small()
    image = Image.fromarray(NOISE)
    chosen = config(backbone={"image_size": SIZE, "resize": SIZE, "micro_batch": 4, "fit": "squeeze"})
    views: dict[Any, Any] = {}
    for view, side in (("whole", SIZE), ("near", round(1.5 * SIZE)), ("far", round(SIZE * 2 / 3))):
        resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR))
        low = (side - SIZE) // 2
        grey = np.full((SIZE, SIZE, 3), 127, dtype=np.uint8)
        if low >= 0:
            grey = resized[low : low + SIZE, low : low + SIZE]
        else:
            before = SIZE - side - (SIZE - side) // 2
            grey[before : before + side, before : before + side] = resized
        views[view] = grey
    views["clean"] = views["whole"]  # without room for random crops
    for view, expected in views.items():
        seen = view_input([image], view, backbone, chosen)[0].permute(1, 2, 0).numpy()
        np.testing.assert_allclose(seen, expected / 127.5 - 1, atol=1e-6)


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
    crop, squeeze = (tiny_config(backbone={"fit": fit}) for fit in ("crop", "squeeze"))
    assert tiny_config().model_settings() == crop.model_settings()
    assert "fit" not in crop.model_settings()["backbone"]
    assert squeeze.model_settings()["backbone"]["fit"] == "squeeze"


@pytest.mark.parametrize(
    ("resample", "fit"),
    [
        ("bilinear", "crop"),
        ("bicubic", "crop"),
        ("lanczos", "crop"),
        ("bilinear", "squeeze"),
        ("bicubic", "squeeze"),
    ],
)
def test_every_canvas_is_made_with_the_filter_and_the_fit(resample: Any, fit: Any) -> None:
    side = 18
    square = Image.fromarray(NOISE if fit == "squeeze" else NOISE[:, 5:45])
    expected = np.asarray(square.resize((side, side), Image.Resampling[resample.upper()]))
    image = Image.fromarray(NOISE)
    np.testing.assert_array_equal(to_canvas(image, side, resample, fit), expected)
    reduced = reduce_image(image, {CanvasSize(side, resample, fit)})
    np.testing.assert_array_equal(to_canvas(reduced, side, resample, fit), expected)
    scaling = {"resize": side, "resample": resample, "fit": fit}
    chosen = config(backbone={"image_size": SIZE, "micro_batch": 4, **scaling})
    assert canvas_sizes(chosen) == {CanvasSize(side, resample, fit)}
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
