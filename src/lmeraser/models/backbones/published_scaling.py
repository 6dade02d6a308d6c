"""How a checkpoint's own image processor scales images, measured on a test image.

The classes of ``transformers`` have rules that their files do not tell: LeViT's side before cropping is 8/7 of
what its file says, ConvNeXt's crops small inputs and squeezes large ones, a side that is one number means a square
for some and the shorter edge for others. So the processor is loaded and given an image that is not square, and the
rule is the one whose canvas (`data.canvases.to_canvas`) shows the same. A processor that does something else, such
as to pad, has no rule here.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmeraser.config.inputs import Fit, Resample
from lmeraser.data.canvases import to_canvas
from lmeraser.data.crops import central_crop
from lmeraser.models.backbones.location import Location

_FITS: tuple[Fit, ...] = ("crop", "squeeze")
_FILTERS: dict[int, Resample] = {1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_LARGEST = 2048  # px, of an input that is tried
_TEST_IMAGE = (600, 400)  # width and height, px
_TEST_CELLS = (6, 9)  # rows and columns of grey values; coarse, so that half a pixel makes little difference
_SAME = 0.99  # least correlation with the best rule; cropped and squeezed, the test image has less than 0.6


@dataclass(frozen=True)
class PublishedScaling:
    """A publisher's rule.

    Attributes:
        fit: how an image becomes square.
        side: to which it is resized, px.
        crop: side of the central crop of that, the input, px.
        resample: the filter; None if it is none of ours.
    """

    fit: Fit
    side: int
    crop: int
    resample: Resample | None


def published_scaling(location: Location) -> PublishedScaling | None:
    """The rule of the image processor of a checkpoint; None if it is none of ours.

    Raises:
        Exception: whatever transformers raises for a processor that cannot be loaded or used.
    """
    from transformers import AutoImageProcessor
    from transformers.utils import logging

    logging.set_verbosity_error()  # not every class has its optional packages
    processor: Any = AutoImageProcessor.from_pretrained(location.name, **location.loading)
    if getattr(processor, "do_resize", True) is False:
        return None
    image = _test_image()
    seen = processor(images=image, return_tensors="pt")["pixel_values"].double().numpy()
    if seen.ndim != 4 or seen.shape[2] != seen.shape[3] or not 0 < seen.shape[2] <= _LARGEST:
        return None
    crop = int(seen.shape[2])
    number = getattr(processor, "resample", None)
    resample = _FILTERS.get(int(number)) if number is not None else None
    rules = [
        PublishedScaling(fit, side, crop, resample)
        for side in sorted(set(_sides(processor, crop)))
        for fit in _FITS
        if crop <= side <= _LARGEST
    ]
    best = max(rules, key=lambda rule: _correlation(image, rule, seen[0, 0]))
    return best if _correlation(image, best, seen[0, 0]) >= _SAME else None


def _sides(processor: Any, crop: int) -> Iterator[int]:
    """Sides before the central crop that a processor may mean, px."""
    yield crop
    size = getattr(processor, "size", None)
    for key in ("shortest_edge", "height"):
        edge = size.get(key) if isinstance(size, dict) else getattr(size, key, None)
        if isinstance(edge, int):
            yield edge
            yield int(edge * 256 / 224)
            share = getattr(processor, "crop_pct", None)
            if isinstance(share, (int, float)) and 0 < share <= 1:
                yield int(edge / share)


def _correlation(image: Image.Image, rule: PublishedScaling, seen: NDArray[np.float64]) -> float:
    """How much a processor's output resembles what a rule gives, whatever it does to the values of pixels."""
    canvas = to_canvas(image, rule.side, rule.resample or "bilinear", rule.fit)
    ours = central_crop(canvas[None], rule.crop)[0, :, :, 0]
    if seen.std() == 0:
        return 0.0
    return float(np.corrcoef(ours.ravel(), seen.ravel())[0, 1])


def _test_image() -> Image.Image:
    """A grey image without symmetry, so that neither channels nor their order matter."""
    cells = np.random.default_rng(0).integers(0, 256, _TEST_CELLS, dtype=np.uint8)
    return Image.fromarray(cells).resize(_TEST_IMAGE, Image.Resampling.BICUBIC).convert("RGB")
