"""Views: fixed ways to scale and crop an image, each computed from that image alone.

    clean   the central crop of the canvas: it decides the cluster, and prompts are added to it
    mirror  its mirror image
    whole   the whole canvas at the input's size
    near    the central two thirds of the image's side
    far     the image at two thirds of the input's size, on grey
    frame   clean, with a random frame added: a prompt that is never tuned

No view depends on other data, so averaging features over views costs no exactness and makes no deletion more
expensive. Knows nothing about records or heads.
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
from lmeraser.data.crops import central_crop
from lmeraser.data.images import CanvasSize, ReducedImage, to_canvas
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.tuners.pixel_prompts import PromptShape

_GREY = 127
_SCALES = {"whole": 1.0, "near": 3 / 2, "far": 2 / 3}  # side of the scaled image / side of the input


def canvas_sizes(config: Config) -> frozenset[CanvasSize]:
    """Sizes of all canvases that a prediction is made from."""
    embedded: tuple[View, ...] = config.embedding.views if config.needs_statistics else ()
    return frozenset(_canvas_size(view, config) for view in ("clean", *embedded))


def _canvas_size(view: View, config: Config) -> CanvasSize:
    scale = _SCALES.get(view)
    backbone = config.backbone
    side = backbone.canvas_size if scale is None else round(scale * backbone.image_size)
    return CanvasSize(side, backbone.canvas_filter)


def view_input(
    images: Sequence[Image.Image | ReducedImage], view: View, backbone: Backbone, config: Config
) -> Tensor:
    """One view of some images as input of the backbone.

    Args:
        images: decoded, at most ``micro_batch`` of them.
        view: which one.
        backbone: normalises the pixels.
        config: all settings.

    Returns:
        float32 [micro_batch, 3, size, size], normalised; rows beyond the images are padding.
    """
    size = config.backbone.image_size
    canvas = _canvas_size(view, config)
    pixels = _fit(np.stack([to_canvas(image, *canvas) for image in images]), size)
    if view == "mirror":
        pixels = pixels[:, :, ::-1]
    inputs = to_input(pixels, backbone)
    return inputs + _random_frame(config).to(inputs.device) if view == "frame" else inputs


def to_input(pixels: Array, backbone: Backbone) -> Tensor:
    """Pixels as normalised input of the backbone: uint8 [n, s, s, 3] to float32 [micro_batch, 3, s, s].

    Rows beyond the n <= micro_batch images are black: every pass has the same shape, because another shape gives
    other bits.
    """
    return backbone.normalize(to_micro_batch(pixels, backbone))


def to_micro_batch(pixels: Array, backbone: Backbone) -> Tensor:
    """Pixels in the shape of every pass, uint8 [n, s, s, 3] to [micro_batch, 3, s, s]; padding is black."""
    missing = backbone.micro_batch - len(pixels)
    padded = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return torch.from_numpy(padded).permute(0, 3, 1, 2)


def _fit(canvases: Array, size: int) -> Array:
    """Central crops of larger canvases, smaller ones in the middle of grey: uint8 [n, size, size, 3]."""
    missing = size - canvases.shape[1]
    if missing <= 0:
        return central_crop(canvases, size)
    after = missing // 2
    before = missing - after
    return np.pad(canvases, ((0, 0), (before, after), (before, after), (0, 0)), constant_values=_GREY)


def _random_frame(config: Config) -> Tensor:
    """The random frame, float32 [1, 3, size, size]."""
    shape = PromptShape("padding", config.prompt_width, config.backbone.image_size)
    count = len(shape.offsets)
    values = normal(config.seed, "frame", 3 * count).reshape(1, 3, count)
    return shape.paint(torch.from_numpy(values), [(0, 0)])
