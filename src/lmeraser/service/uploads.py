"""Images that strangers send: what they may be, looked at before anything decodes them.

Rules, each with its own problem:
1. an upload is a PNG, JPEG or WebP file by its first bytes, whatever its name or stated type;
2. a stated type, if there is one, is that type: a file with two faces is refused;
3. its header names at most so many pixels; a small file may unpack to gigabytes otherwise;
4. it ends where the image ends: nothing is hidden behind it;
5. it decodes completely.

Uploads stay in memory and are never stored. Follows `images`; knows nothing about HTTP.
"""

from __future__ import annotations

import io
from collections.abc import Callable

from PIL import Image, UnidentifiedImageError

from lmeraser.data.images import decode
from lmeraser.errors import ImageError
from lmeraser.service.problems import Problem

_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_ANY = {"", "application/octet-stream"}  # stated by programs that do not know better
_PNG_SIGNATURE, _SOI, _EOI, _SOS = b"\x89PNG\r\n\x1a\n", 0xD8, 0xD9, 0xDA
_ALONE = {0x01, *range(0xD0, 0xD8)}  # JPEG markers without length


def one_image(data: bytes, *, stated: str | None, most_pixels: float) -> Image.Image:
    """The RGB image in an upload.

    Args:
        data: the upload.
        stated: its content type, as the caller says.
        most_pixels: how many it may have.

    Raises:
        Problem: it breaks a rule.
    """
    kind = _kind(data, most_pixels)
    if (stated or "").partition(";")[0].strip().lower() not in {_FORMATS[kind], *_ANY}:  # rule 2
        raise Problem(415, "image-type", f"An image has the type that is stated; this is {_FORMATS[kind]}.")
    end = _ENDS[kind](data)
    if end is None or end < len(data):  # rule 4
        what = "it is cut off" if end is None else f"{len(data) - end} bytes follow its end"
        raise Problem(422, "image", f"An upload is one whole image and nothing else; {what}.")
    try:
        return decode(data)  # rule 5
    except ImageError as error:
        raise Problem(422, "image", error.message) from error


def _kind(data: bytes, most_pixels: float) -> str:
    """The format (rules 1 and 3); only the header is read."""
    try:
        with Image.open(io.BytesIO(data), formats=list(_FORMATS)) as image:
            width, height, kind = *image.size, str(image.format)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        width, height, kind = 2**31, 2**31, "PNG"
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise Problem(415, "image-type", f"An image is one of {', '.join(_FORMATS.values())}.") from error
    if width * height > most_pixels:
        raise Problem(413, "image-size", f"An image has at most {most_pixels / 1e6:g} million pixels.")
    return kind


def _png_end(data: bytes) -> int | None:
    """After the chunk IEND (PNG specification, 5.3)."""
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        length, name = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        at += 12 + length
        if name == b"IEND":
            return at if at <= len(data) else None
    return None


def _jpeg_end(data: bytes) -> int | None:
    """After the marker EOI (ITU-T T.81, B.1.1): segments are passed over, coded data is searched for markers."""
    at = 2
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            return None
        marker, at = data[at + 1], at + 1
        if marker == 0xFF:  # fill byte
            continue
        at += 1
        if marker == _EOI:
            return at
        if marker not in _ALONE:
            at += int.from_bytes(data[at : at + 2], "big")
        if marker == _SOS or marker in _ALONE:
            at = _next_marker(data, at)
    return None


def _next_marker(data: bytes, at: int) -> int:
    """Where coded data ends; in it, 0 follows every byte 255 that begins no marker."""
    while 0 <= (at := data.find(b"\xff", at)) < len(data) - 1 and (data[at + 1] == 0 or data[at + 1] in _ALONE):
        at += 2
    return at if at >= 0 else len(data)


def _webp_end(data: bytes) -> int | None:
    """After the RIFF chunk (RFC 9649, 2.4), which is of even length."""
    end = 8 + int.from_bytes(data[4:8], "little")
    end += end % 2
    return end if end <= len(data) else None


_ENDS: dict[str, Callable[[bytes], int | None]] = {"PNG": _png_end, "JPEG": _jpeg_end, "WEBP": _webp_end}
