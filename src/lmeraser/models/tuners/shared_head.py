"""A prompt for each cluster and one head for all of them, tuned together on all records.

    minimise over p_1 ... p_K, h:   mean of CE(h(M(x + p_k(x))), y) over all records (x, y)

The one kind that is not local: its task has the records of all clusters, so any deletion tunes all of it again.
Plans, costs and quarantine say so. One artifact holds it, and all clusters refer to that. Follows `descent`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor, tensor

from lmeraser.config.schema import Config
from lmeraser.core.tensors import Array
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.tuners.descent import GradientTuner, MicroBatch, Values
from lmeraser.models.tuners.pixel_prompts import PromptShape
from lmeraser.models.tuners.prompt_head import PromptHeads, corners_of, initial_prompt


class SharedHeadTuner(GradientTuner):
    """Prompts, ``prompts`` float32 [clusters, 3, pixels], and a head."""

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self._shape = PromptShape.of(config)

    def body(self, parts: int = 1) -> dict[str, Tensor]:
        """The initial prompts: the same for every cluster."""
        initial = initial_prompt(self._shape, self.config).to(self.backbone.device)
        return {"prompts": initial.repeat(parts, 1, 1)}

    def rate(self, name: str) -> tuple[float, float]:
        """Of the prompts."""
        return self.config.tuning.prompt_learning_rate, self.config.tuning.prompt_weight_decay

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Of the members' images, each with its cluster's prompt added."""
        index = F.pad(tensor(batch.groups), (0, len(batch.inputs) - len(batch.groups)))
        painted = self._shape.paint(values["prompts"][index], corners_of(batch, self._shape, self.config))
        return self.backbone.features(batch.inputs + painted)

    def of_cluster(self, tensors: Mapping[str, Array], number: int) -> Mapping[str, Array]:
        """A cluster's prompt, with the head."""
        return {**tensors, "prompt": tensors["prompts"][number]}

    def answers(self, constituents: Sequence[Mapping[str, Array]]) -> PromptHeads:
        """The prompts of several clusters, with the head."""
        return PromptHeads(constituents, backbone=self.backbone, config=self.config)
