"""A prompt for each cluster and one head for all of them, tuned together on all records.

    minimise over p_1 ... p_K, h:   mean of CE(h(M(x + p_k(x))), y) over all records (x, y)

The only constituent that is not local to a cluster: its single task has the records of all clusters, so any
deletion tunes all of it again, and plans, costs and quarantine take that into account. It is one artifact, which
all clusters refer to. The steps are those of `gradient_tuner`.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lmeraser.core.tensors import Array
from lmeraser.models.tuners.gradient_tuner import MicroBatch, Values
from lmeraser.models.tuners.prompt_head import PromptHeadTuner

_PROMPTS = "prompts"


class SharedHeadTuner(PromptHeadTuner):
    """Tunes prompts, ``prompts`` float32 [clusters, ...], and one head."""

    def initial_values(self, cluster_count: int = 1) -> dict[str, Tensor]:
        """The initial prompts: the same for every cluster."""
        initial = self._prompt.initial()
        return {_PROMPTS: initial.repeat(cluster_count, *[1] * initial.ndim)}

    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Features of the members' inputs, each with its cluster's prompt."""
        return self._prompt.features(values[_PROMPTS][batch.cluster_numbers], batch)

    def cluster_tensors(self, tensors: Mapping[str, Array], number: int) -> Mapping[str, Array]:
        """A cluster's prompt, under its own name, and the head."""
        return {**tensors, self._prompt.name: tensors[_PROMPTS][number]}
