"""Hostile uploads are refused with a problem that says why, and images of all kinds of cameras are taken."""

from __future__ import annotations

import io
import struct
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lmeraser.data.images import decode
from lmeraser.service.problems import Problem
from lmeraser.service.uploads import decode_inspected, inspect_upload

MOST = 1_000_000
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)


def saved(kind: str, image: Image.Image | None = None, **options: object) -> bytes:
    buffer = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(buffer, kind, **options)
    return buffer.getvalue()


def thumbnail() -> bytes:
    """EXIF data that holds a whole JPEG, as cameras write it."""
    small = saved("JPEG", Image.fromarray(PIXELS[:8, :8]))
    entries = struct.pack("<2sHIH", b"II", 42, 8, 0) + struct.pack("<I", 14)
    first = struct.pack("<H", 2)
    start = 14 + 2 + 2 * 12 + 4
    first += struct.pack("<HHII", 0x0201, 4, 1, start) + struct.pack("<HHII", 0x0202, 4, 1, len(small))
    return b"Exif\0\0" + entries + first + struct.pack("<I", 0) + small


GOOD: dict[str, bytes] = {
    "png": saved("PNG"),
    "palette": saved("PNG", Image.fromarray(PIXELS).quantize(8)),
    "transparent": saved("PNG", Image.fromarray(np.dstack([PIXELS, PIXELS[..., :1]]))),
    "jpeg": saved("JPEG"),
    "progressive": saved("JPEG", progressive=True, quality=60),
    "grey": saved("JPEG", Image.fromarray(PIXELS).convert("L")),
    "cmyk": saved("JPEG", Image.fromarray(PIXELS).convert("CMYK")),
    "thumbnail": saved("JPEG", exif=thumbnail()),
    "restarts": saved("JPEG", restart_marker_blocks=1),
    "two pictures": saved("MPO", save_all=True, append_images=[Image.fromarray(PIXELS[:8])]),
    "webp": saved("WEBP"),
    "lossless": saved("WEBP", lossless=True),
}
_PNG, _WEBP = ("png", "palette", "transparent"), ("webp", "lossless")
TYPES = {n: "image/png" if n in _PNG else "image/webp" if n in _WEBP else "image/jpeg" for n in GOOD}


def decode_upload(data: bytes, *, declared_type: str | None, max_pixels: float) -> Image.Image:
    inspect_upload(data, declared_type=declared_type, max_pixels=max_pixels)
    return decode_inspected(data)


def refused(data: bytes, stated: str | None = None) -> Problem:
    with pytest.raises(Problem) as caught:
        decode_upload(data, declared_type=stated, max_pixels=MOST)
    assert 400 <= caught.value.status < 500
    assert len(caught.value.detail) > 10
    return caught.value


def refused_with(data: bytes, max_pixels: float) -> Problem:
    with pytest.raises(Problem) as caught:
        decode_upload(data, declared_type=None, max_pixels=max_pixels)
    return caught.value


@pytest.mark.parametrize("name", GOOD)
def test_images_are_taken(name: str) -> None:
    for stated in (None, "", "application/octet-stream", TYPES[name], TYPES[name].upper() + "; charset=utf-8"):
        found = decode_upload(GOOD[name], declared_type=stated, max_pixels=MOST)
        np.testing.assert_array_equal(np.asarray(found), np.asarray(decode(GOOD[name])))


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("tail", [b"\0", b"<script>", b"PK\x03\x04"])
def test_nothing_may_follow_an_image(name: str, tail: bytes) -> None:
    assert "after the end of the image" in refused(GOOD[name] + tail).detail


@pytest.mark.parametrize("name", GOOD)
def test_an_archive_that_is_an_image_as_well_is_refused(name: str) -> None:
    buffer = io.BytesIO(GOOD[name])
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("evil.html", "<script>")
    assert zipfile.is_zipfile(io.BytesIO(buffer.getvalue()))
    assert "after the end of the image" in refused(buffer.getvalue()).detail


@pytest.mark.parametrize("name", GOOD)
@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.99])
def test_an_image_that_is_cut_off_is_refused(name: str, share: float) -> None:
    refused(GOOD[name][: int(len(GOOD[name]) * share)])
    refused(GOOD[name][:-1])


@pytest.mark.parametrize("name", GOOD)
def test_another_type_than_the_stated_one_is_refused(name: str) -> None:
    others = {"image/png", "image/jpeg", "image/webp", "text/html", "image/gif", "*/*"} - {TYPES[name]}
    for stated in others:
        problem = refused(GOOD[name], stated)
        assert (problem.status, TYPES[name] in problem.detail) == (415, True)


@pytest.mark.parametrize(
    "stated",
    [
        "image/jpg",
        "IMAGE/PJPEG",
        "image/x-jpeg",
        "binary/octet-stream",
        "image/*",
        "text/plain",
        "photo",
        "image/mpo",
    ],
)
def test_a_type_that_is_merely_unusual_is_no_reason_to_refuse(stated: str) -> None:
    for name in ("jpeg", "two pictures"):
        assert decode_upload(GOOD[name], declared_type=stated, max_pixels=MOST).size == (30, 40)
    if stated.lower() in ("image/jpg", "image/pjpeg", "image/x-jpeg"):
        assert refused(GOOD["png"], stated).status == 415


def test_a_picture_may_follow_only_where_the_file_says_so() -> None:
    aligned = GOOD["two pictures"][: len(GOOD["jpeg"])]
    assert "after the end of the image" in refused(GOOD["jpeg"] + GOOD["jpeg"]).detail
    assert aligned  # the first picture alone is cut off from what the index names, but complete
    assert "after the end of the image" in refused(GOOD["two pictures"] + b"PK\x03\x04").detail


FOREIGN: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"hello",
    "html": lambda: b"<html><script>alert(1)</script></html>",
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "gif": lambda: saved("GIF"),
    "bmp": lambda: saved("BMP"),
    "tiff": lambda: saved("TIFF"),
    "pdf": lambda: saved("PDF"),
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    "zip": lambda: b"PK\x03\x04" + bytes(30),
    "pickle": lambda: b"\x80\x04cos\nsystem\n",
    "signature only": lambda: b"\x89PNG\r\n\x1a\n",
    "two bytes": lambda: b"\xff\xd8",
}


@pytest.mark.parametrize("name", FOREIGN)
def test_other_files_are_refused(name: str) -> None:
    assert refused(FOREIGN[name]()).status in (415, 422)


def png_of(width: int, height: int) -> bytes:
    """A PNG whose header promises a size, and whose data are zeros, tightly packed."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(min((width + 7) // 8 + 1, 2**16) * min(height, 64)), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(1001, 1000), (20000, 20000), (2**31 - 1, 1), (60000, 60000)])
def test_a_small_file_that_unpacks_to_many_pixels_is_refused_by_its_header(width: int, height: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        assert refused(png_of(width, height)).status in (413, 415)
    assert refused(png_of(1001, 1000)).status == 413


def with_scans(count: int) -> bytes:
    """A progressive JPEG whose last scan is repeated."""
    scan = GOOD["progressive"][GOOD["progressive"].rfind(b"\xff\xda") : -2]
    return GOOD["progressive"][:-2] + scan * count + b"\xff\xd9"


def with_chunks(count: int) -> bytes:
    """A PNG with empty private chunks."""
    chunk = bytes(4) + b"prVt" + struct.pack(">I", zlib.crc32(b"prVt"))
    return GOOD["png"][:33] + chunk * count + GOOD["png"][33:]


def with_profiles(count: int) -> bytes:
    """A PNG with colour profiles, each of which unpacks to a megabyte when its header is read."""
    body = b"iCCP" + b"name\0\0" + zlib.compress(bytes(1 << 20), 9)
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    return GOOD["png"][:33] + chunk * count + GOOD["png"][33:]


def with_segments(count: int) -> bytes:
    """A JPEG with empty comments."""
    return GOOD["jpeg"][:2] + b"\xff\xfe\0\2" * count + GOOD["jpeg"][2:]


@pytest.mark.parametrize(
    ("few", "many", "word"),
    [
        (with_scans(15), with_scans(400), "scans"),
        (with_chunks(100), with_chunks(1 << 16), "chunks"),
        (with_segments(100), with_segments(1 << 18), "segments"),
        (with_profiles(1), with_profiles(1900), "texts or colour profiles"),
    ],
    ids=["scans", "chunks", "segments", "profiles"],
)
def test_an_image_of_very_many_parts_is_refused_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch, few: bytes, many: bytes, word: str
) -> None:
    assert decode_upload(few, declared_type=None, max_pixels=MOST).size == (30, 40)
    monkeypatch.setattr(Image, "open", None)
    assert f"too many {word}" in refused(many).detail


def test_the_end_of_an_image_is_found_in_time_proportional_to_it() -> None:
    """Bytes between which a search by single bytes would stop at each."""
    for filler in (b"\xff\0", b"\xff\xd0", b"\xff"):
        started = time.perf_counter()
        refused(GOOD["jpeg"][:-2] + filler * (4 << 20))
        assert time.perf_counter() - started < 2.0


def test_a_webp_may_have_half_the_pixels_because_its_decoder_takes_more_memory() -> None:
    assert decode_upload(GOOD["webp"], declared_type=None, max_pixels=2400).size == (30, 40)
    assert "0.0011995 million" in refused_with(GOOD["webp"], 2399).detail
    assert decode_upload(GOOD["jpeg"], declared_type=None, max_pixels=1200).size == (30, 40)


def test_text_that_unpacks_to_gigabytes_is_refused() -> None:
    data = zlib.compress(bytes(80 << 20), 9)
    body = b"zTXt" + b"key\0\0" + data
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    bomb = GOOD["png"][:33] + chunk + GOOD["png"][33:]
    assert len(bomb) < 1 << 20
    refused(bomb)


@given(st.data())
def test_damaged_images_are_taken_or_refused_and_nothing_else_happens(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(GOOD)))
    damaged = bytearray(GOOD[name])
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        status = 200
        try:
            decode_upload(bytes(damaged), declared_type=None, max_pixels=MOST)
        except Problem as problem:
            status = problem.status
        assert status < 500


@given(st.binary(max_size=200))
def test_bytes_are_no_image(data: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        refused(data)
        for start in (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"RIFF\x10\0\0\0WEBPVP8 "):
            refused(start + data)
