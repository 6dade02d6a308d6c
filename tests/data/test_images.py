"""Every usual kind of image file becomes RGB pixels, and every other one a clear error."""

from __future__ import annotations

import contextlib
import io
import random
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from conftest import examples, png
from lmeraser.data import images
from lmeraser.data.canvases import Canvases
from lmeraser.data.images import Header, decode, load_image, read_header
from lmeraser.errors import ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(data: bytes) -> Any:
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


def noise(height: int, width: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


# --- what is accepted --------------------------------------------------------------------------------------


def test_colours_come_back_as_they_are() -> None:
    array = noise(5, 7)
    np.testing.assert_array_equal(pixels(png(array)), array)


def test_grey_is_three_equal_channels() -> None:
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    np.testing.assert_array_equal(pixels(png(grey)), np.repeat(grey[..., None], 3, axis=2))


def test_one_bit_is_black_and_white() -> None:
    bits = Image.fromarray(np.array([[0, 255], [255, 0]], dtype=np.uint8)).convert("1")
    np.testing.assert_array_equal(pixels(encoded(bits))[..., 0], [[0, 255], [255, 0]])


def test_a_palette_is_looked_up() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    np.testing.assert_array_equal(pixels(encoded(image)), [[RED, BLUE]])


@pytest.mark.parametrize("transparency", [1, bytes([255, 0])])
def test_transparent_colours_of_a_palette_are_white(transparency: int | bytes) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    np.testing.assert_array_equal(pixels(encoded(image, transparency=transparency)), [[RED, WHITE]])


def test_a_transparent_colour_of_a_gif_is_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putdata([0, 1])
    np.testing.assert_array_equal(pixels(encoded(image, "GIF", transparency=1)), [[RED, WHITE]])


def test_transparent_pixels_lie_on_white() -> None:
    rgba = np.array([[(*RED, 255), (*RED, 0), (*BLUE, 51)]], dtype=np.uint8)
    np.testing.assert_array_equal(pixels(encoded(Image.fromarray(rgba))), [[RED, WHITE, (204, 204, 255)]])


def test_transparent_grey_lies_on_white() -> None:
    grey = Image.fromarray(np.array([[(10, 255), (10, 0)]], dtype=np.uint8), "LA")
    np.testing.assert_array_equal(pixels(encoded(grey))[0, :, 0], [10, 255])


def test_sixteen_bit_grey_is_scaled_not_clipped() -> None:
    values = np.array([[0, 256, 257, 32768, 65535]], dtype=np.uint16)
    data = encoded(Image.fromarray(values))
    np.testing.assert_array_equal(pixels(data)[0, :, 0], [0, 0, 1, 127, 255])


def test_integer_grey_beyond_sixteen_bits_is_refused() -> None:
    with pytest.raises(ImageError, match="grey values: 0 to 70000"):
        decode(encoded(Image.fromarray(np.array([[0, 70000]], dtype=np.int32)), "TIFF"))


def test_cmyk_becomes_rgb() -> None:
    jpeg = encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG", quality=95)
    np.testing.assert_allclose(pixels(jpeg)[4, 4], RED, atol=6)


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (3, 2), (6, 3), (8, 1)])
def test_the_camera_orientation_is_applied(orientation: int, turns: int) -> None:
    array = np.zeros((2, 3, 3), dtype=np.uint8)
    array[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(Image.fromarray(array), exif=exif)
    np.testing.assert_array_equal(pixels(data), np.rot90(array, turns))


@pytest.mark.parametrize("kind", ["BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP"])
def test_usual_formats_are_read(kind: str) -> None:
    data = encoded(Image.new("RGB", (8, 8), RED), kind)
    np.testing.assert_allclose(pixels(data)[4, 4], RED, atol=6)


def test_of_several_pictures_the_first_is_taken() -> None:
    first, second = Image.new("RGB", (8, 8), RED), Image.new("RGB", (8, 8), BLUE)
    photo = encoded(first, "MPO", save_all=True, append_images=[second])
    np.testing.assert_array_equal(pixels(photo), pixels(encoded(first, "JPEG")))


def photo(kind: str, **options: Any) -> bytes:
    """A photo taken with the camera turned, with all sorts of metadata beside the orientation."""
    exif = Image.Exif()
    exif[0x010F] = "a maker of cameras"  # before the orientation in the directory
    exif[0x0112] = 6
    exif[0x0132] = "2026:01:31 12:00:00"
    exif.get_ifd(0x8769)[0x927C] = b"FUJIFILM" + bytes(40)
    return encoded(Image.fromarray(noise(8, 10)), kind, exif=exif, **options)


def odd_texts() -> PngInfo:
    texts = PngInfo()
    texts.add_text("Workflow", "x" * 1_200_000, zip=True)
    texts.add_itxt("Prompt", "y" * 1_200_000, zip=True)
    return texts


TURNED = [
    ("JPEG", {"icc_profile": bytes(300), "comment": b"hello"}),
    ("MPO", {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}),
    ("PNG", {"icc_profile": bytes(300), "pnginfo": odd_texts()}),
    ("WEBP", {"lossless": True}),
]


@pytest.mark.parametrize(("kind", "options"), TURNED)
def test_metadata_beside_the_orientation_do_not_matter(kind: str, options: dict[str, Any]) -> None:
    """Bytes are changed in all that describes the picture, but not in what it consists of."""
    upright = np.rot90(
        pixels(encoded(Image.fromarray(noise(8, 10)), kind.replace("MPO", "JPEG"), lossless=True)), 3
    )
    data = photo(kind, **options)
    np.testing.assert_array_equal(pixels(data), upright)
    rng = random.Random(kind)
    for name, start, end in described(data):
        for _ in range(12):
            damaged = bytearray(data)
            for _ in range(rng.randint(1, 4)):
                damaged[rng.randrange(start, end)] = rng.choice([0, 255, rng.randrange(256)])
            found = pixels(bytes(damaged))
            if name != "exif":
                np.testing.assert_array_equal(found, upright)


def described(data: bytes) -> Iterator[tuple[str, int, int]]:
    """Where the metadata of a PNG, JPEG or WebP file lie: name, start, end."""
    if data.startswith(b"RIFF"):
        yield "exif", data.index(b"EXIF") + 8, len(data)
        return
    png_file = data.startswith(b"\x89PNG")
    at = 8 if png_file else 2
    while at + 4 < len(data) and (png_file or data[at + 1] != 0xDA):
        length = int.from_bytes(data[at : at + 4] if png_file else data[at + 2 : at + 4], "big")
        start, end = (at + 8, at + 8 + length) if png_file else (at + 4, at + 2 + length)
        if data[at + 4 : at + 5].islower() if png_file else 0xE0 <= data[at + 1] <= 0xEF or data[at + 1] == 0xFE:
            yield "exif" if b"maker of cameras" in data[start:end] else "other", start, end
        at = end + 4 if png_file else end


def test_an_orientation_beside_a_tag_that_leads_nowhere_is_applied() -> None:
    data = bytearray(photo("JPEG"))
    maker = data.index(bytes.fromhex("010f0002"))
    data[maker + 8 : maker + 12] = b"\xff\xff\xff\xf0"  # the text lies beyond the end of the metadata
    assert decode(bytes(data)).size == (8, 10)


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "1"])
def test_large_images_are_converted_in_bands(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(Image.fromarray(noise(50, 31)).convert(mode), "TIFF")
    whole = pixels(data)
    monkeypatch.setattr(images, "_BAND", 100)
    np.testing.assert_array_equal(pixels(data), whole)


def test_large_transparent_and_sixteen_bit_images_are_converted_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        encoded(Image.fromarray(np.dstack([noise(50, 31), noise(50, 31, 1)[..., :1]]))),
        encoded(Image.fromarray(noise(50, 31)).quantize(8), transparency=3),
        encoded(Image.fromarray(noise(50, 31)[..., 0].astype(np.uint16) * 257)),
    ]
    whole = [pixels(data) for data in files]
    monkeypatch.setattr(images, "_BAND", 100)
    for data, expected in zip(files, whole, strict=True):
        np.testing.assert_array_equal(pixels(data), expected)


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"not an image", b"\x89PNG\r\n\x1a\n", b"GIF89a"])
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(ImageError, match="PNG or JPEG"):
        decode(data)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n showpage\n%%EOF\n"


@pytest.mark.parametrize(
    "data", [EPS, encoded(Image.new("RGB", (8, 8)), "ICO"), encoded(Image.new("L", (8, 8)), "PCX")]
)
def test_formats_that_are_not_listed_are_refused_unopened(data: bytes) -> None:
    with pytest.raises(ImageError, match="unknown format"):
        decode(data)


@pytest.mark.parametrize("kind", ["ICO", "PCX"])
def test_formats_that_version_0_1_imported_are_decoded_where_they_are_held(kind: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(pixels), kind)
    np.testing.assert_array_equal(np.asarray(decode(data, held=True)), pixels)
    np.testing.assert_array_equal(np.asarray(load_image(data)), pixels)
    canvases = Canvases(["r"], lambda ids: [data for _ in ids], side=16, budget=0)
    np.testing.assert_array_equal(canvases[[0]][0], pixels)
    with pytest.raises(ImageError, match="unknown format"):
        decode(EPS, held=True)


def test_text_that_unpacks_to_gigabytes_is_refused() -> None:
    texts = PngInfo()
    texts.add(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(65 << 20), 1))
    with pytest.raises(ImageError):
        decode(encoded(Image.new("RGB", (8, 8)), pnginfo=texts))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP"])
@pytest.mark.parametrize("part", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(kind: str, part: float) -> None:
    data = encoded(Image.fromarray(noise(40, 40)), kind)
    with pytest.raises(ImageError):
        decode(data[: int(len(data) * part)])


def test_a_damaged_file_is_refused() -> None:
    data = bytearray(png(noise(40, 40)))
    data[len(data) // 2] ^= 255
    with pytest.raises(ImageError):
        decode(bytes(data))


@settings(examples(fast=20, explore=60))
@given(st.data())
def test_a_changed_file_decodes_or_is_an_image_error(data: st.DataObject) -> None:
    file = bytearray(
        encoded(Image.fromarray(noise(6, 6)), data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "BMP"])))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        file[data.draw(st.integers(0, len(file) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(ImageError):
        assert decode(bytes(file)).mode == "RGB"


def test_floating_point_pixels_are_refused() -> None:
    with pytest.raises(ImageError, match="floating-point pixels"):
        decode(encoded(Image.fromarray(np.zeros((4, 4), dtype=np.float32)), "TIFF"))


@pytest.mark.parametrize("side", [11, 100])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_too_many_pixels_are_refused(monkeypatch: pytest.MonkeyPatch, side: int) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(png(np.zeros((10, 10)))).size == (10, 10)
    with pytest.raises(ImageError, match="pixels"):
        decode(png(np.zeros((side, side))))


def test_pixels_are_counted_before_they_are_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images, "_load", None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)
    assert read_header(png(np.zeros((6, 7)))) == Header("PNG", 7, 6)
    with pytest.raises(ImageError, match="more than 50 pixels"):
        decode(png(np.zeros((7, 8))))
