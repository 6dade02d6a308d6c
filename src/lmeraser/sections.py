"""Settings of what is tuned for a cluster, how, and how the answers of several clusters become one.

Sections of `config`, which says what all settings are for. Knows nothing about records or tensors.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

ConstituentKind = Literal["prompt_head", "head", "none"]


class Section(BaseModel):
    """Base of all sections: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class PromptConfig(Section):
    """The pixels that are tuned, added to the normalised input."""

    kind: Literal["padding", "fixed_patch", "random_patch", "none"] = "padding"
    width: int | None = Field(
        default=None, ge=1, le=512, description="px; default 30 at an input of 224, scaled with it"
    )
    init_scale: float = Field(default=0.0, ge=0, le=10, description="standard deviation of the initial values")


class HeadConfig(Section):
    """The linear classifier of each cluster, over all classes."""

    normalize: Literal["none", "unit_rms"] = Field(
        default="unit_rms", description="'unit_rms' scales each feature vector to root mean square 1"
    )
    init: Literal["zero", "class_means"] = Field(
        default="zero", description="'class_means' starts from the members' mean features of each class"
    )


class ConstituentConfig(Section):
    """What is tuned for one cluster."""

    kind: ConstituentKind = Field(
        default="prompt_head",
        description="'head' is tuned on codes, without prompt; 'none': there is a global head only",
    )

    @property
    def given(self) -> Literal["images", "codes"]:
        """What its tuning is given of each member."""
        return "codes" if self.kind == "head" else "images"

    @property
    def reads(self) -> tuple[str, ...]:
        """The sections of the settings that its tuning reads."""
        common = ("seed", "backbone", "constituent", "prompt", "head", "tuning")
        return (*common, "embedding") if self.kind == "head" else common


class TuningConfig(Section):
    """How a cluster's prompt and head are tuned together (paper, Eq. 3)."""

    epochs: int = Field(default=10, ge=1, le=10000)
    batch_size: int = Field(default=16, ge=1, le=4096, description="records per optimiser step")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    prompt_learning_rate: float = Field(default=0.01, ge=0, le=1000)
    head_learning_rate: float = Field(default=0.003, ge=0, le=1000)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="SGD only")
    prompt_weight_decay: float = Field(default=0.0, ge=0, le=10)
    head_weight_decay: float = Field(default=0.01, ge=0, le=10)
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = Field(default=1.0, ge=0, le=1000)
    crop: bool = Field(default=True, description="random crop from the canvas, else the centre")
    flip: bool = Field(default=False, description="random horizontal mirror image")
    slices: int = Field(
        default=1, ge=1, le=64, description="of a cluster, tuned one after the other with a checkpoint (SISA)"
    )
