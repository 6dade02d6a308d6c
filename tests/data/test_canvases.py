from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from conftest import png
from lmeraser.data.canvases import Canvases, to_canvas
from lmeraser.data.images import decode

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def noise(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_a_canvas_is_the_centred_square() -> None:
    wide = np.zeros((10, 30, 3), dtype=np.uint8)
    wide[:, :10], wide[:, 10:20], wide[:, 20:] = RED, GREEN, BLUE
    for array in (wide, wide.transpose(1, 0, 2)):
        np.testing.assert_array_equal(to_canvas(decode(png(array)), 10), np.full((10, 10, 3), GREEN))
        np.testing.assert_array_equal(to_canvas(decode(png(array)), 6)[1:-1, 1:-1], np.full((4, 4, 3), GREEN))


def test_a_canvas_of_the_images_own_size_is_the_image() -> None:
    array = noise(9, 9)
    np.testing.assert_array_equal(to_canvas(decode(png(array)), 9), array)


def test_a_canvas_averages_what_it_shrinks() -> None:
    stripes = np.zeros((64, 64), dtype=np.uint8)
    stripes[::2] = 200
    np.testing.assert_allclose(to_canvas(decode(png(stripes)), 4), 100, atol=10)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (10, 10000), (10000, 10), (1, 2), (3, 5)])
def test_any_shape_gives_a_canvas(height: int, width: int) -> None:
    image = decode(png(np.full((height, width), 77)))
    np.testing.assert_array_equal(to_canvas(image, 20), np.full((20, 20, 3), 77))


IMAGES = {f"r{number}": png(noise(8 + number % 3, 9, seed=number)) for number in range(600)}


class Fetch:
    """Image bytes of the ids that are asked for; counts them."""

    def __init__(self) -> None:
        self.fetched = 0
        self.largest = 0

    def __call__(self, ids: Sequence[str]) -> Sequence[bytes]:
        self.fetched += len(ids)
        self.largest = max(self.largest, len(ids))
        return [IMAGES[record_id] for record_id in ids]


def test_canvases_are_the_same_within_and_beyond_the_memory_budget() -> None:
    ids = list(IMAGES)
    size = len(ids) * 8 * 8 * 3
    kept, decoded = Fetch(), Fetch()
    within = Canvases(ids, kept, side=8, budget=size)
    beyond = Canvases(ids, decoded, side=8, budget=size - 1)
    assert len(within) == len(beyond) == len(ids)
    for indices in ([0], [599, 0, 3, 3], list(range(600)), []):
        expected = [to_canvas(decode(IMAGES[ids[index]]), 8) for index in indices]
        np.testing.assert_array_equal(within[indices], np.array(expected).reshape(-1, 8, 8, 3))
        np.testing.assert_array_equal(beyond[indices], within[indices])
    assert kept.fetched == len(ids), "within the budget every image is decoded once"
    assert kept.largest < len(ids), "the files themselves are never in memory all at once"
    assert decoded.fetched == 1 + 4 + 600
