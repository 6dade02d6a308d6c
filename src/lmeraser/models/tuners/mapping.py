"""A prompt without head: each class is read off one of the backbone's outputs (DAM-VP, Huang et al., 2023).

    minimise over p:   mean of CE(o(M(x + p)), y) over the members (x, y),    o: the output assigned to each class

Outputs are the features, or the scores of the backbone's public classes. Two ways to assign them:

- *activity* is that of DAM-VP's published code (github.com/shikiw/DAM-VP, task_adapting/adapter.py): the features
  that differ most over images of Gaussian noise, as many as there are classes, in the order of their numbers. It
  looks at no record. There the prompt starts from one that was meta-learned on public data; here as every prompt.
- *members*: one output for each class such that the classes' members activate them most, as label mappings by
  frequency do (Chen et al., 2023, "Understanding and improving visual prompting"), one to one by the Hungarian
  algorithm. A function of the members, so it is found again when they change.

An assignment is a head that is not tuned, so `prompt_head` predicts with it. Knows nothing about other clusters.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.core.seeding import normal
from lmeraser.errors import BackboneError
from lmeraser.models.tuners.descent import head_input
from lmeraser.models.tuners.prompt_head import PromptHeadTuner


class MappedPromptTuner(PromptHeadTuner):
    """A prompt, and outputs for classes: ``head.weight`` is what gives them, ``head.bias`` is 0."""

    tunes_head = False

    def first_head(self, look: Callable[[], Tensor], labels: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
        """The outputs that are assigned to the classes, as weight and bias of a head.

        Raises:
            BackboneError: there are fewer outputs than classes, or the backbone has no public classes.
        """
        if classes > len(self._outputs):
            raise BackboneError(
                "Every class has an output of the backbone to itself.",
                got=f"{len(self._outputs)} outputs for {classes} classes",
                next_step="choose another mapping.outputs or backbone, or a constituent with a head",
            )
        if self.config.mapping.assign == "activity":
            chosen = np.sort(self._most_active[:classes])
        else:
            chosen = most_activated(F.linear(look(), self._outputs).numpy(), labels, classes)
        return self._outputs[chosen], torch.zeros(classes)

    @cached_property
    def _outputs(self) -> Tensor:
        """What gives the outputs from features, float32 [outputs, d]."""
        if self.config.mapping.outputs == "features":
            return torch.eye(self.backbone.feature_dim)
        if self.backbone.class_vectors is None:
            raise BackboneError(
                "A mapping to public classes needs a backbone whose checkpoint has a classifier of its own.",
                got=self.config.backbone.name,
                next_step='set mapping.outputs = "features"',
            )
        return torch.from_numpy(self.backbone.class_vectors)

    @cached_property
    def _most_active(self) -> NDArray[np.int64]:
        """Outputs by their standard deviation over noise, the largest first; equal ones by number."""
        size, micro, count = self.backbone.image_size, self.backbone.micro_batch, self.config.mapping.noise_images
        found = []
        for number in range(0, count, micro):
            noise = normal(self.config.seed, f"noise {number}", micro * 3 * size * size)
            images = torch.from_numpy(noise).reshape(micro, 3, size, size).to(self.backbone.device)
            with torch.no_grad():
                features = head_input(self.backbone.features(images), self.config)
                found.append(F.linear(features.cpu(), self._outputs).numpy())
        deviations = np.concatenate(found)[:count].astype(np.float64).std(axis=0)
        return np.argsort(-deviations, kind="stable")


def most_activated(outputs: NDArray[np.float32], labels: Sequence[int], classes: int) -> NDArray[np.int64]:
    """One output for each class, such that the classes' mean outputs sum up to the most.

    Args:
        outputs: of the members, float32 [n, outputs].
        labels: class index of each.
        classes: number of classes; those without members get what is left.

    Returns:
        int64 [classes], all different.
    """
    from scipy.optimize import linear_sum_assignment

    centred = outputs.astype(np.float64) - outputs.mean(axis=0, dtype=np.float64)
    gains = np.zeros((classes, outputs.shape[1]))
    for label in sorted(set(labels)):
        gains[label] = centred[np.asarray(labels) == label].mean(axis=0)
    _, chosen = linear_sum_assignment(gains, maximize=True)
    return np.asarray(chosen, dtype=np.int64)
