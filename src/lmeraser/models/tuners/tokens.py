"""Learned tokens and a linear head, tuned together on one cluster's members (VPT, Jia et al., 2022).

    minimise over t, h:   mean of CE(h(M(x, t)), y) over the members (x, y)

M is a frozen transformer that takes tokens t beside those of the image's patches: in its first layer (*shallow*),
or new ones in each layer (*deep*). Tokens start as theirs do, uniform within the bound of Glorot and Bengio (2010)
for a patch and a token; tokens are not dropped at random. Follows `descent`; knows nothing about other clusters.
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
from lmeraser.models.tuners.descent import GradientTuner, LinearHeads, MicroBatch, Values, padded_index, stacked


class TokenTuner(GradientTuner):
    """Tokens, ``tokens`` float32 [layers or 1, count, width], and a head."""

    def body(self, parts: int = 1) -> dict[str, Tensor]:
        """The initial tokens: the same for every cluster."""
        place, settings = self._place, self.config.tokens
        shape = (place.layers if settings.deep else 1, settings.count, place.width)
        bound = (6 / (3 * place.patch**2 + place.width)) ** 0.5
        drawn = bound * (2 * uniform(self.config.seed, "tokens", int(np.prod(shape))) - 1)
        return {"tokens": torch.from_numpy(drawn.astype(np.float32)).reshape(shape).to(self.backbone.device)}

    def rate(self, name: str) -> tuple[float, float]:
        """Of the tokens."""
        return self.config.tokens.learning_rate, self.config.tokens.weight_decay

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Of the members' images, with the tokens beside their patches."""
        return self._place.features(batch.inputs, values["tokens"][None])

    def answers(self, constituents: Sequence[Mapping[str, Array]]) -> TokenHeads:
        """The tokens and heads of several clusters."""
        return TokenHeads(constituents, self._place, self.backbone, self.config)

    @cached_property
    def _place(self) -> TokenInput:
        if self.backbone.token_input is None:
            raise BackboneError(
                "Learned tokens need a transformer whose features are its class token: ViT, DeiT or DINOv2.",
                got=self.config.backbone.name,
                next_step="choose such a backbone, for instance vit-b-22k, or another constituent.kind",
            )
        return self.backbone.token_input


class TokenHeads:
    """The tokens and heads of several clusters, to predict with.

    Args:
        constituents: what `TokenTuner.tune` gave, for each.
        place: how the backbone takes tokens.
        backbone: the frozen network.
        config: all settings.
    """

    def __init__(
        self, constituents: Sequence[Mapping[str, Array]], place: TokenInput, backbone: Backbone, config: Config
    ) -> None:
        self._place, self._tokens = place, stacked(constituents, "tokens", backbone)
        self._heads = LinearHeads(constituents, backbone, config)

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, classes], by the tokens and head at one position for each image."""
        index = padded_index(chosen, len(queries.clean))
        features = self._place.features(queries.clean, self._tokens[index])
        return self._heads.probabilities(features, index, len(chosen))
