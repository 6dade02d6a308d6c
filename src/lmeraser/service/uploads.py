"""Validation of uploaded images, before anything decodes them.

Rules, each with a problem of its own:
1. an upload is a PNG, JPEG or WebP file by its first bytes, whatever its name or declared type;
2. a declared type, if any, is that type: polyglot files are refused;
3. its header declares at most the permitted number of pixels; a small file may otherwise unpack to gigabytes;
4. it ends where the image ends: nothing is appended to it;
5. it decodes completely.

Uploads stay in memory and are never stored. Knows nothing about HTTP.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from lmeraser.data.images import decode
from lmeraser.errors import ImageError
from lmeraser.service.problems import Problem

_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_UNSPECIFIC_TYPES = {"", "application/octet-stream"}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EOI = 0xD9  # JPEG markers (ITU-T T.81, table B.1): end of image
_SOS = 0xDA  # start of scan
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # without a length


def decode_upload(data: bytes, *, declared_type: str | None, max_pixels: float) -> Image.Image:
    """The RGB image in an upload.

    Args:
        data: the upload.
        declared_type: its content type, as declared by the caller.
        max_pixels: how many it may have.

    Raises:
        Problem: it violates a rule.
    """
    image_format = _identify(data, max_pixels)
    declared = (declared_type or "").partition(";")[0].strip().lower()
    if declared not in {_FORMATS[image_format], *_UNSPECIFIC_TYPES}:  # rule 2
        raise Problem(
            415,
            "image-type",
            f"The declared content type does not match the image, which is {_FORMATS[image_format]}",
        )
    end = _ENDS[image_format](data)
    if end is None:  # rule 4
        raise Problem(422, "image", "The image is truncated")
    if end < len(data):
        raise Problem(422, "image", f"Unexpected data after the end of the image ({len(data) - end} bytes)")
    try:
        return decode(data)  # rule 5
    except ImageError as error:
        raise Problem(422, "image", error.message) from error


def _identify(data: bytes, max_pixels: float) -> str:
    """The format (rules 1 and 3); reads only the header."""
    try:
        with Image.open(io.BytesIO(data), formats=list(_FORMATS)) as image:
            pixels = image.width * image.height
            image_format = str(image.format)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(max_pixels) from None
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        supported = ", ".join(_FORMATS.values())
        raise Problem(415, "image-type", f"Image format not supported (supported: {supported})") from error
    if pixels > max_pixels:
        raise _too_many_pixels(max_pixels)
    return image_format


def _too_many_pixels(max_pixels: float) -> Problem:
    return Problem(413, "image-size", f"The image exceeds the limit of {max_pixels / 1e6:g} million pixels")


def _png_end(data: bytes) -> int | None:
    """End of the chunk IEND (PNG specification, 5.3)."""
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        at += 12 + length
        if name == b"IEND":
            return at if at <= len(data) else None
    return None


def _jpeg_end(data: bytes) -> int | None:
    """End of the marker EOI (ITU-T T.81, B.1.1): skips segments, searches entropy-coded data for markers."""
    at = 2
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            return None
        at += 1
        marker = data[at]
        if marker == 0xFF:  # fill byte
            continue
        at += 1
        if marker == _EOI:
            return at
        if marker not in _STANDALONE:
            at += int.from_bytes(data[at : at + 2], "big")
        if marker == _SOS or marker in _STANDALONE:
            at = _next_marker(data, at)
    return None


def _next_marker(data: bytes, at: int) -> int:
    """End of entropy-coded data, in which every byte 0xFF that begins no marker is followed by 0."""
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1 and (
        data[at + 1] == 0 or data[at + 1] in _STANDALONE
    ):
        at += 2
    return at if at >= 0 else len(data)


def _webp_end(data: bytes) -> int | None:
    """End of the RIFF chunk (RFC 9649, 2.4), padded to an even length."""
    end = 8 + int.from_bytes(data[4:8], "little")
    end += end % 2
    return end if end <= len(data) else None


_ENDS: dict[str, Callable[[bytes], int | None]] = {"PNG": _png_end, "JPEG": _jpeg_end, "WEBP": _webp_end}
