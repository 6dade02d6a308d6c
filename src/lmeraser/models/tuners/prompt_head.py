"""A prompt and a linear head, tuned together on one cluster's members (paper, Eq. 3).

    minimise over p, h:   mean of CE(h(M(x + p)), y) over the members (x, y)

M is the frozen backbone; p are pixels that are added to an image, or tokens beside those of the input (`prompts`).
The steps are those of `gradient_tuner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.tensors import Array
from lmeraser.data.crops import Corner
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.models.tuners.gradient_tuner import (
    GradientTuner,
    MicroBatch,
    StackedHeads,
    Values,
    padded_index,
    stacked,
)
from lmeraser.models.tuners.prompts import InputPrompt


class PromptHeadTuner(GradientTuner):
    """Tunes a prompt, a tensor of its own name, and a head.

    Args:
        backbone: the frozen network.
        config: all settings.
        prompt: what is tuned at the input.
    """

    def __init__(self, backbone: Backbone, config: Config, prompt: InputPrompt) -> None:
        super().__init__(backbone, config)
        self._prompt = prompt

    def initial_values(self, cluster_count: int = 1) -> dict[str, Tensor]:
        """The initial prompt: the same for every cluster."""
        return {self._prompt.name: self._prompt.initial()}

    def rates(self, name: str) -> tuple[float, float]:
        """Learning rate and weight decay of the prompt."""
        return self._prompt.rates()

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Features of the members' inputs with the prompt."""
        return self._prompt.features(values[self._prompt.name][None], batch)

    def corners(self, ids: Sequence[str], epoch: int | None) -> list[Corner]:
        """Corners of the patch in the members' images."""
        return self._prompt.corners(ids, epoch)

    def predictor(self, constituents: Sequence[Mapping[str, Array]]) -> PromptHeadPredictor:
        """A predictor with the prompts and heads of several clusters."""
        return PromptHeadPredictor(constituents, self._prompt, self.backbone, self.config)


class PromptHeadPredictor:
    """Classifies records with the prompts and heads of several clusters.

    Args:
        constituents: for each cluster its prompt, ``head.weight`` and ``head.bias``.
        prompt: what was tuned at the input.
        backbone: the frozen network.
        config: all settings.
    """

    def __init__(
        self,
        constituents: Sequence[Mapping[str, Array]],
        prompt: InputPrompt,
        backbone: Backbone,
        config: Config,
    ) -> None:
        self._prompt = prompt
        self._prompts = stacked(constituents, prompt.name, backbone)
        self._heads = StackedHeads(constituents, backbone, config)

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class probabilities, float32 [n, classes], by the prompt and head chosen for each record."""
        index = padded_index(chosen, len(queries.clean))
        features = self._prompt.query_features(self._prompts[index], queries.clean)
        return self._heads.probabilities(features, index, len(chosen))
