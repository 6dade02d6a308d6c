"""Gradient steps on the members' images: what all kinds that are tuned on images have in common.

    minimise over b, h:   mean of CE(h(f_b(x)), y) over the members (x, y)

f_b are features that depend on what is tuned (b: a prompt, tokens, a whole network), h is a linear head. Each step
takes ``batch_size`` records, computes gradients in micro-batches of one fixed shape (padded with weight 0), adds
them up in a fixed order and lets torch's SGD or AdamW step. The number of epochs is fixed. Order, crops and mirror
images are hashes of the record id, so they don't depend on the other members. Knows nothing about stores, other
clusters or threads.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.seeding import below
from lmeraser.core.tensors import Array
from lmeraser.data.images import Canvases
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.tuners.base import Members, ParallelMap, Tuner, serial, untold
from lmeraser.models.tuners.class_means import class_means
from lmeraser.models.tuners.optimizing import Stepper, batches
from lmeraser.models.tuners.views import crop, to_input

Values = Mapping[str, Tensor]  # what a constituent consists of, float32, by name


@dataclass(frozen=True)
class MicroBatch:
    """At most ``micro_batch`` members as one pass sees them.

    Attributes:
        ids: of the members.
        labels: class index of each.
        groups: number of the cluster of each, where clusters are tuned together; else 0.
        inputs: of the backbone, float32 [micro_batch, 3, size, size]; those beyond the members are padding.
        epoch: in which they are seen; None: as predictions see them.
    """

    ids: Sequence[str]
    labels: Sequence[int]
    groups: Sequence[int]
    inputs: Tensor
    epoch: int | None


class GradientTuner(Tuner[Canvases]):
    """A kind that is tuned on images: features with something tuned in them, and a linear head.

    Args:
        backbone: the frozen network.
        config: all settings; those of ``[compute]`` do not change a result.

    Attributes:
        tunes_head: whether the head is tuned, too.
    """

    tunes_head = True

    def __init__(self, backbone: Backbone, config: Config) -> None:
        self.backbone, self.config = backbone, config

    @abstractmethod
    def body(self, parts: int = 1) -> dict[str, Tensor]:
        """Initial values of all but the head, on the backbone's device.

        Args:
            parts: number of clusters that are tuned together.
        """

    @abstractmethod
    def rate(self, name: str) -> tuple[float, float]:
        """Learning rate and weight decay of one of these values."""

    @abstractmethod
    def features(self, values: Values, batch: MicroBatch) -> Tensor:
        """Features of a micro-batch, float32 [micro_batch, d], differentiable in the values."""

    def load(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> Canvases:
        """The members' images, decoded once as long as they fit in the budget."""
        side = self.config.backbone.canvas_size
        return Canvases(ids, fetch, side=side, budget=budget, parallel=parallel)

    def tune(
        self,
        members: Members[Canvases],
        *,
        classes: int,
        parallel: ParallelMap = serial,
        start: Mapping[str, Array] | None = None,
        on_step: Callable[[int], None] = untold,
    ) -> dict[str, Array]:
        """Tune a constituent.

        Returns:
            The values by their names: what `body` names, ``head.weight`` float32 [classes, d] and ``head.bias``
            float32 [classes].
        """
        images = _Images(members, self.backbone, self.config)
        values = self._initial(members, images, classes, parallel) if start is None else self._resumed(start)
        stepper = Stepper(self._groups(values), self.config.tuning, len(members.ids))
        size = self.backbone.micro_batch
        for epoch, ids in batches(members.ids, self.config):
            work = partial(self._gradients, values, partial(images.seen, epoch=epoch), len(ids))
            parts = parallel(work, [ids[first : first + size] for first in range(0, len(ids), size)])
            stepper.step(_sum(parts))
            on_step(len(ids))
        return {name: value.detach().cpu().numpy() for name, value in values.items()}

    def first_head(self, look: Callable[[], Tensor], labels: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of the head to start with.

        Args:
            look: gives the features of all members as the head sees them, float32 [n, d].
            labels: class index of each.
            classes: number of classes.
        """
        if self.config.head.init == "class_means":
            return class_means(look(), labels, classes)
        return torch.zeros((classes, self.backbone.feature_dim)), torch.zeros(classes)

    def _initial(
        self, members: Members[Canvases], images: _Images, classes: int, parallel: ParallelMap
    ) -> dict[str, Tensor]:
        body = self.body(members.parts)

        def look() -> Tensor:
            """Of uncropped members, as predictions see them."""
            size = self.backbone.micro_batch
            parts = [members.ids[first : first + size] for first in range(0, len(members.ids), size)]
            return torch.cat(list(parallel(seen, parts)))

        def seen(ids: Sequence[str]) -> Tensor:
            with torch.no_grad():
                features = self.features(body, images.seen(ids, epoch=None))
                return head_input(features, self.config)[: len(ids)].cpu()

        weight, bias = self.first_head(look, members.labels, classes)
        head = {"head.weight": weight, "head.bias": bias}
        return self._ready({**body, **head})

    def _resumed(self, start: Mapping[str, Array]) -> dict[str, Tensor]:
        names = [*self.body(), "head.weight", "head.bias"]
        return self._ready({name: torch.from_numpy(start[name]) for name in names})

    def _ready(self, values: Values) -> dict[str, Tensor]:
        """Values of this tuning's own: steps change them in place."""
        fresh = {
            name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in values.items()
        }
        return {name: value.to(self.backbone.device).requires_grad_(True) for name, value in fresh.items()}

    def _groups(self, values: Values) -> list[dict[str, Any]]:
        """Torch's parameter groups: values with the same rates, in their order."""
        tuning = self.config.tuning
        head = {
            "head.weight": (tuning.head_learning_rate, tuning.head_weight_decay),
            "head.bias": (tuning.head_learning_rate, 0.0),
        }
        rates = {name: head[name] if name in head else self.rate(name) for name in values}
        return [
            {"params": [values[name] for name in names], "lr": rate, "weight_decay": decay}
            for (rate, decay), names in groupby(self._tuned(values), key=rates.__getitem__)
        ]

    def _tuned(self, values: Values) -> list[str]:
        return [name for name in values if self.tunes_head or not name.startswith("head.")]

    def _gradients(
        self, values: Values, see: Callable[[Sequence[str]], MicroBatch], count: int, ids: Sequence[str]
    ) -> list[Tensor]:
        """Gradients of these records' share of the mean cross-entropy over the step's ``count`` records."""
        batch = see(ids)
        own = {name: value.detach() for name, value in values.items()}
        tuned = [own[name].requires_grad_(own[name].numel() > 0) for name in self._tuned(values)]
        logits = F.linear(head_input(self.features(own, batch), self.config), own["head.weight"], own["head.bias"])
        missing = len(logits) - len(ids)
        labels = torch.tensor([*batch.labels, *[0] * missing], device=logits.device)
        losses = F.cross_entropy(logits, labels, reduction="none")
        weights = torch.tensor([1.0 / count] * len(ids) + [0.0] * missing, device=logits.device)
        wanted = [value for value in tuned if value.requires_grad]
        # A network may have weights that its features do not depend on; their gradients are 0.
        found = iter(torch.autograd.grad((losses * weights).sum(), wanted, materialize_grads=True))
        return [next(found) if value.requires_grad else value for value in tuned]


def head_input(features: Tensor, config: Config) -> Tensor:
    """Features as the head sees them: per-sample normalised if the settings say so, never over a batch."""
    if config.head.normalize == "none":
        return features
    scale = features.square().mean(dim=1, keepdim=True).add(1e-12).rsqrt()
    return features * scale


class LinearHeads:
    """The heads of several clusters, to predict with.

    Args:
        constituents: what `GradientTuner.tune` gave, for each.
        backbone: the frozen network.
        config: all settings.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]], backbone: Backbone, config: Config) -> None:
        self._config = config
        self._weights, self._biases = (
            stacked(constituents, name, backbone) for name in ("head.weight", "head.bias")
        )

    def probabilities(self, features: Tensor, index: Tensor, count: int) -> NDArray[np.float32]:
        """Probabilities, float32 [count, classes], by one head for each image.

        Args:
            features: of one micro-batch, float32 [micro_batch, d].
            index: position of the head for each of them.
            count: how many are images and no padding.
        """
        seen = head_input(features, self._config)
        # A product and a sum for each image alone: a batched matrix product may depend on the neighbours.
        logits = (self._weights[index] * seen[:, None, :]).sum(dim=2) + self._biases[index]
        probabilities: NDArray[np.float32] = logits.softmax(dim=1)[:count].cpu().numpy()
        return probabilities


def stacked(constituents: Sequence[Mapping[str, Array]], name: str, backbone: Backbone) -> Tensor:
    """One value of several constituents, [constituents, ...]."""
    return torch.from_numpy(np.stack([tensors[name] for tensors in constituents])).to(backbone.device)


def padded_index(chosen: NDArray[np.int64], count: int) -> Tensor:
    """Positions for a whole micro-batch: those of padding are 0."""
    return F.pad(torch.from_numpy(chosen), (0, count - len(chosen)))


class _Images:
    """The members' images as each epoch sees them: cropped and mirrored by hashes of their ids."""

    def __init__(self, members: Members[Canvases], backbone: Backbone, config: Config) -> None:
        self._members, self._backbone, self._config = members, backbone, config
        self._position = {record_id: index for index, record_id in enumerate(members.ids)}

    def seen(self, ids: Sequence[str], *, epoch: int | None) -> MicroBatch:
        """At most one micro-batch of them; without epoch: their centres, as predictions see them."""
        config, indices = self._config, [self._position[record_id] for record_id in ids]
        size, room = config.backbone.image_size, config.backbone.canvas_size - config.backbone.image_size
        centre = (room // 2, room // 2)
        corners, mirrored = [centre] * len(ids), [False] * len(ids)
        if epoch is not None:
            for place, record_id in enumerate(ids):
                bounds = (room + 1, room + 1, 2)
                row, column, mirror = below(config.seed, "augment", bounds, epoch, record_id)
                corners[place] = (row, column) if config.tuning.crop else centre
                mirrored[place] = config.tuning.flip and mirror == 1
        pixels = crop(self._members.given[indices], corners, size)
        if any(mirrored):
            pixels[mirrored] = pixels[mirrored, :, ::-1]
        labels = [self._members.labels[index] for index in indices]
        groups = [self._members.groups[index] if self._members.groups else 0 for index in indices]
        return MicroBatch(ids, labels, groups, to_input(pixels, self._backbone), epoch)


def _sum(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    """Sums of gradients in the order of micro-batches, not the order in which they finished."""
    iterator = iter(parts)
    total = next(iterator)
    for part in iterator:
        total = [one + other for one, other in zip(total, part, strict=True)]
    return total
