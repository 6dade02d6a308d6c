"""Images as inputs of a backbone, in views: fixed ways to scale and crop an image, each from that image alone.

    clean   the central crop of the canvas: it decides the cluster, and prompts are added to it
    mirror  its mirror image
    whole   the whole canvas at the input's size
    near    the central two thirds of the image's side
    far     the image at two thirds of the input's size, on grey
    frame   clean, with a random frame added: a prompt that is never tuned

With ``backbone.fit = "squeeze"`` the canvas is the whole image squeezed to a square: "whole" shows all of the
image, "near" the central two thirds of its width and of its height, "far" all of it in the middle of grey.

No view depends on other data, so averaging features over views costs no exactness and makes no deletion more
expensive. Knows nothing about records or heads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.seeding import below, normal
from lmeraser.core.tensors import Array
from lmeraser.data.canvases import Canvases, CanvasSize, ReducedImage, to_canvas
from lmeraser.data.crops import Corner, central_corner, central_crop, crop
from lmeraser.data.images import load_image
from lmeraser.models.backbone_names import BUNDLED
from lmeraser.models.backbones.base import Backbone, ImageBackbone
from lmeraser.models.modalities.base import InputEncoder, MemberInputs, ParallelMap, slices
from lmeraser.models.modalities.pixel_prompts import PromptShape

GREY = 127
_SCALES = {"whole": 1.0, "near": 3 / 2, "far": 2 / 3}  # side of the scaled image / side of the input


class ImageEncoder(InputEncoder[Image.Image | ReducedImage, Backbone]):
    """Inputs from images."""

    def load(self, value: Any) -> Image.Image | ReducedImage:
        """A decoded image, from whatever `load_image` takes."""
        return value if isinstance(value, ReducedImage) else load_image(value)

    def passes(self, values: Sequence[Any]) -> list[Sequence[int]]:
        """All images have one shape."""
        return slices(range(len(values)), self.backbone.micro_batch)

    def input(self, items: Sequence[Image.Image | ReducedImage], view: View) -> Tensor:
        """A view of images, float32 [micro_batch, 3, size, size], normalised."""
        return view_input(items, view, self.backbone, self.config)

    def noise(self, number: int) -> Tensor:
        """Images of Gaussian noise, float32 [micro_batch, 3, size, size]."""
        shape = (self.backbone.micro_batch, 3, *[self.config.backbone.image_size] * 2)
        drawn = normal(self.config.seed, f"noise {number}", int(np.prod(shape)))
        return torch.from_numpy(drawn).reshape(shape).to(self.backbone.device)

    def members(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> ImageMembers:
        """The members' images, decoded once if they fit in the budget."""
        backbone = self.config.backbone
        canvases = Canvases(
            ids,
            fetch,
            side=backbone.canvas_size,
            resample=backbone.canvas_filter,
            fit=backbone.canvas_fit,
            budget=budget,
            parallel=parallel,
        )
        return ImageMembers(canvases, self.config, self.backbone)


class ImageMembers(MemberInputs):
    """The members' images as each epoch sees them: cropped and mirrored by hashes of their ids."""

    def __init__(self, canvases: Canvases, config: Config, backbone: Backbone) -> None:
        super().__init__(backbone.micro_batch)
        self._canvases = canvases
        self._config = config
        self._backbone = backbone

    def prepare(self, positions: Sequence[int], ids: Sequence[str], epoch: int | None) -> Tensor:
        """Pixels, uint8 [micro_batch, 3, size, size]."""
        views = [self._corner_and_mirror(record_id, epoch) for record_id in ids]
        corners = [corner for corner, _ in views]
        pixels = crop(self._canvases[positions], corners, self._config.backbone.image_size)
        mirrored = [mirror for _, mirror in views]
        if any(mirrored):
            pixels[mirrored] = pixels[mirrored, :, ::-1]
        return to_micro_batch(pixels, self._backbone)

    def _corner_and_mirror(self, record_id: str, epoch: int | None) -> tuple[Corner, bool]:
        """Where a member's image is cropped in an epoch, and whether it is mirrored."""
        backbone, tuning = self._config.backbone, self._config.tuning
        centre = central_corner(backbone.canvas_size, backbone.image_size)
        if epoch is None:
            return centre, False
        room = backbone.canvas_size - backbone.image_size
        row, column, mirror = below(self._config.seed, "augment", (room + 1, room + 1, 2), epoch, record_id)
        return (row, column) if tuning.crop else centre, tuning.flip and mirror == 1


ENCODER = ImageEncoder


def load_network(config: Config, device: torch.device) -> ImageBackbone:
    """The image network that the settings name. Raises as `load_backbone`."""
    if config.backbone.name == BUNDLED:
        from lmeraser.models.backbones.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0(config.backbone, device)
    from lmeraser.models.backbones.huggingface import HuggingFaceBackbone

    return HuggingFaceBackbone(config.backbone, device)


def canvas_sizes(config: Config) -> frozenset[CanvasSize]:
    """Sizes of all canvases that a prediction is made from."""
    embedded: tuple[View, ...] = config.embedding.views if config.needs_statistics else ()
    return frozenset(canvas_size_of(view, config) for view in ("clean", *embedded))


def canvas_size_of(view: View, config: Config) -> CanvasSize:
    """Size of the canvas that a view is cut from."""
    scale = _SCALES.get(view)
    backbone = config.backbone
    side = backbone.canvas_size if scale is None else round(scale * backbone.image_size)
    return CanvasSize(side, backbone.canvas_filter, backbone.canvas_fit)


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
    canvas = canvas_size_of(view, config)
    pixels = _fit(np.stack([to_canvas(image, *canvas) for image in images]), size)
    if view == "mirror":
        pixels = pixels[:, :, ::-1]
    inputs = to_input(pixels, backbone)
    return inputs + random_frame(config).to(inputs.device) if view == "frame" else inputs


def to_input(pixels: Array, backbone: Backbone) -> Tensor:
    """Pixels as normalised input of the backbone: uint8 [n, s, s, 3] to float32 [micro_batch, 3, s, s].

    Rows beyond the n <= micro_batch images are black: every pass has the same shape, because another shape gives
    other bits.
    """
    return backbone.place(to_micro_batch(pixels, backbone))


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
    return np.pad(canvases, ((0, 0), (before, after), (before, after), (0, 0)), constant_values=GREY)


def random_frame(config: Config) -> Tensor:
    """The random frame, float32 [1, 3, size, size]."""
    shape = PromptShape("padding", config.prompt_width, config.backbone.image_size)
    count = len(shape.offsets)
    values = normal(config.seed, "frame", 3 * count).reshape(1, 3, count)
    return shape.paint(torch.from_numpy(values), [(0, 0)])
