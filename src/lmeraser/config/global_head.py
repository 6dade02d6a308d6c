"""Settings of the global head, and of the embeddings that it is solved from."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from lmeraser.config.modalities import View
from lmeraser.config.tuning import Section

PenaltyRule = Literal["fixed", "cross_validated"]
Score = Literal["distance", "cosine", "blend"]


class EmbeddingConfig(Section):
    """Inputs of heads without a prompt: layers of the backbone, averaged over fixed views, and a random layer."""

    views: tuple[View, ...] = Field(
        default=("clean",),
        min_length=1,
        description="of images: any of 'clean', 'mirror', 'whole' (uncropped), 'near', 'far', 'frame' (random, "
        "never tuned); of texts: 'head', 'tail' (the first and the last window), 'whole'",
    )

    layers: tuple[str, ...] = Field(
        default=("final",),
        min_length=1,
        description="of the backbone, concatenated: 'final' (its features), names of layers below as the backbone "
        "offers them (docs/backbones.md), or 'auto' alone for the backbone's own choice",
    )
    random_features: int = Field(
        default=0,
        ge=0,
        le=8192,
        description="outputs of a random layer on top, which is drawn from the seed; 0: no random layer",
    )

    @model_validator(mode="after")
    def _each_view_once(self) -> Self:
        if len(set(self.views)) < len(self.views):
            raise ValueError(f"views must not be repeated (got {', '.join(self.views)})")
        return self

    @model_validator(mode="after")
    def _each_layer_once(self) -> Self:
        if len(set(self.layers)) < len(self.layers):
            raise ValueError(f"layers must not be repeated (got {', '.join(self.layers)})")
        if "auto" in self.layers and len(self.layers) > 1:
            raise ValueError(f"layers must be 'auto' alone, or names of layers (got {', '.join(self.layers)})")
        return self

    def settings_since_0_1(self) -> dict[str, Any]:
        """The settings that version 0.1 did not know, where they differ from what it did."""
        new: dict[str, Any] = {"layers": list(self.layers), "random_features": self.random_features}
        known = type(self).model_fields
        return {name: value for name, value in new.items() if getattr(self, name) != known[name].get_default()}


class GlobalHeadConfig(Section):
    """Linear discriminant analysis of all records, from statistics that records can be subtracted from."""

    weight: float = Field(
        default=0.0,
        ge=0,
        le=1,
        description="of the global head's probabilities in a prediction; 0: no global head",
    )
    penalty_rule: PenaltyRule = Field(
        default="fixed",
        description="'fixed': the penalty below; 'cross_validated': a penalty that follows from the sufficient "
        "statistics, by generalised cross-validation",
    )
    penalty: float = Field(
        default=0.4,
        ge=1e-6,
        le=1e6,
        description="of the scatter matrix, in mean squared distances to the class mean ('fixed' only)",
    )
    score: Score = Field(
        default="distance",
        description="of a class: by the 'distance' to its mean, or by the 'cosine' of the angle with it, seen "
        "from the mean of all, with a factor that follows from the sufficient statistics; or by a 'blend' of "
        "both, mostly angles where there are many classes, without what is chance in lengths and priors",
    )
    sharpness: float = Field(default=0.3, gt=0, le=100, description="factor of the scores in the softmax")
