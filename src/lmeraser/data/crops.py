"""Square crops of canvases (`images`): the central one, which predictions see, or any other.

Knows nothing about views or prompts.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Corner = tuple[int, int]  # row and column of a square's upper left pixel


def central_corner(side: int, size: int) -> Corner:
    """Corner of the central square of ``size`` px in one of ``side`` px, rounded down."""
    offset = (side - size) // 2
    return (offset, offset)


def crop(canvases: NDArray[np.uint8], corners: Sequence[Corner], size: int) -> NDArray[np.uint8]:
    """The square of ``size`` px of each canvas at its corner.

    Args:
        canvases: uint8 [n, side, side, 3].
        corners: one for each canvas.
        size: side of the squares, px.

    Returns:
        uint8 [n, size, size, 3].
    """
    squares = [
        canvas[row : row + size, column : column + size]
        for canvas, (row, column) in zip(canvases, corners, strict=True)
    ]
    return np.stack(squares)


def central_crop(canvases: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """The central square of each canvas: uint8 [n, side, side, 3] to uint8 [n, size, size, 3]."""
    return crop(canvases, [central_corner(canvases.shape[1], size)] * len(canvases), size)
