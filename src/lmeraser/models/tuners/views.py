"""Views: fixed ways of looking at an image, made of it alone.

    clean   the centre of the canvas: the one view that decides the cluster, and that prompts are added to
    mirror  its mirror image
    whole   the whole canvas at the input's size
    near    the central two thirds of the image's side
    far     the image at two thirds of the input's size, on grey
    frame   clean, with a random frame added: a prompt that is never tuned

None depends on data, so averaging features over views costs no exactness and no deletion. Follows `images`
(decoding) and `prompts`; knows nothing about records or heads.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lmeraser.config.schema import Config, View
from lmeraser.core.seeding import normal
from lmeraser.core.tensors import Array
from lmeraser.data.images import to_canvas
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.tuners.pixel_prompts import Corner, PromptShape

_GREY = 127
_SCALES = {"whole": 1.0, "near": 3 / 2, "far": 2 / 3}  # side of the scaled image / side of the input


def look(images: Sequence[Image.Image], view: View, backbone: Backbone, config: Config) -> Tensor:
    """One view of at most ``micro_batch`` decoded images, as normalised input [micro_batch, 3, size, size]."""
    size = config.backbone.image_size
    scale = _SCALES.get(view)
    side = config.backbone.canvas_size if scale is None else round(scale * size)
    pixels = np.stack([_centre(to_canvas(image, side), size) for image in images])
    if view == "mirror":
        pixels = pixels[:, :, ::-1]
    inputs = to_input(pixels, backbone)
    return inputs + _frame(config).to(inputs.device) if view == "frame" else inputs


def crop(canvases: Array, corners: Sequence[Corner], size: int) -> Array:
    """The ``size`` px square of each canvas at its corner: uint8 [n, size, size, 3]."""
    cut = [
        canvas[row : row + size, column : column + size]
        for canvas, (row, column) in zip(canvases, corners, strict=True)
    ]
    return np.stack(cut)


def to_input(pixels: Array, backbone: Backbone) -> Tensor:
    """Pixels, uint8 [n, s, s, 3] with n <= micro_batch, as normalised input [micro_batch, 3, s, s].

    Rows beyond n are black images: every pass has the same shape, because another shape gives other bits.
    """
    missing = backbone.micro_batch - len(pixels)
    padded = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return backbone.normalize(torch.from_numpy(padded).permute(0, 3, 1, 2))


def _centre(canvas: Array, size: int) -> Array:
    """The central square of a canvas, or a smaller canvas in the middle of grey: uint8 [size, size, 3]."""
    offset = (len(canvas) - size) // 2
    if offset >= 0:
        return canvas[offset : offset + size, offset : offset + size]
    before, after = -offset, size - len(canvas) + offset
    return np.pad(canvas, ((before, after), (before, after), (0, 0)), constant_values=_GREY)


def _frame(config: Config) -> Tensor:
    """The random frame, float32 [1, 3, size, size]."""
    shape = PromptShape("padding", config.prompt_width, config.backbone.image_size)
    count = len(shape.offsets)
    values = normal(config.seed, "frame", 3 * count).reshape(1, 3, count)
    return shape.paint(torch.from_numpy(values), [(0, 0)])
