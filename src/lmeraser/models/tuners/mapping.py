"""A prompt without head: outputs of the backbone are assigned to the classes (DAM-VP, Huang et al., 2023).

    minimise over p:   mean of CE(o(M(x + p)), y) over the members (x, y),    o: the output assigned to each class

Outputs are the features, or the scores of the backbone's public classes. There are two ways to assign them:

- *activity* is that of DAM-VP's published code (github.com/shikiw/DAM-VP, task_adapting/adapter.py): the features
  that vary most over noise (Gaussian pixels, random tokens), as many as there are classes, in the order of their
  numbers. It depends on no record. In DAM-VP the prompt starts from one that was meta-learned on public data; here
  it starts like every other prompt.
- *members*: one output for each class such that the classes' members activate them most, as label mappings by
  frequency do (Chen et al., 2023, "Understanding and improving visual prompting"), one to one by the Hungarian
  algorithm. It is a function of the members, so a deletion computes it again.

An assignment is a head that is not tuned, so `PromptHeadPredictor` predicts with it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.errors import BackboneError
from lmeraser.models.tuners.gradient_tuner import head_input
from lmeraser.models.tuners.prompt_head import PromptHeadTuner


class MappedPromptTuner(PromptHeadTuner):
    """Tunes a prompt; ``head.weight`` has the vectors of the assigned outputs, and ``head.bias`` is 0."""

    tunes_head = False

    def initial_head(
        self, member_features: Callable[[], Tensor], labels: Sequence[int], classes: int
    ) -> tuple[Tensor, Tensor]:
        """The outputs that are assigned to the classes, as weight and bias of a head.

        Raises:
            BackboneError: there are fewer outputs than classes, or the backbone has no public classes.
        """
        if classes > len(self._outputs):
            raise BackboneError(
                "The backbone has fewer outputs than there are classes",
                got=f"{len(self._outputs)} outputs for {classes} classes",
                next_step="choose another mapping.outputs or backbone, or a constituent with a head",
            )
        if self.config.mapping.assign == "activity":
            chosen = np.sort(self._most_active[:classes])
        else:
            chosen = assign_outputs(F.linear(member_features(), self._outputs).numpy(), labels, classes)
        return self._outputs[chosen], torch.zeros(classes)

    @cached_property
    def _outputs(self) -> Tensor:
        """The vectors whose products with features are the outputs, float32 [outputs, d]."""
        if self.config.mapping.outputs == "features":
            return torch.eye(self.backbone.feature_dim)
        if self.backbone.class_vectors is None:
            raise BackboneError(
                "The backbone's checkpoint has no classifier, so there are no public classes to map to",
                got=self.config.backbone.name,
                next_step='choose another backbone, or set mapping.outputs = "features"',
            )
        return torch.from_numpy(self.backbone.class_vectors)

    @cached_property
    def _most_active(self) -> NDArray[np.int64]:
        """Numbers of the outputs, those with the largest standard deviation over noise first; ties by number."""
        count = self.config.mapping.noise_images
        outputs = []
        for number in range(0, count, self.backbone.micro_batch):
            with torch.no_grad():
                features = head_input(self.backbone.features(self._encoder.noise(number)), self.config)
                outputs.append(F.linear(features.cpu(), self._outputs).numpy())
        deviations = np.concatenate(outputs)[:count].astype(np.float64).std(axis=0)
        return np.argsort(-deviations, kind="stable")


def assign_outputs(outputs: NDArray[np.float32], labels: Sequence[int], classes: int) -> NDArray[np.int64]:
    """One output for each class, such that the sum of the classes' mean outputs is largest.

    Args:
        outputs: of the members, float32 [n, outputs].
        labels: class index of each member.
        classes: number of classes; those without members get outputs that are left over.

    Returns:
        Numbers of outputs, int64 [classes], all different.
    """
    from scipy.optimize import linear_sum_assignment

    centred = outputs.astype(np.float64) - outputs.mean(axis=0, dtype=np.float64)
    gains = np.zeros((classes, outputs.shape[1]))
    for label in sorted(set(labels)):
        gains[label] = centred[np.asarray(labels) == label].mean(axis=0)
    _, chosen = linear_sum_assignment(gains, maximize=True)
    return np.asarray(chosen, dtype=np.int64)
