"""Learned tokens and a linear head, tuned together on one cluster's members (VPT, Jia et al., 2022).

    minimise over t, h:   mean of CE(h(M(x, t)), y) over the members (x, y)

M is a frozen transformer that takes tokens t beside those of the image's patches: in its first layer (*shallow*),
or new ones in each layer (*deep*). Their initial values are uniform within the backbone's bound; there is no
dropout of tokens. For texts these are soft prompts (Lester et al., 2021), in every layer much like P-tuning v2
(Liu et al., 2022). The steps are those of `gradient_tuner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.seeding import uniform
from lmeraser.core.tensors import Array
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.base import Backbone, TokenInput
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.models.tuners.gradient_tuner import (
    GradientTuner,
    MicroBatch,
    StackedHeads,
    Values,
    padded_index,
    stacked,
)


class TokenTuner(GradientTuner):
    """Tunes tokens, ``tokens`` float32 [layers or 1, count, width], and a head."""

    def initial_values(self, cluster_count: int = 1) -> dict[str, Tensor]:
        """The initial tokens: the same for every cluster."""
        transformer = self._token_input
        settings = self.config.tokens
        shape = (transformer.layers if settings.deep else 1, settings.count, transformer.width)
        drawn = transformer.bound * (2 * uniform(self.config.seed, "tokens", int(np.prod(shape))) - 1)
        return {"tokens": torch.from_numpy(drawn.astype(np.float32)).reshape(shape).to(self.backbone.device)}

    def rates(self, name: str) -> tuple[float, float]:
        """Learning rate and weight decay of the tokens."""
        return self.config.tokens.learning_rate, self.config.tokens.weight_decay

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Features of the members' images, with the tokens beside their patches."""
        return self._token_input.features(batch.inputs, values["tokens"][None])

    def predictor(self, constituents: Sequence[Mapping[str, Array]]) -> TokenHeadPredictor:
        """A predictor with the tokens and heads of several clusters."""
        return TokenHeadPredictor(constituents, self._token_input, self.backbone, self.config)

    @cached_property
    def _token_input(self) -> TokenInput:
        if self.backbone.token_input is None:
            raise BackboneError(
                "The backbone takes no learned tokens",
                got=f"{self.config.backbone.name} (possible: ViT, DeiT or DINOv2 with class-token features)",
                next_step="choose such a backbone, for instance vit-b-22k, or another constituent.kind",
            )
        return self.backbone.token_input


class TokenHeadPredictor:
    """Classifies images with the tokens and heads of several clusters.

    Args:
        constituents: for each cluster the result of `TokenTuner.tune`.
        token_input: how the backbone takes tokens.
        backbone: the frozen network.
        config: all settings.
    """

    def __init__(
        self,
        constituents: Sequence[Mapping[str, Array]],
        token_input: TokenInput,
        backbone: Backbone,
        config: Config,
    ) -> None:
        self._token_input = token_input
        self._tokens = stacked(constituents, "tokens", backbone)
        self._heads = StackedHeads(constituents, backbone, config)

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class probabilities, float32 [n, classes], by the tokens and head chosen for each image."""
        index = padded_index(chosen, len(queries.clean))
        features = self._token_input.features(queries.clean, self._tokens[index])
        return self._heads.probabilities(features, index, len(chosen))
