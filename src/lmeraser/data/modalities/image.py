"""Images as payloads: the bytes of an image file, exactly as given (`data.images` decodes them)."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmeraser.config.schema import Config
from lmeraser.data.canvases import to_canvas
from lmeraser.data.images import HELD_FORMATS, as_file, decode, is_in_memory, read_header
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.data.rows import check_image
from lmeraser.errors import ImageError

COLUMNS = ("image",)

_NOISE_SIDE = 256  # px


def no_image(value: object) -> str:
    """What is wrong with a value that is no image."""
    return (
        f"a value of type {type(value).__name__} instead of an image file's bytes or path, an image of Pillow, or "
        "an array of pixels (uint8)"
    )


class ImageFormat(PayloadFormat):
    """Image files."""

    noun = "image"
    columns: tuple[str, ...] = COLUMNS
    suffix = ""
    in_files = True
    has_pictures = True

    def payload(self, value: Any) -> bytes:
        """The bytes of an image file; those of one that is made of the pixels of an image in memory (`as_file`).

        Raises:
            ValueError: it is neither; says why.
        """
        if is_in_memory(value):
            try:
                return as_file(value)
            except ImageError as error:
                raise ValueError(error.summary) from error
        if not isinstance(value, bytes | bytearray | memoryview):
            raise ValueError(no_image(value))
        return bytes(value)

    def check(self, payload: bytes) -> None:
        """Refuse bytes that are no image. Raises as `check_image`."""
        check_image(payload)

    def noise(self, count: int) -> list[bytes]:
        """JPEG files of noise, 256 px."""
        generator = np.random.default_rng(0)
        encoded = []
        for _ in range(count):
            buffer = io.BytesIO()
            coarse = Image.fromarray(generator.integers(256, size=(16, 16, 3), dtype=np.uint8))
            coarse.resize((_NOISE_SIDE, _NOISE_SIDE)).save(buffer, "jpeg")
            encoded.append(buffer.getvalue())
        return encoded

    def queries(self, arguments: Sequence[str], passed_over: Counter[str]) -> list[tuple[str, Any]]:
        """Image files, or those in folders."""
        from lmeraser.data.sources import image_files

        return [(str(file), file) for file in image_files(map(Path, arguments), passed_over)]

    def picture(self, payload: bytes, side: int) -> NDArray[np.uint8]:
        """The centre of the image."""
        return to_canvas(decode(payload, held=True), side)

    def describe(self, payload: bytes) -> str:
        """Format and size."""
        try:
            header = read_header(payload, HELD_FORMATS)
        except ImageError as error:
            return error.summary
        return f"{header.format}, {header.width} x {header.height} px, {len(payload)} bytes"


def open_format(config: Config) -> ImageFormat:
    """Image files have no settings."""
    return ImageFormat()
