"""How a backbone is pre-trained: sizes of the network, epochs, rates.

Knows nothing about torch.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from lmeraser.config.tuning import Section
from lmeraser.errors import ConfigError, listing

ARCHITECTURES = {"vit-tiny": (192, 12, 3), "vit-small": (384, 12, 6), "vit-base": (768, 12, 12)}
"""Width, layers and attention heads; the hidden layers of the MLPs are four times as wide."""


class Recipe(Section):
    """How a backbone is pre-trained."""

    arch: str = Field(default="vit-small", description="vit-tiny, vit-small or vit-base")
    image_size: int = Field(default=224, ge=16, le=1024, description="side of the input, px")
    patch_size: int = Field(default=16, ge=2, le=64, description="side of a patch, px")
    epochs: int = Field(default=90, ge=1, le=10000)
    batch_size: int = Field(default=256, ge=1, le=65536, description="images per step, of all processes")
    learning_rate: float = Field(default=0.0005, gt=0, le=1)
    weight_decay: float = Field(default=0.05, ge=0, le=10, description="of matrices only")
    warmup_epochs: float = Field(default=5.0, ge=0, le=1000)
    seed: int = Field(default=0, ge=0, lt=2**53)

    @property
    def canvas_size(self) -> int:
        """Side of a decoded image before cropping, px; the same share as of a workspace."""
        return round(self.image_size * 8 / 7)

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> Self:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"arch is one of {', '.join(ARCHITECTURES)}, not {self.arch!r}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size ({self.image_size}) is a multiple of patch_size ({self.patch_size})")
        return self


def recipe(**values: Any) -> Recipe:
    """A recipe with these values.

    Raises:
        ConfigError: values out of range, all of them listed.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "A recipe has values in their ranges.",
            got=listing(
                [f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors()]
            ),
            next_step="correct these options; 'lmeraser pretrain --help' explains them",
        ) from error
