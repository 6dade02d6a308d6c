"""Views are made of one image alone, each as its name says: compared with pixels computed by Pillow and numpy."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from conftest import tiny_config
from lmeraser.config.modalities import MODALITIES, View
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.data.canvases import to_canvas
from lmeraser.models.modalities.image import view_input
from lmeraser.pipeline.executors.local import LocalExecutor

SIZE, CANVAS, WIDTH, MICRO = 32, 37, 4, 4  # of tiny_config: 37 is 8/7 of 32, and 4 is 30/224 of it
VIEWS: tuple[View, ...] = MODALITIES["image"].views
SHAPES = [(50, 41), (32, 32), (29, 64), (7, 9)]  # height, width


@pytest.fixture(scope="module")
def executor() -> LocalExecutor:
    return LocalExecutor(tiny_config())


def photo(number: int) -> Image.Image:
    """Noise on a slope: no symmetry, and every pixel matters."""
    height, width = SHAPES[number % len(SHAPES)]
    noise = np.random.default_rng(number).integers(0, 128, (height, width, 3))
    slope = np.linspace(0, 127, width).astype(int)[None, :, None]
    return Image.fromarray((noise + slope).astype(np.uint8))


PHOTOS = [photo(number) for number in range(4)]


def square(image: Image.Image, side: int) -> Any:
    """The central square at another size, by Pillow alone: uint8 [side, side, 3]."""
    width, height = image.size
    shorter = min(width, height)
    left, top = (width - shorter) // 2, (height - shorter) // 2
    cut = Image.fromarray(np.asarray(image)[top : top + shorter, left : left + shorter])
    return np.asarray(cut.resize((side, side), Image.Resampling.BILINEAR))


def middle(pixels: Any, size: int) -> Any:
    """The central square of an array of pixels."""
    first = (len(pixels) - size) // 2
    return pixels[first : first + size, first : first + size]


def inputs_of(pixels: Any) -> Any:
    """Pixels as the input of EfficientNet-Lite, which was trained on (pixel - 127) / 128; float64."""
    return (np.stack(pixels).astype(np.float64).transpose(0, 3, 1, 2) - 127) / 128


def assert_shows(found: Tensor, expected: Any) -> None:
    """The first images of an input show these pixels."""
    wanted = inputs_of(expected)
    np.testing.assert_allclose(found[: len(wanted)].numpy(), wanted, rtol=0, atol=1e-5)  # a grey level is 0.008


@pytest.mark.parametrize("view", VIEWS)
def test_every_view_has_the_shape_of_the_input(executor: LocalExecutor, view: View) -> None:
    for count in (1, 3, MICRO):
        found = executor.encoder.input(PHOTOS[:count], view)
        assert found.shape == (MICRO, 3, SIZE, SIZE)
        assert found.dtype == torch.float32


def test_all_views_of_an_image_are_different(executor: LocalExecutor) -> None:
    assert len({executor.encoder.input(PHOTOS[:1], view)[0].numpy().tobytes() for view in VIEWS}) == len(VIEWS)


def test_clean_is_the_centre_of_the_canvas(executor: LocalExecutor) -> None:
    assert_shows(
        executor.encoder.input(PHOTOS, "clean"), [middle(square(image, CANVAS), SIZE) for image in PHOTOS]
    )


def test_mirror_is_the_mirror_image_of_clean(executor: LocalExecutor) -> None:
    mirrored = [middle(square(image, CANVAS), SIZE)[:, ::-1] for image in PHOTOS]
    assert_shows(executor.encoder.input(PHOTOS, "mirror"), mirrored)
    assert torch.equal(executor.encoder.input(PHOTOS, "mirror").flip(3), executor.encoder.input(PHOTOS, "clean"))


def test_whole_is_the_whole_canvas_at_the_size_of_the_input(executor: LocalExecutor) -> None:
    assert_shows(executor.encoder.input(PHOTOS, "whole"), [square(image, SIZE) for image in PHOTOS])
    assert_shows(executor.encoder.input(PHOTOS, "whole"), [to_canvas(image, SIZE) for image in PHOTOS])


@pytest.mark.parametrize(("size", "scaled"), [(32, 48), (33, 50), (34, 51), (36, 54)])
def test_near_is_the_centre_of_the_image_at_three_halves(executor: LocalExecutor, size: int, scaled: int) -> None:
    found = view_input(PHOTOS, "near", executor.network, sized(size))
    assert_shows(found, [middle(square(image, scaled), size) for image in PHOTOS])


@pytest.mark.parametrize(("size", "scaled"), [(32, 21), (33, 22), (34, 23), (36, 24)])
def test_far_is_the_image_at_two_thirds_on_grey(executor: LocalExecutor, size: int, scaled: int) -> None:
    found = view_input(PHOTOS, "far", executor.network, sized(size))
    before = -(-(size - scaled) // 2)  # where the room is odd, one pixel more lies above and on the left
    framed = np.full((len(PHOTOS), size, size, 3), 127, np.uint8)
    framed[:, before : before + scaled, before : before + scaled] = [square(image, scaled) for image in PHOTOS]
    assert 0 < size - before - scaled <= before <= size - before - scaled + 1
    assert_shows(found, framed)


def sized(size: int) -> Config:
    return tiny_config(backbone={"image_size": size})


def frames(images: Sequence[Image.Image], executor: LocalExecutor, config: Config) -> Any:
    """What the view 'frame' adds to the clean view, float32 [n, 3, size, size]."""
    clean, framed = (view_input(images, view, executor.network, config) for view in ("clean", "frame"))
    return (framed - clean)[: len(images)].numpy()


def test_frame_differs_from_clean_in_the_frame_only(executor: LocalExecutor) -> None:
    inner = slice(WIDTH, SIZE - WIDTH)
    clean, framed = executor.encoder.input(PHOTOS, "clean"), executor.encoder.input(PHOTOS, "frame")
    assert torch.equal(framed[:, :, inner, inner], clean[:, :, inner, inner])
    edge = np.ones((SIZE, SIZE), dtype=bool)
    edge[inner, inner] = False
    added = frames(PHOTOS, executor, tiny_config())[:, :, edge]
    assert np.all(added != 0)
    assert abs(added.mean()) < 0.1
    assert added.std() == pytest.approx(1, abs=0.1)


def test_the_frame_is_the_same_for_all_images_and_another_for_another_seed(executor: LocalExecutor) -> None:
    added = frames(PHOTOS, executor, tiny_config())
    np.testing.assert_allclose(added, np.broadcast_to(added[:1], added.shape), atol=1e-6)
    other = frames(PHOTOS, executor, tiny_config().model_copy(update={"seed": 1}))
    edge = added[0] != 0
    assert np.mean(np.abs(other - added)[:, edge] > 0.01) > 0.9
    assert np.abs(other[:, ~edge]).max() == 0


def test_the_frame_is_as_wide_as_the_prompt_would_be(executor: LocalExecutor) -> None:
    added = frames(PHOTOS[:1], executor, tiny_config(prompt={"kind": "fixed_patch", "width": 2}))
    assert np.all(added[:, :, :2] != 0)
    assert np.all(added[:, :, 2:-2, 2:-2] == 0)


_OTHER_PROCESS = """
import sys
from PIL import Image
from lmeraser.models.modalities import load_backbone
from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.models.modalities.image import view_input
config = parse({"backbone": {"image_size": 32, "micro_batch": 4}})
framed = view_input([Image.new("RGB", (40, 40), "teal")], "frame", load_backbone(config), config)
sys.stdout.write(Digest.of(framed.numpy().tobytes()))
"""


@pytest.mark.long  # the oracle of test_exactness is another process, too, and its models see frames
def test_the_frame_is_the_same_in_every_process(executor: LocalExecutor) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "3", "PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", _OTHER_PROCESS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    framed = executor.encoder.input([Image.new("RGB", (40, 40), "teal")], "frame")
    assert done.stdout == Digest.of(framed.numpy().tobytes())


@pytest.mark.parametrize("view", [view for view in VIEWS if view != "frame"])
def test_rows_beyond_the_images_are_black(executor: LocalExecutor, view: View) -> None:
    for count in range(1, MICRO):
        rest = executor.encoder.input(PHOTOS[:count], view)[count:]
        np.testing.assert_allclose(rest.numpy(), np.full(rest.shape, -127 / 128), atol=1e-6)


def test_rows_beyond_the_images_are_black_in_a_frame(executor: LocalExecutor) -> None:
    rest = executor.encoder.input(PHOTOS[:1], "frame")[1:]
    inner = rest[:, :, WIDTH:-WIDTH, WIDTH:-WIDTH].numpy()
    np.testing.assert_allclose(inner, np.full(inner.shape, -127 / 128), atol=1e-6)


@pytest.mark.parametrize("view", VIEWS)
def test_a_view_does_not_depend_on_the_other_images(executor: LocalExecutor, view: View) -> None:
    together = executor.encoder.input(PHOTOS, view)
    turned = executor.encoder.input(PHOTOS[::-1], view)
    for place, image in enumerate(PHOTOS):
        assert torch.equal(executor.encoder.input([image], view)[0], together[place])
        assert torch.equal(turned[len(PHOTOS) - 1 - place], together[place])


def test_features_of_views_do_not_depend_on_the_other_images(executor: LocalExecutor) -> None:
    def features(images: Sequence[Image.Image], views: Sequence[View]) -> Any:
        return next(iter(executor.stream(lambda batch: executor.encoder.features(batch, views), [images])))

    together = features(PHOTOS, VIEWS)
    assert together.shape == (MICRO, len(VIEWS), executor.network.feature_dim)
    assert len({view.tobytes() for view in together[0]}) == len(VIEWS)
    for place, image in enumerate(PHOTOS):
        np.testing.assert_array_equal(features([image], VIEWS)[0], together[place])
        np.testing.assert_array_equal(features([image, PHOTOS[0]], VIEWS[::-1])[0], together[place, ::-1])
