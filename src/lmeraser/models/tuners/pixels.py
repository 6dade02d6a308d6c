"""Tuned pixels that are added to the normalised input: the prompt of the paper (section IV-B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.data.crops import Corner
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.modalities.pixel_prompts import PromptShape
from lmeraser.models.tuners.gradient_tuner import MicroBatch
from lmeraser.models.tuners.prompts import InputPrompt


class PixelPrompt(InputPrompt):
    """Pixels, ``prompt`` float32 [3, pixels]."""

    name = "prompt"

    def __init__(self, backbone: Backbone, config: Config) -> None:
        self._backbone = backbone
        self._config = config
        self._shape = PromptShape.of(config)

    def initial(self) -> Tensor:
        """The initial pixels, float32 [3, pixels]."""
        drawn = self._shape.initial(self._config.seed, self._config.prompt.init_scale)
        return torch.from_numpy(drawn).to(self._backbone.device)

    def rates(self) -> tuple[float, float]:
        """Learning rate and weight decay of the pixels."""
        return self._config.tuning.prompt_learning_rate, self._config.tuning.prompt_weight_decay

    def features(self, values: Tensor, batch: MicroBatch) -> Tensor:
        """Features of images with the pixels added."""
        painted = self._shape.paint_at(values, batch.shifts)
        if len(painted) == 1 and not batch.clean:
            return self._backbone.features(batch.inputs, painted)
        return self._backbone.features(batch.inputs + painted)

    def query_features(self, values: Tensor, clean: Tensor) -> Tensor:
        """Features of images with the pixels added, where predictions have them."""
        return self._backbone.features(clean + self._shape.paint(values, [self._shape.prediction_corner]))

    def corners(self, ids: Sequence[str], epoch: int | None) -> list[Corner]:
        """Corner of the patch in each image of a micro-batch; a single one where it is the same for all."""
        if epoch is None:
            return [self._shape.prediction_corner]
        if self._shape.kind != "random_patch":
            return [(0, 0)]
        own = [self._shape.training_corner(self._config.seed, epoch, record_id) for record_id in ids]
        return [*own, *[(0, 0)] * (self._config.backbone.micro_batch - len(own))]
