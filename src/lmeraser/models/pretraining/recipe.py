"""Hyperparameters of a pre-training: size of the network, epochs, learning rates.

Imports no torch, so that the command line can show them at once.
"""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from lmeraser.config.inputs import default_canvas_size
from lmeraser.config.tuning import Section
from lmeraser.errors import ConfigError, listing

ARCHITECTURES = {"vit-tiny": (192, 12, 3), "vit-small": (384, 12, 6), "vit-base": (768, 12, 12)}
"""Width, number of layers and number of attention heads; the hidden layers of the MLPs are four times as wide."""


class Recipe(Section):
    """Hyperparameters of a pre-training."""

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
        """Side of a decoded image before cropping, px; as in a workspace with the default settings."""
        return default_canvas_size(self.image_size)

    @model_validator(mode="after")
    def _patches_fill_the_image(self) -> Self:
        if self.arch not in ARCHITECTURES:
            raise ValueError(f"arch must be one of {', '.join(ARCHITECTURES)}, not {self.arch!r}")
        if self.image_size % self.patch_size:
            raise ValueError(
                f"image_size ({self.image_size}) must be a multiple of patch_size ({self.patch_size})"
            )
        return self


def parse_recipe(**values: Any) -> Recipe:
    """A recipe with these values and defaults for the others.

    Raises:
        ConfigError: unknown names or values out of range, all of them listed.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise ConfigError(
            "Invalid hyperparameters for a pre-training",
            got=listing(
                [f"{'.'.join(map(str, fault['loc']))} {fault['msg']}".strip() for fault in error.errors()]
            ),
            next_step="correct these options; 'lmeraser pretrain --help' explains them",
        ) from error
