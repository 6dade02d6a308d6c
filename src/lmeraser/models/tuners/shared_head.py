"""A prompt for each cluster and one head for all of them, tuned together on all records.

    minimise over p_1 ... p_K, h:   mean of CE(h(M(x + p_k(x))), y) over all records (x, y)

The only constituent that is not local to a cluster: its single task has the records of all clusters, so any
deletion tunes all of it again, and plans, costs and quarantine take that into account. It is one artifact, which
all clusters refer to. The steps are those of `gradient_tuner`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.tensors import Array
from lmeraser.data.crops import Corner
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.modalities.pixel_prompts import PromptShape
from lmeraser.models.tuners.gradient_tuner import GradientTuner, MicroBatch, Values
from lmeraser.models.tuners.prompt_head import PromptHeadPredictor, corners_of, initial_prompt


class SharedHeadTuner(GradientTuner):
    """Tunes prompts, ``prompts`` float32 [clusters, 3, pixels], and one head."""

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__(backbone, config)
        self._shape = PromptShape.of(config)

    def initial_values(self, cluster_count: int = 1) -> dict[str, Tensor]:
        """The initial prompts: the same for every cluster."""
        initial = initial_prompt(self._shape, self.config).to(self.backbone.device)
        return {"prompts": initial.repeat(cluster_count, 1, 1)}

    def rates(self, name: str) -> tuple[float, float]:
        """Learning rate and weight decay of the prompts."""
        return self.config.tuning.prompt_learning_rate, self.config.tuning.prompt_weight_decay

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Features of the members' images, each with its cluster's prompt added."""
        painted = self._shape.paint_at(values["prompts"][batch.cluster_numbers], batch.shifts)
        return self.backbone.features(batch.inputs + painted)

    def corners(self, ids: Sequence[str], epoch: int | None) -> list[Corner]:
        """Corners of the patch in the members' images."""
        return corners_of(ids, epoch, self._shape, self.config)

    def cluster_tensors(self, tensors: Mapping[str, Array], number: int) -> Mapping[str, Array]:
        """A cluster's prompt, as ``prompt``, and the head."""
        return {**tensors, "prompt": tensors["prompts"][number]}

    def predictor(self, constituents: Sequence[Mapping[str, Array]]) -> PromptHeadPredictor:
        """A predictor with the prompts of several clusters and the head."""
        return PromptHeadPredictor(constituents, backbone=self.backbone, config=self.config)
