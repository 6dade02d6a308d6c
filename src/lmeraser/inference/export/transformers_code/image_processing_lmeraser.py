"""Views of images for a model that lmeraser exported; needs numpy, Pillow and transformers, not lmeraser.

Steps: image -> its centred square, or all of it -> canvases of several sizes, by Pillow -> an input for each view.
"""

from typing import Any, ClassVar

import numpy as np
import torch
from PIL import Image, ImageOps
from transformers.image_processing_utils import BaseImageProcessor, BatchFeature

GREY = 127  # around a canvas that is smaller than the input


class LmeraserImageProcessor(BaseImageProcessor):
    """Turns images into what `LmeraserForImageClassification` takes.

    Args:
        image_size: side of an input, px.
        views: of each view its ``side`` (px of the canvas), ``resample`` (Pillow's filter), ``fit`` ("crop" for
            the centred square, "squeeze" for the whole image) and whether to ``mirror`` it.
        kwargs: of the base class.
    """

    model_input_names: ClassVar = ["pixel_values"]

    def __init__(self, image_size: int = 224, views: Any = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.image_size = image_size
        self.views = list(views)

    def preprocess(self, images: Any, return_tensors: Any = None, **_: Any) -> BatchFeature:
        """Inputs of all views: ``pixel_values``, uint8 [n, views, 3, image_size, image_size].

        Args:
            images: one image or a list of them: of Pillow, or arrays uint8 [height, width, 3].
            return_tensors: as in transformers.
        """
        given = images if isinstance(images, list | tuple) else [images]
        pixels = np.stack([np.stack([self._view(_rgb(image), **view) for view in self.views]) for image in given])
        return BatchFeature({"pixel_values": torch.from_numpy(pixels)}, tensor_type=return_tensors)

    def _view(self, image: Image.Image, *, side: int, resample: str, fit: str, mirror: bool) -> Any:
        """uint8 [3, image_size, image_size]."""
        if fit == "crop":
            width, height = image.size
            square = min(width, height)
            left, top = (width - square) // 2, (height - square) // 2
            image = image.crop((left, top, left + square, top + square))
        canvas = np.asarray(image.resize((side, side), Image.Resampling[resample.upper()]), dtype=np.uint8)
        missing = self.image_size - side
        if missing > 0:
            around = (missing - missing // 2, missing // 2)
            canvas = np.pad(canvas, (around, around, (0, 0)), constant_values=GREY)
        else:
            first = (side - self.image_size) // 2
            canvas = canvas[first : first + self.image_size, first : first + self.image_size]
        return (canvas[:, ::-1] if mirror else canvas).transpose(2, 0, 1)


def _rgb(image: Any) -> Image.Image:
    if not isinstance(image, Image.Image):
        image = Image.fromarray(np.asarray(image))
    upright = ImageOps.exif_transpose(image)
    if upright.has_transparency_data:
        white = Image.new("RGBA", upright.size, (255, 255, 255, 255))
        upright = Image.alpha_composite(white, upright.convert("RGBA"))
    return upright.convert("RGB")
