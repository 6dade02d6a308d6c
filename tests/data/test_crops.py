"""Crops of canvases: where they lie, and that each canvas has its own."""

from __future__ import annotations

import numpy as np
import pytest

from lmeraser.data.crops import central_corner, central_crop, crop


@pytest.mark.parametrize(
    ("side", "size", "offset"), [(37, 32, 2), (256, 224, 16), (18, 16, 1), (17, 16, 0), (16, 16, 0)]
)
def test_the_central_square_has_equal_margins_or_one_pixel_less_above_and_to_the_left(
    side: int, size: int, offset: int
) -> None:
    assert central_corner(side, size) == (offset, offset)
    assert side - size - offset in (offset, offset + 1)


def test_each_canvas_is_cropped_at_its_own_corner() -> None:
    canvases = np.arange(2 * 5 * 5 * 3, dtype=np.uint8).reshape(2, 5, 5, 3)
    found = crop(canvases, [(0, 2), (1, 0)], 3)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found[0], canvases[0, 0:3, 2:5])
    np.testing.assert_array_equal(found[1], canvases[1, 1:4, 0:3])
    np.testing.assert_array_equal(central_crop(canvases, 3), canvases[:, 1:4, 1:4])


def test_canvases_and_corners_come_in_pairs() -> None:
    with pytest.raises(ValueError):
        crop(np.zeros((2, 5, 5, 3), np.uint8), [(0, 0)], 3)
