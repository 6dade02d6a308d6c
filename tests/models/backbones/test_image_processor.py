"""Pixels reach a network as its publisher's own image processor gives them, or the backbone is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import examples
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.image_processor import PixelStatistics, pixel_statistics
from lmeraser.models.backbones.location import Location

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLIP = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
COLOURS = [(0, 0, 0), (255, 255, 255), (7, 100, 201)]


def statistics(folder: Path, values: Any, model_type: str = "vit", file: str = "preprocessor_config.json") -> Any:
    """The statistics for a folder whose processor's file has these values."""
    (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
    (folder / file).write_text(json.dumps(values) if not isinstance(values, str) else values)
    return pixel_statistics(Location.of(str(folder)), model_type, "a name")


def processed(folder: Path, colour: tuple[int, int, int]) -> Any:
    """The middle of an image of one colour, as the publisher's processor gives it."""
    from transformers import AutoImageProcessor

    processor = AutoImageProcessor.from_pretrained(folder)
    pixels = processor(images=Image.new("RGB", (40, 40), colour), return_tensors="pt")["pixel_values"].numpy()
    return pixels[0, :, pixels.shape[2] // 2, pixels.shape[3] // 2]


@pytest.mark.parametrize(
    ("values", "model_type", "expected"),
    [
        ({"image_mean": IMAGENET[0], "image_std": IMAGENET[1]}, "vit", IMAGENET),
        ({"feature_extractor_type": "ViTFeatureExtractor"}, "vit", ((0.5,) * 3, (0.5,) * 3)),
        ({"image_processor_type": "LevitImageProcessor"}, "levit", IMAGENET),  # the class's own values
        ({"image_processor_type": "CLIPImageProcessor"}, "clip", CLIP),
        ({"image_mean": 0.25, "image_std": 0.5}, "vit", ((0.25,) * 3, (0.5,) * 3)),
        ({"do_normalize": False}, "vit", ((0.0,) * 3, (1.0,) * 3)),
        ({"do_normalize": False, "do_rescale": False}, "vit", ((0.0,) * 3, (1 / 255,) * 3)),
    ],
)
def test_values_are_those_of_the_processors_class(
    tmp_path: Path, values: Any, model_type: str, expected: Any
) -> None:
    found = statistics(tmp_path, values, model_type)
    np.testing.assert_allclose((found.mean, found.std), expected, rtol=1e-12)
    for colour in COLOURS:
        np.testing.assert_allclose(found.of(colour), processed(tmp_path, colour), rtol=1e-4, atol=1e-4)


@given(
    mean=st.tuples(*[st.floats(0, 1)] * 3),
    std=st.tuples(*[st.floats(0.01, 2)] * 3),
    factor=st.sampled_from([1 / 255, 1 / 127.5, 1.0, 0.01]),
)
@examples(fast=5, explore=100)
def test_any_statistics_and_factor_give_the_processors_pixels(
    tmp_path_factory: pytest.TempPathFactory, mean: Any, std: Any, factor: float
) -> None:
    folder = tmp_path_factory.mktemp("processor")
    found = statistics(folder, {"image_mean": mean, "image_std": std, "rescale_factor": factor})
    assert factor != 1 / 255 or (found.mean, found.std) == (mean, std), "to the bit, because digests contain them"
    for colour in COLOURS:
        np.testing.assert_allclose(found.of(colour), processed(folder, colour), rtol=1e-3, atol=1e-3)


def test_a_processor_of_version_5_lies_in_another_file(tmp_path: Path) -> None:
    values = {"image_processor_type": "ViTImageProcessor", "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}
    found = statistics(tmp_path, {"image_processor": values}, file="processor_config.json")
    assert (found.mean, found.std) == IMAGENET


def test_blue_comes_first_where_the_network_was_trained_so(tmp_path: Path) -> None:
    found = statistics(tmp_path, {"image_processor_type": "MobileViTImageProcessor"}, "mobilevit")
    assert found.order == (2, 1, 0)
    for colour in COLOURS:
        np.testing.assert_allclose(found.of(colour), processed(tmp_path, colour), atol=1e-6)


@pytest.mark.parametrize("include_top", [True, False])
def test_what_values_do_not_say_is_measured(tmp_path: Path, include_top: bool) -> None:
    """EfficientNet's processor divides by the deviation twice, if its classifier is there."""
    values = {"image_processor_type": "EfficientNetImageProcessor", "include_top": include_top}
    found = statistics(tmp_path, {**values, "image_mean": IMAGENET[0], "image_std": IMAGENET[1]}, "efficientnet")
    for colour in COLOURS:
        np.testing.assert_allclose(found.of(colour), processed(tmp_path, colour), rtol=1e-4, atol=1e-4)


def test_without_a_processor_pixels_are_taken_from_minus_one_to_one(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "vit"}))
    assert pixel_statistics(Location.of(str(tmp_path)), "vit", "a name") == PixelStatistics()


@pytest.mark.parametrize(
    ("values", "model_type"),
    [
        ("{not JSON", "vit"),
        ("[]", "vit"),
        ({"image_processor_type": "ImageGPTImageProcessor"}, "imagegpt"),  # colours become tokens
        ({"image_processor_type": "NoSuchImageProcessor"}, "no_such_model"),
        ({"image_mean": [0.5, 0.5], "image_std": [0.5, 0.5]}, "vit"),
    ],
)
def test_what_is_not_understood_is_refused_in_one_sentence(tmp_path: Path, values: Any, model_type: str) -> None:
    with pytest.raises(BackboneError, match="image processor") as caught:
        statistics(tmp_path, values, model_type)
    assert "\n" not in caught.value.got
