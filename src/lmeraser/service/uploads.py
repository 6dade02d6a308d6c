"""Validation of uploaded images, before anything decodes them.

Rules, each with a problem of its own:
1. an upload is a PNG, JPEG or WebP file by its first bytes, whatever its name or declared type;
2. a declared type that is the type of something else is refused; an unusual one is not, content decides;
3. it has at most so many segments, chunks and scans: decoders visit each in turn, and all pixels for each scan;
   and few that reading a header unpacks;
4. it ends where the image ends: nothing is appended to it, but the further pictures of a multi-picture JPEG;
5. its header declares at most the permitted number of pixels; a small file may otherwise unpack to gigabytes;
6. it decodes completely.

`inspect_upload` enforces all but the last, in time proportional to the upload; `decode_inspected` decodes. Uploads
stay in memory and are never stored. Knows nothing about HTTP.
"""

from __future__ import annotations

import mimetypes
import re
import struct
from collections.abc import Callable

from PIL import Image

from lmeraser.data.images import Header, decode, read_header
from lmeraser.errors import ImageError
from lmeraser.service.problems import Problem

_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_UNSPECIFIC_TYPES = {"", "application/octet-stream", "binary/octet-stream", "image/*", "text/plain"}
_ALIASES = {
    "image/jpg": "image/jpeg",
    "image/pjpeg": "image/jpeg",
    "image/x-jpeg": "image/jpeg",
    "image/x-png": "image/png",
    "image/apng": "image/png",
}
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EOI = 0xD9  # JPEG markers (ITU-T T.81, table B.1): end of image
_SOS = 0xDA  # start of scan
_APP2 = 0xE2
_STANDALONE = {0x01, *range(0xD0, 0xD8)}  # without a length
_MARKER_AFTER_SCAN = re.compile(rb"\xff(?=[^\x00\x01\xd0-\xd7])")
_AFTER_FILL = re.compile(rb"[^\xff]")
_MULTI_PICTURE = b"MPF\0"
_PICTURE_ENTRIES = 0xB002  # of a multi-picture index
_MAX_FIELDS = 16  # that are read of one
_MAX_PICTURES = 16
_SHARE_OF_PIXELS = {"WEBP": 0.5}  # of the permitted ones: its decoder takes four times the memory of others
_MAX_SCANS = 32  # of a JPEG; encoders write about ten, and each costs a pass over all pixels
_MAX_SEGMENTS = 2000  # of a JPEG, or chunks of a PNG other than those of its pixels
_MAX_COMPRESSED = 8  # texts and colour profiles of a PNG, each of which reading its header unpacks to a megabyte
_MIN_CHUNK = 256  # mean size of the chunks of a PNG's pixels; encoders write 8 KiB and more


def inspect_upload(data: bytes, *, declared_type: str | None, max_pixels: float) -> Header:
    """The header of an upload; decodes no pixel.

    Args:
        data: the upload.
        declared_type: its content type, as declared by the caller.
        max_pixels: how many it may have.

    Raises:
        Problem: it violates a rule.
    """
    image_format = _identify(data)
    if _contradicts(declared_type, _FORMATS[image_format]):  # rule 2
        raise Problem(
            415,
            "image-type",
            f"The declared content type does not match the image, which is {_FORMATS[image_format]}",
        )
    end = _ENDS[image_format](data)  # rule 3
    if end is None:  # rule 4
        raise Problem(422, "image", "The image is truncated")
    if end < len(data):
        raise Problem(422, "image", f"Unexpected data after the end of the image ({len(data) - end} bytes)")
    return _read_header(data, image_format, max_pixels)


def decode_inspected(data: bytes) -> Image.Image:
    """The RGB image in an upload that `inspect_upload` has accepted.

    Raises:
        Problem: it does not decode (rule 6).
    """
    try:
        return decode(data)
    except ImageError as error:
        raise not_decoded(error) from error


def not_decoded(error: ImageError) -> Problem:
    """The problem of an upload that does not decode (rule 6)."""
    return Problem(422, "image", error.message)


def _identify(data: bytes) -> str:
    """The format, by the first bytes (rule 1)."""
    if data.startswith(_PNG_SIGNATURE):
        return "PNG"
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WEBP"
    raise _not_supported()


def _contradicts(declared: str | None, actual: str) -> bool:
    """Whether a declared content type is the type of something else."""
    essence = (declared or "").partition(";")[0].strip().lower()
    essence = _ALIASES.get(essence, essence)
    if essence == actual or essence in _UNSPECIFIC_TYPES or "/" not in essence:
        return False
    known = essence in _FORMATS.values() or _TYPES.guess_extension(essence) is not None
    return known or "*" in essence


_TYPES = mimetypes.MimeTypes()  # the standard ones, not those of this machine


def _read_header(data: bytes, image_format: str, max_pixels: float) -> Header:
    """Read the header, and nothing else (rule 5)."""
    try:
        header = read_header(data, [image_format])
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(max_pixels) from None
    except ImageError as error:
        if isinstance(error.__cause__, Image.DecompressionBombError):
            raise _too_many_pixels(max_pixels) from error
        raise _not_supported() from error
    most = max_pixels * _SHARE_OF_PIXELS.get(image_format, 1.0)
    if header.width * header.height > most:
        raise _too_many_pixels(most)
    return header


def _not_supported() -> Problem:
    return Problem(415, "image-type", f"Image format not supported (supported: {', '.join(_FORMATS.values())})")


def _too_elaborate(parts: str) -> Problem:
    return Problem(422, "image", f"The image has too many {parts}; save it again with an image editor")


def _too_many_pixels(max_pixels: float) -> Problem:
    return Problem(413, "image-size", f"The image exceeds the limit of {max_pixels / 1e6:g} million pixels")


def _png_end(data: bytes) -> int | None:
    """End of the chunk IEND (PNG specification, 5.3)."""
    at = len(_PNG_SIGNATURE)
    others = 0
    compressed = 0
    pixel_chunks = 0
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        at += 12 + length
        if name == b"IEND":
            return at if at <= len(data) else None
        if name in (b"IDAT", b"fdAT"):
            pixel_chunks += 1
        else:
            others += 1
            compressed += name in (b"zTXt", b"iTXt", b"iCCP")
        if compressed > _MAX_COMPRESSED:
            raise _too_elaborate("texts or colour profiles")
        if others > _MAX_SEGMENTS or pixel_chunks > _MAX_SEGMENTS + len(data) // _MIN_CHUNK:
            raise _too_elaborate("chunks")
    return None


def _jpeg_end(data: bytes) -> int | None:
    """End of the picture or, where an index says that there are more (CIPA DC-007, 5.2), of the last one."""
    end, index = _picture_end(data, 0)
    if end is None or index is None:
        return end
    for start in _further_pictures(data, index):
        if start < end or data[end:start].strip(b"\0") or data[start : start + 2] != b"\xff\xd8":
            return end  # what follows is no picture
        further, _ = _picture_end(data, start)
        if further is None:
            return None
        end = further
    return end


def _picture_end(data: bytes, start: int) -> tuple[int | None, int | None]:
    """Walk over one JPEG: skips segments, searches entropy-coded data for markers (ITU-T T.81, B.1.1).

    Returns:
        End of its marker EOI, None if it has none; and where the content of its multi-picture index begins, if it
        has one.
    """
    at = start + 2
    index = None
    segments = 0
    scans = 0
    while at + 2 <= len(data):
        if data[at] != 0xFF:
            return None, index
        after_fill = _AFTER_FILL.search(data, at)
        if after_fill is None:
            return None, index
        marker = data[after_fill.start()]
        at = after_fill.end()
        if marker == _EOI:
            return at, index
        segments += 1
        scans += marker == _SOS
        if segments > _MAX_SEGMENTS or scans > _MAX_SCANS:
            raise _too_elaborate("scans" if scans > _MAX_SCANS else "segments")
        if marker == _APP2 and data[at + 2 : at + 6] == _MULTI_PICTURE:
            index = at + 6
        if marker not in _STANDALONE:
            at += int.from_bytes(data[at : at + 2], "big")
        if marker == _SOS or marker in _STANDALONE:
            at = _next_marker(data, at)
    return None, index


def _further_pictures(data: bytes, index: int) -> list[int]:
    """Where the pictures after the first begin, by a multi-picture index; none if it is malformed."""
    order = "<" if data[index : index + 2] == b"II" else ">"
    try:
        (first,) = struct.unpack_from(f"{order}4xI", data, index)
        (fields,) = struct.unpack_from(f"{order}H", data, index + first)
        for field in range(min(fields, _MAX_FIELDS)):
            tag, _, size, at = struct.unpack_from(f"{order}HHII", data, index + first + 2 + 12 * field)
            if tag == _PICTURE_ENTRIES:
                entries = range(1, min(size // 16, _MAX_PICTURES))
                return [index + struct.unpack_from(f"{order}8xI", data, index + at + 16 * n)[0] for n in entries]
    except struct.error:
        pass
    return []


def _next_marker(data: bytes, at: int) -> int:
    """End of entropy-coded data, in which every byte 0xFF that begins no marker is followed by 0."""
    found = _MARKER_AFTER_SCAN.search(data, at)
    return found.start() if found is not None else len(data)


def _webp_end(data: bytes) -> int | None:
    """End of the RIFF chunk (RFC 9649, 2.4), padded to an even length."""
    end = 8 + int.from_bytes(data[4:8], "little")
    end += end % 2
    return end if end <= len(data) else None


_ENDS: dict[str, Callable[[bytes], int | None]] = {"PNG": _png_end, "JPEG": _jpeg_end, "WEBP": _webp_end}
