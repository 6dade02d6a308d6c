"""Prompts: trainable pixels that are added to a backbone's normalised input (paper, section IV-B).

A prompt has a shape (the positions of its pixels) and values, float32 [3, pixels]. The shapes are those of the
paper's reference implementation: a frame around the image (``padding``), a square in the upper left corner
(``fixed_patch``), a square at a random position (``random_patch``, central in predictions), or none. Knows nothing
about clusters or how values are tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.seeding import below, normal
from lmeraser.data.crops import Corner, central_corner


@dataclass(frozen=True)
class PromptShape:
    """The positions of a prompt's pixels in an input of the backbone.

    Attributes:
        kind: padding, fixed_patch, random_patch or none.
        width: of the frame, or side of the patch, px.
        size: side of the input, px.
    """

    kind: str
    width: int
    size: int

    @classmethod
    def of(cls, config: Config) -> PromptShape:
        """The shape that the settings name."""
        return cls(config.prompt.kind, config.prompt_width, config.backbone.image_size)

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Flat positions of the prompt's pixels in the input, int64 [pixels]; for a patch those at corner (0, 0).

        A frame of width w around an input of side s has 4 w (s - w) pixels: 23,280 for w = 30, s = 224, hence
        69,840 parameters in three channels.
        """
        mask = np.zeros((self.size, self.size), dtype=bool)
        if self.kind == "padding":
            mask[:] = True
            mask[self.width : self.size - self.width, self.width : self.size - self.width] = False
        elif self.kind != "none":
            mask[: self.width, : self.width] = True
        return np.flatnonzero(mask)

    def initial(self, seed: int, scale: float) -> NDArray[np.float32]:
        """Initial values, float32 [3, pixels]: the same for every cluster."""
        pixels = len(self.offsets)
        if scale == 0 or pixels == 0:
            return np.zeros((3, pixels), dtype=np.float32)
        return normal(seed, "prompt", 3 * pixels).reshape(3, pixels) * np.float32(scale)

    def training_corner(self, seed: int, epoch: int, record_id: str) -> Corner:
        """Corner of the patch for one record in one epoch; (0, 0) where it does not move."""
        if self.kind != "random_patch":
            return (0, 0)
        room = self.size - self.width + 1
        row, column = below(seed, "patch", (room, room), epoch, record_id)
        return (row, column)

    @property
    def prediction_corner(self) -> Corner:
        """Corner of the patch in predictions: central if it was tuned at random positions, else (0, 0)."""
        return central_corner(self.size, self.width) if self.kind == "random_patch" else (0, 0)

    def paint(self, values: Tensor, corners: Sequence[Corner]) -> Tensor:
        """Prompts as images, 0 wherever they have no pixels.

        Args:
            values: of n prompts, or of one for all corners, float32 [n or 1, 3, pixels].
            corners: of the patches, n of them; one suffices where all are equal.

        Returns:
            float32 [max(n, len(corners)), 3, size, size]; differentiable in ``values``.
        """
        return self.paint_at(values, self.shifts(corners).to(values.device))

    def shifts(self, corners: Sequence[Corner]) -> Tensor:
        """What corners add to the flat positions of a patch at (0, 0), int64 [len(corners)]."""
        return torch.tensor([row * self.size + column for row, column in corners])

    def paint_at(self, values: Tensor, shifts: Tensor) -> Tensor:
        """`paint` with the `shifts` of the corners, int64 on the device of ``values``."""
        count = max(len(values), len(shifts))
        # A GPU has no deterministic scatter that a CUDA graph can hold; a CPU scatters in a third of the time.
        painted = (_scatter if values.device.type == "cpu" else _gather)(self, values, shifts)
        return painted.reshape(count, 3, self.size, self.size)


def _scatter(shape: PromptShape, values: Tensor, shifts: Tensor) -> Tensor:
    """Values at their positions, float32 [n, 3, size * size]."""
    positions = shifts[:, None] + torch.from_numpy(shape.offsets)
    count = max(len(values), len(shifts))
    target = (count, 3, len(shape.offsets))
    empty = torch.zeros((count, 3, shape.size * shape.size))
    return empty.scatter(2, positions[:, None, :].expand(target), values.expand(target))


def _gather(shape: PromptShape, values: Tensor, shifts: Tensor) -> Tensor:
    """The same: each position reads its value, and each value's gradient is read from its position."""
    offsets, pixel_of = _maps(shape, values.device)
    pixels = len(offsets)
    count = max(len(values), len(shifts))
    unshifted = torch.arange(shape.size * shape.size, device=values.device) - shifts[:, None]
    sources = torch.where(unshifted >= 0, pixel_of[unshifted.clamp(min=0)], pixels)
    positions = shifts[:, None] + offsets
    painted: Tensor = cast("Any", _Paint).apply(  # untyped in torch's stubs
        values.expand(count, 3, pixels),
        sources[:, None, :].expand(count, 3, -1),
        positions[:, None, :].expand(count, 3, pixels),
    )
    return painted


@lru_cache(maxsize=16)
def _maps(shape: PromptShape, device: torch.device) -> tuple[Tensor, Tensor]:
    """`PromptShape.offsets`, and for each flat position the number of the pixel there, or the number of pixels."""
    offsets = shape.offsets
    pixel_of = np.full(shape.size * shape.size, len(offsets))
    pixel_of[offsets] = np.arange(len(offsets))
    with torch.inference_mode(False):  # tensors of that mode could not be used in training
        return torch.from_numpy(offsets).to(device), torch.from_numpy(pixel_of).to(device)


class _Paint(torch.autograd.Function):
    """Moves values to their positions, and gradients back, without writing to computed places."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, sources: Tensor, positions: Tensor) -> Tensor:
        ctx.positions = positions
        return F.pad(values, (0, 1)).gather(2, sources)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return gradients[0].gather(2, ctx.positions), None, None
