"""Settings of what goes in: the payloads of records, and the frozen network that reads them."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from lmeraser.config.modalities import Modality
from lmeraser.config.tuning import Section

Resample = Literal["bilinear", "bicubic", "lanczos"]
Fit = Literal["crop", "squeeze"]


def default_canvas_size(image_size: int) -> int:
    """Side of a decoded image before cropping, px: 8/7 of the input's side (the paper: 256 for 224)."""
    return round(image_size * 8 / 7)


class DataConfig(Section):
    """What the payload of a record is; fixed when a workspace is created."""

    modality: Modality = Field(default="image", description="'image', 'text' or 'vector'")
    length: int | None = Field(
        default=None, ge=1, le=65536, description="numbers in a vector ('vector' only, and needed there)"
    )

    @model_validator(mode="after")
    def _length_of_vectors(self) -> Self:
        if (self.length is not None) != (self.modality == "vector"):
            raise ValueError(
                f"length (init --length) must be given for modality 'vector', and for no other (got {self.length} "
                f"with {self.modality!r})"
            )
        return self


class TextConfig(Section):
    """How texts become inputs of the backbone (modality 'text' only)."""

    max_tokens: int = Field(
        default=256, ge=8, le=8192, description="of one window; longer texts are divided into windows"
    )
    windows: int = Field(
        default=8, ge=1, le=1024, description="most windows of a text; of more, so many evenly spaced ones"
    )
    prefix: str | None = Field(
        default=None, max_length=1000, description="put before every text; by default the publisher's"
    )


class BackboneConfig(Section):
    """The frozen network and the fixed shape in which it is always called."""

    name: str = Field(
        default="efficientnet-lite0",
        description="'efficientnet-lite0' (bundled), an alias (vit-b-22k, vit-b-1k, swin-b-22k, swin-b-1k), "
        "a local folder of a transformers model, or hub:OWNER/NAME; for text 'all-MiniLM-L6-v2' (bundled with the "
        "extra 'text'); for vectors 'identity' or 'identity:NAME', the public name of the model that made them",
    )
    image_size: int = Field(default=96, ge=16, le=1024, description="side of the input, px")
    resize: int | None = Field(
        default=None,
        ge=16,
        le=1280,
        description="side to which images are resized before cropping, px; by default 8/7 of image_size",
    )
    resample: Resample | None = Field(
        default=None,
        description="filter of resizing: 'bilinear' (default), 'bicubic' or 'lanczos'; init takes the publisher's",
    )
    fit: Fit | None = Field(
        default=None,
        description="how images become square: 'crop' to the centred square (default) or 'squeeze' the whole "
        "image; init takes the publisher's",
    )
    pooling: Literal["auto", "cls", "mean", "pooler", "last"] = Field(
        default="auto",
        description="how a transformer's tokens become one feature vector: 'auto', 'cls', 'mean', 'pooler' or, "
        "for texts, 'last'",
    )
    precision: Literal["fp32", "bf16"] = Field(
        default="fp32",
        description="of the backbone's arithmetic: 'fp32' or 'bf16'; prompts, heads and gradients stay fp32",
    )
    micro_batch: int = Field(
        default=8,
        ge=2,
        le=256,
        description="records in every pass; part of the model, because another number gives other bits",
    )

    @property
    def canvas_size(self) -> int:
        """Side of a decoded image before cropping, px: ``resize``, or `default_canvas_size`."""
        return self.resize if self.resize is not None else default_canvas_size(self.image_size)

    @property
    def canvas_filter(self) -> Resample:
        """Filter with which images are resized: ``resample``, or bilinear as in version 0.1."""
        return self.resample if self.resample is not None else "bilinear"

    @property
    def canvas_fit(self) -> Fit:
        """How images become square: ``fit``, or cropped as in version 0.1."""
        return self.fit if self.fit is not None else "crop"

    @model_validator(mode="after")
    def _resize_covers_input(self) -> Self:
        if self.canvas_size < self.image_size:
            raise ValueError(f"resize ({self.resize}) must be at least image_size ({self.image_size})")
        return self
