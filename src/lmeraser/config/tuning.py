"""Settings of constituents: what is tuned for a cluster, how, and how predictions are combined."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ConstituentKind = Literal["prompt_head", "head", "network", "tokens", "mapping", "shared_head", "none"]


class Section(BaseModel):
    """Base class of all sections: immutable; unknown keys are errors."""

    # Deferred, because what checks a section is built once more as a part of what checks all of them.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class PromptConfig(Section):
    """The visual prompt: tuned pixels that are added to the normalised input."""

    kind: Literal["padding", "fixed_patch", "random_patch", "none"] = Field(
        default="padding", description="'padding' (a frame), 'fixed_patch', 'random_patch' or 'none'"
    )
    width: int | None = Field(
        default=None,
        ge=1,
        le=512,
        description="px; by default 30 for an image_size of 224, in proportion for others",
    )
    init_scale: float = Field(
        default=0.0, ge=0, le=10, description="standard deviation of the initial pixel values"
    )


class HeadConfig(Section):
    """The linear classifier of each cluster, over all classes."""

    normalize: Literal["none", "unit_rms"] = Field(
        default="unit_rms", description="of features: 'unit_rms' scales each feature vector to root mean square 1"
    )
    init: Literal["zero", "class_means"] = Field(
        default="zero",
        description="initial weights: 'zero', or 'class_means' (the members' mean feature of each class)",
    )


class NetworkConfig(Section):
    """A whole network of the backbone's architecture, tuned for each cluster (constituent.kind 'network')."""

    start: Literal["public", "random"] = Field(
        default="public", description="initial weights: 'public' (the backbone's) or 'random'"
    )
    learning_rate: float = Field(default=0.0003, ge=0, le=1000, description="of all weights but the head's")
    weight_decay: float = Field(
        default=0.01, ge=0, le=10, description="of all matrices and convolution kernels but the head's"
    )


class TokensConfig(Section):
    """Tuned tokens beside those of the image patches (VPT; constituent.kind 'tokens')."""

    count: int = Field(default=10, ge=1, le=1000, description="tokens per layer")
    deep: bool = Field(default=False, description="true: tokens in every layer; false: in the first layer only")
    learning_rate: float = Field(default=0.03, ge=0, le=1000, description="of the tokens")
    weight_decay: float = Field(default=0.0, ge=0, le=10, description="of the tokens")


class MappingConfig(Section):
    """Which output of the backbone stands for each class, without a head (constituent.kind 'mapping')."""

    outputs: Literal["features", "classes"] = Field(
        default="features",
        description="outputs to choose from: the backbone's 'features', or its public 'classes'",
    )
    assign: Literal["activity", "members"] = Field(
        default="members",
        description="'activity': the outputs that vary most on noise images, in their order (DAM-VP); 'members': "
        "for each class the output that its members activate most",
    )
    noise_images: int = Field(default=512, ge=2, le=65536, description="number of noise images for 'activity'")


class ConstituentConfig(Section):
    """What is tuned for one cluster."""

    kind: ConstituentKind = Field(
        default="prompt_head",
        description="'prompt_head' (a prompt and a head), 'head' (on embeddings, no prompt), 'network' (all "
        "weights), 'tokens' (of a transformer), 'mapping' (a prompt, no head), 'shared_head' (prompts, one head "
        "for all clusters), 'none' (only a global head)",
    )

    @property
    def tuned_on(self) -> Literal["payloads", "quantized_embeddings"]:
        """The form in which tuning receives each member."""
        return "quantized_embeddings" if self.kind == "head" else "payloads"

    @property
    def together(self) -> bool:
        """Whether all clusters are tuned together, so that any deletion tunes all of them again."""
        return self.kind == "shared_head"

    @property
    def reads(self) -> tuple[str, ...]:
        """The sections of the settings that tuning reads; they are part of its memo key."""
        own = {
            "head": ("prompt", "embedding"),
            "network": ("network",),
            "tokens": ("tokens",),
            "mapping": ("prompt", "mapping"),
        }
        return ("seed", "backbone", "constituent", "head", "tuning", *own.get(self.kind, ("prompt",)))


class TuningConfig(Section):
    """How the prompt and head of a cluster are tuned together (paper, Eq. 3)."""

    epochs: int = Field(default=10, ge=1, le=10000, description="passes over the members of a cluster")
    batch_size: int = Field(default=16, ge=1, le=4096, description="records per optimiser step")
    optimizer: Literal["adamw", "sgd"] = Field(default="adamw", description="'adamw' or 'sgd'")
    prompt_learning_rate: float = Field(default=0.01, ge=0, le=1000, description="of the prompt")
    head_learning_rate: float = Field(default=0.003, ge=0, le=1000, description="of the head")
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of SGD; ignored by AdamW")
    prompt_weight_decay: float = Field(default=0.0, ge=0, le=10, description="of the prompt")
    head_weight_decay: float = Field(default=0.01, ge=0, le=10, description="of the head's weights")
    schedule: Literal["cosine", "constant"] = Field(
        default="cosine", description="of the learning rates: 'cosine' or 'constant'"
    )
    warmup_epochs: float = Field(default=1.0, ge=0, le=1000, description="epochs of linear warm-up")
    crop: bool = Field(default=True, description="true: random crops of the resized image; false: its centre")
    flip: bool = Field(default=False, description="true: mirror images horizontally at random")
    slices: int = Field(
        default=1,
        ge=1,
        le=64,
        description="parts of a cluster that are tuned one after the other, with a checkpoint each (SISA)",
    )
    stop_after: int | None = Field(
        default=None,
        ge=1,
        description="stop after this number of epochs of the schedule (to measure accuracy over epochs)",
    )

    @property
    def epochs_run(self) -> int:
        """Number of epochs that are run."""
        return self.stop_after or self.epochs

    @model_validator(mode="after")
    def _stops_in_time(self) -> Self:
        if self.epochs_run > self.epochs:
            raise ValueError(f"stop_after ({self.stop_after}) must be at most epochs ({self.epochs})")
        return self


class AggregationConfig(Section):
    """How predictions of several clusters are combined, where a partition routes an image to several."""

    combine: Literal["mean", "vote"] = Field(
        default="mean", description="'mean' of the clusters' probabilities, or a majority 'vote'"
    )
    route: Literal["all", "one"] = Field(
        default="all",
        description="for a partition by hash: 'all' clusters predict, or 'one' that the image's pixels select",
    )
