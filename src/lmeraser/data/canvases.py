"""Canvases: what a backbone can see of an image.

A canvas is the largest centred square of the image, or the whole image squeezed to a square, resized
(antialiased) to one fixed side, as RGB uint8. The clean view is the centre of the canvas; training may crop
elsewhere. Must not depend on torch.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmeraser.config.inputs import Fit, Resample
from lmeraser.data.images import decode

Canvas = NDArray[np.uint8]  # [side, side, 3]


class CanvasSize(NamedTuple):
    """The side of a canvas, px, the filter with which images are resized to it, and how they become square."""

    side: int
    resample: Resample = "bilinear"
    fit: Fit = "crop"

    @property
    def pixels(self) -> int:
        """The number of pixels of a canvas."""
        return self.side * self.side


@dataclass(frozen=True)
class ReducedImage:
    """An image of which only its canvases are kept, so that its size in memory is bounded.

    Attributes:
        canvases: by their size, uint8 [side, side, 3].
    """

    canvases: Mapping[CanvasSize, Canvas]


def reduce_image(image: Image.Image, sizes: Collection[CanvasSize]) -> Image.Image | ReducedImage:
    """An RGB image reduced to its canvases, where these have fewer pixels than the image itself.

    `to_canvas` gives the same bits for the result as for the image.

    Args:
        image: decoded.
        sizes: of the canvases that will be asked for.
    """
    if image.width * image.height <= sum(size.pixels for size in sizes):
        return image
    return ReducedImage({size: to_canvas(image, *size) for size in sizes})


def to_canvas(
    image: Image.Image | ReducedImage, side: int, resample: Resample = "bilinear", fit: Fit = "crop"
) -> Canvas:
    """The largest centred square of an RGB image, or all of it, resized to ``side`` px: uint8 [side, side, 3].

    Args:
        image: decoded.
        side: of the canvas, px.
        resample: the filter; antialiased.
        fit: "crop" takes the largest centred square; "squeeze" the whole image, whose width and height are scaled
            by different factors.

    Raises:
        KeyError: the image was reduced to canvases of other sizes.
    """
    if isinstance(image, ReducedImage):
        return image.canvases[CanvasSize(side, resample, fit)]
    if fit == "crop":
        width, height = image.size
        square = min(width, height)
        left, top = (width - square) // 2, (height - square) // 2
        # Cropped first: resizing with a box would let pixels outside the square bleed into its edges.
        image = image.crop((left, top, left + square, top + square))
    resized = image.resize((side, side), Image.Resampling[resample.upper()])
    return np.asarray(resized, dtype=np.uint8)


class Canvases:
    """The canvases of a list of records, decoded once if they fit in memory.

    Args:
        ids: record ids; a canvas is addressed by the position in this list.
        fetch: returns the image bytes of record ids, in their order.
        side: side of a canvas, px.
        resample: the filter of resizing.
        fit: how images become square, as `to_canvas` takes it.
        budget: bytes of decoded pixels that may be kept in memory; if they take more, images are decoded at each
            use.
        parallel: maps a function over images, possibly in parallel.
    """

    _CHUNK = 256

    def __init__(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        side: int,
        budget: int,
        resample: Resample = "bilinear",
        fit: Fit = "crop",
        parallel: Callable[[Callable[[bytes], Canvas], Sequence[bytes]], Iterable[Canvas]] = map,
    ) -> None:
        self._ids = ids
        self._fetch = fetch
        self._side = side
        self._size = CanvasSize(side, resample, fit)
        self._parallel = parallel
        fits = len(ids) * side * side * 3 <= budget
        self._kept: NDArray[np.uint8] | None = self._decode_all() if fits else None

    def __len__(self) -> int:
        return len(self._ids)

    def __getitem__(self, indices: Sequence[int]) -> NDArray[np.uint8]:
        """Canvases at ``indices``: uint8 [n, side, side, 3]."""
        if self._kept is not None:
            return self._kept[list(indices)]
        return self._decode([self._ids[index] for index in indices])

    def _decode(self, ids: Sequence[str]) -> NDArray[np.uint8]:
        pixels = np.empty((len(ids), self._side, self._side, 3), dtype=np.uint8)
        for row, data in enumerate(self._fetch(ids)):
            pixels[row] = self._canvas(data)
        return pixels

    def _decode_all(self) -> NDArray[np.uint8]:
        pixels = np.empty((len(self._ids), self._side, self._side, 3), dtype=np.uint8)
        for start in range(0, len(self._ids), self._CHUNK):
            fetched = self._fetch(self._ids[start : start + self._CHUNK])
            for row, canvas in enumerate(self._parallel(self._canvas, fetched), start=start):
                pixels[row] = canvas
        return pixels

    def _canvas(self, data: bytes) -> Canvas:
        return to_canvas(decode(data, held=True), *self._size)
