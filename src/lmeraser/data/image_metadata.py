"""Metadata of image files, read as far as they change what is seen, and taken out where they cannot be read.

They come from anywhere: damaged, odd, or so large when unpacked that they are an attack. `images` decodes with
them if it can, and without them otherwise.
"""

from __future__ import annotations

import struct
import zlib

ORIENTATION = 0x0112  # the tag; EXIF 2.32, 4.6.4

_EXIF = b"Exif\0\0"  # begins EXIF data
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_KEPT = (b"tRNS", b"eXIf")  # ancillary chunks that change what is seen: transparency and orientation
_MOST_TEXT = 64 << 20  # bytes of unpacked text in a PNG; more is no text but an attack
_APP1 = 0xE1  # JPEG marker of EXIF data and XMP
_JPEG_DROPPED = {*range(0xE2, 0xEE), 0xEF, 0xFE}  # APP2 to APP13, APP15, comments; not JFIF, APP1 and Adobe's


def orientation_tag(exif: object) -> int:
    """The orientation in the first directory of EXIF data, whatever else is in them."""
    if not isinstance(exif, bytes):
        return 1
    tiff = exif.removeprefix(_EXIF)
    order = "<" if tiff.startswith(b"II") else ">"
    try:
        (start,) = struct.unpack_from(f"{order}4xI", tiff)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for entry in range(count):
            tag, kind, values, value = struct.unpack_from(f"{order}HHIH", tiff, start + 2 + 12 * entry)
            if (tag, kind, values) == (ORIENTATION, 3, 1):
                return int(value)
    except struct.error:
        pass
    return 1


def without_metadata(data: bytes) -> bytes | None:
    """An image file without what its pixels do not depend on; orientation and transparency stay.

    Args:
        data: of the file.

    Returns:
        The smaller file; None if it is neither PNG nor JPEG, has no such metadata, or more than is plausible.
    """
    if data.startswith(_PNG_SIGNATURE):
        core = _png_core(data)
    elif data.startswith(b"\xff\xd8"):
        core = _jpeg_core(data)
    else:
        return None
    return None if core == data else core


def _png_core(data: bytes) -> bytes | None:
    """The critical chunks (PNG specification, 5.4) and those in `_PNG_KEPT`."""
    kept = [_PNG_SIGNATURE]
    text = 0
    at = len(_PNG_SIGNATURE)
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8]
        intact = zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")
        if name[0] & 0x20 and not (name in _PNG_KEPT and intact):
            text += _unpacked_size(name, data[at + 8 : end - 4], _MOST_TEXT - text)
            if text >= _MOST_TEXT:
                return None
        else:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])


def _unpacked_size(name: bytes, chunk: bytes, most: int) -> int:
    """Size of the text in a PNG chunk, bytes; at most about ``most``."""
    keyword, _, rest = chunk.partition(b"\0")
    if name == b"iTXt" and rest[:1] == b"\1":
        rest = rest[1:].partition(b"\0")[2].partition(b"\0")[2]
    elif name == b"zTXt":
        rest = rest[1:]
    else:
        return len(chunk)
    try:
        return len(keyword) + len(zlib.decompressobj().decompress(rest, most))
    except zlib.error:
        return len(chunk)


def _jpeg_core(data: bytes) -> bytes | None:
    """The segments before the first scan without those in `_JPEG_DROPPED`, and everything from the scan on."""
    kept = [data[:2]]
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        if data[at + 1] == 0xFF:  # fill byte
            at += 1
            continue
        if data[at + 1] == 0xDA:  # start of scan
            return b"".join([*kept, data[at:]])
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        content = data[at + 4 : end]
        if data[at + 1] == _APP1 and content.startswith(_EXIF):
            kept.append(_exif_segment(orientation_tag(content)))
        elif data[at + 1] not in _JPEG_DROPPED:
            kept.append(data[at:end])
        at = end
    return None


def _exif_segment(orientation: int) -> bytes:
    """A JPEG segment with EXIF data that hold an orientation and nothing else."""
    directory = struct.pack(">HHHIHxxI", 1, ORIENTATION, 3, 1, orientation, 0)
    content = _EXIF + b"MM\0\x2a" + (8).to_bytes(4, "big") + directory
    return struct.pack(">BBH", 0xFF, _APP1, 2 + len(content)) + content
