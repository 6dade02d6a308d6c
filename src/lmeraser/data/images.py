"""Decoding of images: from the bytes of a file to RGB pixels.

Images are decoded here and nowhere else, so that import, training, prediction and audit see the same pixels; what
a backbone sees of them is in `canvases`. Nothing is normalised with statistics of private data. Must not depend on
torch.

Rules for files from anywhere:
1. only `FORMATS` are opened, by their content; Pillow hands other formats to external programs. What a workspace
   already holds may also be in the further `HELD_FORMATS`, which version 0.1 imported;
2. the number of pixels is read in the header and limited, before any of them is decoded;
3. metadata never decide whether a photo is complete: what cannot be read beside the pixels is passed over.
"""

from __future__ import annotations

import contextlib
import functools
import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import PIL.ImageFile
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from lmeraser.data.image_metadata import ORIENTATION, orientation_tag, without_metadata
from lmeraser.errors import ImageError, InputError

T = TypeVar("T")

ImageFile = str | os.PathLike[str] | bytes  # the path of an image file, or its content

# Pillow knows more, and hands some to external programs (EPS to Ghostscript). All of these are decoded inside this
# process.
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",  # and MPO, a JPEG file with further pictures; the first one counts
    "JPEG2000",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
    "TGA",  # last, because it has no signature
)

# Version 0.1 imported these as well, and workspaces have records of them. Pillow decodes them inside this process.
HELD_FORMATS = (*FORMATS[:-1], "ICO", "PCX", FORMATS[-1])

_NEXT_STEP = "replace the file by a PNG or JPEG that an image viewer opens"
_BAND = 1 << 20  # pixels that are converted at once, so that converting takes little memory beside the image
_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes, *, held: bool = False) -> Image.Image:
    """Decode the bytes of an image file to RGB.

    Grey, palette, CMYK and 1-bit images become RGB; transparent pixels are blended with white; 16-bit grey is
    scaled to 8 bits; the EXIF orientation is applied. Of several pictures in a file, the first is taken. Other
    metadata do not matter: a photo whose metadata are damaged, odd or long is decoded as if it had none.

    Args:
        data: the bytes of the file.
        held: it is a record's payload, so `HELD_FORMATS` are decoded.

    Raises:
        ImageError: the bytes are not an image of one of these formats or are truncated, or the image has more
            pixels than Pillow's limit, which is checked before any of them is decoded.
    """
    return _despite_metadata(_decode_held if held else _decode, data)


@dataclass(frozen=True, slots=True)
class Header:
    """What an image file says about itself before its pixels.

    Attributes:
        format: one of `FORMATS`.
        width: px.
        height: px.
    """

    format: str
    width: int
    height: int


def read_header(data: bytes, formats: Sequence[str] = FORMATS) -> Header:
    """Read the header of an image file; no pixel is decoded.

    Args:
        data: the bytes of the file.
        formats: those that are recognised, of `FORMATS`.

    Raises:
        ImageError: the bytes are not an image of one of these formats.
    """

    def read(data: bytes) -> Header:
        with _image_errors(data), _open(data, formats) as image:
            image_format = "JPEG" if image.format == "MPO" else image.format
            if image_format is None or image_format not in formats:
                raise UnidentifiedImageError(str(image_format))
            return Header(image_format, image.width, image.height)

    return _despite_metadata(read, data)


def _despite_metadata(read: Callable[[bytes], T], data: bytes) -> T:
    """Read an image file or, if that fails, what is left of it without metadata."""
    try:
        return read(data)
    except ImageError as error:
        core = without_metadata(data)
        if core is None:
            raise
        try:
            return read(core)
        except ImageError:
            raise error from error.__cause__  # about the file as it is


def _decode_held(data: bytes) -> Image.Image:
    return _decode(data, HELD_FORMATS)


def _decode(data: bytes, formats: Sequence[str] = FORMATS) -> Image.Image:
    with _image_errors(data):
        image = _open(data, formats)
        _check_size(image)
        _load(image)
        return _rgb(_upright(image))


@contextlib.contextmanager
def _image_errors(data: bytes) -> Iterator[None]:
    """Turn whatever Pillow's decoders raise into an `ImageError`."""
    try:
        yield
    except UnidentifiedImageError as error:
        raise ImageError(
            "Not an image file", got=f"{len(data)} bytes in an unknown format", next_step=_NEXT_STEP
        ) from error
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_many_pixels(str(error)) from error
    except Exception as error:  # OSError, SyntaxError, struct.error, ValueError...
        raise ImageError(
            "Cannot decode image", got=str(error) or type(error).__name__, next_step=_NEXT_STEP
        ) from error


def _open(data: bytes, formats: Sequence[str]) -> Image.Image:
    """Read the header."""
    return Image.open(io.BytesIO(data), formats=[name for name in formats if name in _available_formats()])


@functools.cache
def _available_formats() -> frozenset[str]:
    """Those of `HELD_FORMATS` that this version of Pillow knows."""
    Image.init()
    return frozenset(HELD_FORMATS) & set(Image.OPEN)


def _load(image: Image.Image) -> None:
    """Decode the pixels."""
    if isinstance(image, TiffImageFile):
        # A TIFF file is turned upright at the end of loading, when its pixels are complete; what fails there are
        # metadata. `_upright` applies the orientation if that was not done yet.
        finish = image.load_end

        def load_end() -> None:
            with contextlib.suppress(Exception):
                finish()

        image.load_end = load_end  # type: ignore[method-assign]
    image.load()


def _upright(image: Image.Image) -> Image.Image:
    """Apply the orientation that the metadata state.

    `PIL.ImageOps.exif_transpose` does the same, but also rewrites all other metadata, which fails if they are odd.
    """
    try:
        method = _TRANSPOSED.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # metadata that Pillow does not understand, or a warning that is treated as an error
        method = _TRANSPOSED.get(orientation_tag(image.info.get("exif")))
    return image if method is None else image.transpose(method)


def _check_size(image: Image.Image) -> None:
    limit = Image.MAX_IMAGE_PIXELS
    if limit is not None and image.width * image.height > limit:
        raise _too_many_pixels(f"{image.width} x {image.height}")


def _too_many_pixels(got: str) -> ImageError:
    return ImageError(
        f"Image has more than {Image.MAX_IMAGE_PIXELS} pixels", got=got, next_step="scale the image down"
    )


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise ImageError("Unsupported pixel format", got="floating-point pixels (mode F)", next_step=_NEXT_STEP)
    if image.mode in _SIXTEEN_BIT:
        convert = _from_16_bit
        _check_grey_values(image)
    else:
        convert = _on_white if image.has_transparency_data else _to_rgb
    width, height = image.size
    rows = max(1, _BAND // max(1, width))
    if height <= rows:
        return convert(image)
    result = Image.new("RGB", image.size)
    for top in range(0, height, rows):
        result.paste(convert(image.crop((0, top, width, min(height, top + rows)))), (0, top))
    return result


_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I")


def _to_rgb(image: Image.Image) -> Image.Image:
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _from_16_bit(image: Image.Image) -> Image.Image:
    """Scale 16-bit grey to 8 bits; Pillow's own conversion would clip everything above 255 to white."""
    return Image.fromarray((np.asarray(image).astype(np.int64) // 257).astype(np.uint8)).convert("RGB")


def _check_grey_values(image: Image.Image) -> None:
    values = np.asarray(image)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            "Unsupported range of grey values",
            got=f"{values.min()} to {values.max()} (possible are 0 to 65535)",
            next_step=_NEXT_STEP,
        )


def _from_memory(image: Image.Image) -> Image.Image:
    with _image_errors(b""):
        if isinstance(image, PIL.ImageFile.ImageFile):
            _check_size(image)
            _load(image)
            return _rgb(_upright(image))
        return image if image.mode == "RGB" else _rgb(image)


def _from_array(pixels: NDArray[Any]) -> Image.Image:
    if pixels.dtype != np.uint8 or pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (3,), (4,)):
        raise ImageError(
            "Unsupported array of pixels",
            got=f"{pixels.dtype} {list(pixels.shape)}",
            next_step="give uint8 values from 0 to 255, [height, width] or [height, width, 3 or 4]",
        )
    if pixels.size == 0:
        raise ImageError("Image has no pixels", got=f"an array {list(pixels.shape)}", next_step="give an image")
    return Image.fromarray(np.ascontiguousarray(pixels))


def is_in_memory(value: object) -> bool:
    """Whether a value is an image of Pillow, or an array that may be one."""
    return isinstance(value, Image.Image | np.ndarray)


def as_file(image: Image.Image | NDArray[Any]) -> bytes:
    """The bytes of an image file for an image that is in memory, where nobody knows which file it came from.

    They are a binary PPM (P6) of the RGB pixels that `load_image` gives: a function of the pixels alone, whichever
    libraries are installed, so that the same picture is recognised later; how a PNG is compressed depends on them.

    Args:
        image: an image of Pillow in any mode, or an array as of `load_image`.

    Raises:
        ImageError: it cannot be an image.
    """
    rgb = load_image(image)
    return b"P6\n%d %d\n255\n" % rgb.size + rgb.tobytes()


def load_image(image: ImageFile | Image.Image | NDArray[Any]) -> Image.Image:
    """An RGB image from an image file, or from an image in memory.

    An image that Pillow has opened is decoded like its file. Any other stays upright as it is and becomes RGB.

    Args:
        image: path of a file or its bytes; an image of Pillow in any mode; or an array, uint8 [h, w] (grey),
            [h, w, 3] (RGB) or [h, w, 4] (RGBA).

    Raises:
        InputError: the file cannot be read, or this is no image at all.
        ImageError: it cannot be decoded; names the path, if there is one.
    """
    if isinstance(image, np.ndarray):
        image = _from_array(image)
    if isinstance(image, Image.Image):
        return _from_memory(image)
    if isinstance(image, bytes | bytearray | memoryview):
        return decode(bytes(image), held=True)  # records are given as their bytes
    if not isinstance(image, str | os.PathLike):
        raise InputError(
            "Not an image",
            got=f"a value of type {type(image).__name__}",
            next_step="give the path of an image file, its bytes, a Pillow image, or an array (uint8, [h, w, 3])",
        )
    path = Path(image)
    try:
        return decode(path.read_bytes())
    except ValueError as error:  # a zero byte in the path
        raise InputError("Cannot read the image", got=f"{path}: {error}", next_step="correct the path") from error
    except OSError as error:
        raise InputError(
            "Cannot read the image", got=f"{path}: {error.strerror}", next_step="correct the path"
        ) from error
    except ImageError as error:
        raise ImageError(error.message, got=f"{path}: {error.got}", next_step=error.next_step) from error
