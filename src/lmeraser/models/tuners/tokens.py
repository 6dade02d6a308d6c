"""Learned tokens beside those of the input (VPT, Jia et al., 2022; soft prompts, Lester et al., 2021).

The frozen network is a transformer that takes tokens t beside those of an image's patches or of a text: in its
first layer (*shallow*), or new ones in each layer (*deep*; for texts much like P-tuning v2, Liu et al., 2022).
Their initial values are uniform within the backbone's bound; there is no dropout of tokens.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.seeding import uniform
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.base import Backbone, TokenInput
from lmeraser.models.tuners.gradient_tuner import MicroBatch
from lmeraser.models.tuners.prompts import InputPrompt


class TokenPrompt(InputPrompt):
    """Tokens, ``tokens`` float32 [layers or 1, count, width]."""

    name = "tokens"

    def __init__(self, backbone: Backbone, config: Config) -> None:
        self._backbone = backbone
        self._config = config

    def initial(self) -> Tensor:
        """The initial tokens, float32 [layers or 1, count, width]."""
        transformer = self._token_input
        settings = self._config.tokens
        shape = (transformer.layers if settings.deep else 1, settings.count, transformer.width)
        drawn = transformer.bound * (2 * uniform(self._config.seed, "tokens", int(np.prod(shape))) - 1)
        return torch.from_numpy(drawn.astype(np.float32)).reshape(shape).to(self._backbone.device)

    def rates(self) -> tuple[float, float]:
        """Learning rate and weight decay of the tokens."""
        return self._config.tokens.learning_rate, self._config.tokens.weight_decay

    def features(self, values: Tensor, batch: MicroBatch) -> Tensor:
        """Features of inputs with the tokens beside their own."""
        return self._token_input.features(batch.inputs, values)

    def query_features(self, values: Tensor, clean: Tensor) -> Tensor:
        """Features of inputs with the tokens beside their own."""
        return self._token_input.features(clean, values)

    @cached_property
    def _token_input(self) -> TokenInput:
        if self._backbone.token_input is None:
            raise BackboneError(
                "The backbone takes no learned tokens",
                got=f"{self._config.backbone.name} (possible: ViT, DeiT or DINOv2 with class-token features, and "
                "text networks whose layers all have the width of their embeddings)",
                next_step="choose such a backbone, for instance vit-b-22k, or another constituent.kind",
            )
        return self._backbone.token_input
