"""A prompt and a linear head, tuned together on one cluster's members (paper, Eq. 3).

    minimise over p, h:   mean of CE(h(M(x + p)), y) over the members (x, y)

M is the frozen backbone. The steps are those of `gradient_tuner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.tensors import Array
from lmeraser.data.crops import Corner
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.modalities.pixel_prompts import PromptShape
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.models.tuners.gradient_tuner import (
    GradientTuner,
    MicroBatch,
    StackedHeads,
    Values,
    padded_index,
    stacked,
)


class PromptHeadTuner(GradientTuner):
    """Tunes a prompt, ``prompt`` float32 [3, pixels], and a head."""

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self._shape = PromptShape.of(config)

    def initial_values(self, cluster_count: int = 1) -> dict[str, Tensor]:
        """The initial prompt: the same for every cluster."""
        return {"prompt": initial_prompt(self._shape, self.config).to(self.backbone.device)}

    def rates(self, name: str) -> tuple[float, float]:
        """Learning rate and weight decay of the prompt."""
        return self.config.tuning.prompt_learning_rate, self.config.tuning.prompt_weight_decay

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Features of the members' images with the prompt added."""
        painted = self._shape.paint_at(values["prompt"][None], batch.shifts)
        if len(painted) == 1 and not batch.clean:
            return self.backbone.features(batch.inputs, painted)
        return self.backbone.features(batch.inputs + painted)

    def corners(self, ids: Sequence[str], epoch: int | None) -> list[Corner]:
        """Corners of the patch in the members' images."""
        return corners_of(ids, epoch, self._shape, self.config)

    def predictor(self, constituents: Sequence[Mapping[str, Array]]) -> PromptHeadPredictor:
        """A predictor with the prompts and heads of several clusters."""
        return PromptHeadPredictor(constituents, backbone=self.backbone, config=self.config)


def initial_prompt(shape: PromptShape, config: Config) -> Tensor:
    """The prompt that every tuning starts with, float32 [3, pixels]."""
    return torch.from_numpy(shape.initial(config.seed, config.prompt.init_scale))


def corners_of(ids: Sequence[str], epoch: int | None, shape: PromptShape, config: Config) -> list[Corner]:
    """Corner of the patch in each image of a micro-batch; a single one where it is the same for all."""
    if epoch is None:
        return [shape.prediction_corner]
    if shape.kind != "random_patch":
        return [(0, 0)]
    own = [shape.training_corner(config.seed, epoch, record_id) for record_id in ids]
    return [*own, *[(0, 0)] * (config.backbone.micro_batch - len(own))]


class PromptHeadPredictor:
    """Classifies images with the prompts and heads of several clusters.

    Args:
        constituents: for each cluster ``prompt``, ``head.weight`` and ``head.bias``.
        backbone: the frozen network.
        config: all settings.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]], *, backbone: Backbone, config: Config) -> None:
        self._backbone = backbone
        self._shape = PromptShape.of(config)
        self._prompts = stacked(constituents, "prompt", backbone)
        self._heads = StackedHeads(constituents, backbone, config)

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class probabilities, float32 [n, classes], by the prompt and head chosen for each image."""
        index = padded_index(chosen, len(queries.clean))
        prompts = self._shape.paint(self._prompts[index], [self._shape.prediction_corner])
        features = self._backbone.features(queries.clean + prompts)
        return self._heads.probabilities(features, index, len(chosen))
