"""Decoding of images: from the bytes of a file to the canvas that a backbone sees.

A canvas is the largest centred square of the image, resized (bilinear, antialiased) to one fixed side, as RGB
uint8. The clean view is the centre of the canvas; training may crop elsewhere. Images are decoded here and nowhere
else, so that import, training, prediction and audit see the same pixels. Nothing is normalised with statistics of
private data. Must not depend on torch.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from lmeraser.errors import ImageError, InputError

ImageFile = str | os.PathLike[str] | bytes  # the path of an image file, or its content
Canvas = NDArray[np.uint8]  # [side, side, 3]

_NEXT_STEP = "replace the file by a PNG or JPEG that an image viewer opens"


def decode(data: bytes) -> Image.Image:
    """Decode the bytes of an image file to RGB.

    Grey, palette, CMYK and 1-bit images become RGB; transparent pixels are blended with white; 16-bit grey is
    scaled to 8 bits; the EXIF orientation is applied.

    Raises:
        ImageError: the bytes are not an image or are truncated, or the image has more pixels than Pillow's limit.
    """
    try:
        image = Image.open(io.BytesIO(data))
        _check_size(image)
        image.load()
        return _rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError as error:
        raise ImageError(
            "Not an image file", got=f"{len(data)} bytes in an unknown format", next_step=_NEXT_STEP
        ) from error
    except ImageError:
        raise
    except Exception as error:  # Pillow's decoders raise OSError, SyntaxError, struct.error, ValueError...
        raise ImageError(
            "Cannot decode image", got=str(error) or type(error).__name__, next_step=_NEXT_STEP
        ) from error


def to_canvas(image: Image.Image, side: int) -> Canvas:
    """The largest centred square of an RGB image, resized to ``side`` px: uint8 [side, side, 3]."""
    width, height = image.size
    square = min(width, height)
    left, top = (width - square) // 2, (height - square) // 2
    # Cropped first: resizing with a box would let pixels outside the square bleed into its edges.
    cropped = image.crop((left, top, left + square, top + square))
    resized = cropped.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(resized, dtype=np.uint8)


class Canvases:
    """The canvases of a list of records, decoded once if they fit in memory.

    Args:
        ids: record ids; a canvas is addressed by the position in this list.
        fetch: returns the image bytes of record ids, in their order.
        side: side of a canvas, px.
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
        parallel: Callable[[Callable[[bytes], Canvas], Sequence[bytes]], Iterable[Canvas]] = map,
    ) -> None:
        self._ids = ids
        self._fetch = fetch
        self._side = side
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
        return to_canvas(decode(data), self._side)


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise ImageError(
            f"Image has more than {limit} pixels",
            got=f"{image.width} x {image.height}",
            next_step="scale the image down",
        )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I;16", "I;16L", "I;16B", "I"):
        return _from_16_bit(image)
    if image.mode == "F":
        raise ImageError("Unsupported pixel format", got="floating-point pixels (mode F)", next_step=_NEXT_STEP)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip everything above 255 to white."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            "Unsupported range of grey values",
            got=f"{values.min()} to {values.max()} (possible are 0 to 65535)",
            next_step=_NEXT_STEP,
        )
    return Image.fromarray((values // 257).astype(np.uint8)).convert("RGB")


def load_image(image: ImageFile) -> Image.Image:
    """An RGB image from an image file.

    Raises:
        InputError: the file cannot be read.
        ImageError: it cannot be decoded; names the path, if there is one.
    """
    if isinstance(image, bytes):
        return decode(image)
    path = Path(image)
    try:
        return decode(path.read_bytes())
    except OSError as error:
        raise InputError(
            "Cannot read the image", got=f"{path}: {error.strerror}", next_step="correct the path"
        ) from error
    except ImageError as error:
        raise ImageError(error.message, got=f"{path}: {error.got}", next_step=error.next_step) from error
