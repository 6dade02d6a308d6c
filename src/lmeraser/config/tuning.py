"""Settings of what is tuned for a cluster, how, and how the answers of several clusters become one.

Sections of `config`, which says what all settings are for. Knows nothing about records or tensors.
"""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ConstituentKind = Literal["prompt_head", "head", "network", "tokens", "mapping", "shared_head", "none"]


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


class NetworkConfig(Section):
    """A whole network of the backbone's architecture, tuned for each cluster."""

    start: Literal["public", "random"] = Field(
        default="public", description="from the backbone's weights, or from random ones"
    )
    learning_rate: float = Field(default=0.0003, ge=0, le=1000, description="of all but the head")
    weight_decay: float = Field(default=0.01, ge=0, le=10, description="of matrices and kernels, but the head's")


class TokensConfig(Section):
    """Tokens that are tuned, beside those of an image's patches (VPT)."""

    count: int = Field(default=10, ge=1, le=1000, description="in a layer")
    deep: bool = Field(default=False, description="new ones in every layer, else in the first alone")
    learning_rate: float = Field(default=0.03, ge=0, le=1000)
    weight_decay: float = Field(default=0.0, ge=0, le=10)


class MappingConfig(Section):
    """How classes are read off without a head: each is one of the outputs."""

    outputs: Literal["features", "classes"] = Field(
        default="features", description="of the backbone: its features, or its public classes"
    )
    assign: Literal["activity", "members"] = Field(
        default="members",
        description="'activity': the outputs that differ most on noise, in their order (DAM-VP); 'members': each "
        "class that which its members activate most",
    )
    noise_images: int = Field(default=512, ge=2, le=65536, description="of 'activity'")


class ConstituentConfig(Section):
    """What is tuned for one cluster."""

    kind: ConstituentKind = Field(
        default="prompt_head",
        description="also 'head' (on codes, no prompt), 'network' (all weights), 'tokens' (of a transformer), "
        "'mapping' (a prompt, no head), 'shared_head' (one for all clusters), 'none' (a global head only)",
    )

    @property
    def given(self) -> Literal["images", "codes"]:
        """What its tuning is given of each member."""
        return "codes" if self.kind == "head" else "images"

    @property
    def together(self) -> bool:
        """Whether all clusters are tuned together, so that any deletion tunes all of them again."""
        return self.kind == "shared_head"

    @property
    def reads(self) -> tuple[str, ...]:
        """The sections of the settings that its tuning reads."""
        own = {
            "head": ("prompt", "embedding"),
            "network": ("network",),
            "tokens": ("tokens",),
            "mapping": ("prompt", "mapping"),
        }
        return ("seed", "backbone", "constituent", "head", "tuning", *own.get(self.kind, ("prompt",)))


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
    stop_after: int | None = Field(
        default=None, ge=1, description="epochs, though the schedule is that of all (for accuracy over epochs)"
    )

    @property
    def epochs_run(self) -> int:
        """Epochs that are tuned."""
        return self.stop_after or self.epochs

    @model_validator(mode="after")
    def _stops_in_time(self) -> Self:
        if self.epochs_run > self.epochs:
            raise ValueError(f"stop_after ({self.stop_after}) is at most epochs ({self.epochs})")
        return self


class AggregationConfig(Section):
    """How the answers of several clusters become one, where a partition gives an image several."""

    combine: Literal["mean", "vote"] = Field(
        default="mean", description="of their probabilities; or the class that most of them choose"
    )
    route: Literal["all", "one"] = Field(
        default="all",
        description="of a partition by hash: 'one' asks a cluster that is drawn by the image's pixels",
    )
