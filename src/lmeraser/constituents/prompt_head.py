"""A prompt and a linear head, tuned together on one cluster's members (paper, Eq. 3).

    minimise over p, h:   mean of CE(h(M(x + p)), y) over the members (x, y)

M is the frozen backbone. Each step takes ``batch_size`` records, computes gradients in micro-batches of one fixed
shape (padded with weight 0), adds them up in a fixed order and lets torch's SGD or AdamW step. The learning rates
follow a warm-up and a cosine over the cluster's own number of steps; the number of epochs is fixed. Order, crops
and mirror images are hashes of the record id, so they don't depend on the other members. Knows nothing about
stores, other clusters or threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.backbones.base import Backbone
from lmeraser.config import Config, TuningConfig
from lmeraser.constituents.base import Members, ParallelMap
from lmeraser.constituents.class_means import class_means
from lmeraser.constituents.optimizing import Stepper
from lmeraser.determinism import below, order
from lmeraser.prompts import Corner, PromptShape
from lmeraser.tensors import Array
from lmeraser.views import crop, to_input


@dataclass(frozen=True)
class _MicroBatch:
    """At most ``micro_batch`` records of one step: pixels uint8 [n, s, s, 3], their labels and patch corners."""

    pixels: Array
    labels: Sequence[int]
    corners: Sequence[Corner]


@dataclass(frozen=True)
class _Values:
    """What is tuned: prompt [3, pixels], head weight [classes, d] and bias [classes], all float32."""

    prompt: Tensor
    weight: Tensor
    bias: Tensor

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.prompt, self.weight, self.bias))


def tune(
    members: Members,
    *,
    backbone: Backbone,
    config: Config,
    classes: int,
    parallel: ParallelMap,
    start: Mapping[str, Array] | None = None,
    on_step: Callable[[int], None] = lambda records: None,
) -> dict[str, Array]:
    """Tune a prompt and a head on the members.

    Args:
        members: the cluster's records; at least one.
        backbone: the frozen network.
        config: all settings; those of ``[compute]`` do not change the result.
        classes: number of classes, a public input.
        parallel: runs micro-batches of one step, possibly at the same time.
        start: what an earlier tuning gave, to go on from; None: the initial values.
        on_step: called after every step with its number of records; may raise to stop.

    Returns:
        ``prompt`` float32 [3, pixels], ``head.weight`` float32 [classes, d], ``head.bias`` float32 [classes].
    """
    shape = PromptShape.of(config)
    images = _Images(members, shape, config)
    values = _initial(shape, config, classes, backbone) if start is None else _resumed(start, backbone)
    if start is None and config.head.init == "class_means":
        values = _from_means(values, members, images, shape, config, backbone, parallel)
    steps = math.ceil(len(members.ids) / config.tuning.batch_size)
    stepper = Stepper(_groups(values, config.tuning), config.tuning, steps)
    for epoch in range(config.tuning.epochs):
        for ids in _batches(members, config, epoch):
            parts = [ids[i : i + backbone.micro_batch] for i in range(0, len(ids), backbone.micro_batch)]
            pick = partial(images.micro_batch, epoch=epoch)
            common: dict[str, Any] = {"values": values, "shape": shape, "backbone": backbone, "config": config}
            work = partial(_gradients, pick, len(ids), **common)
            gradients = parallel(work, parts)
            stepper.step([_sum(parts) for parts in zip(*gradients, strict=True)])
            on_step(len(ids))
    return {
        "prompt": values.prompt.detach().cpu().numpy(),
        "head.weight": values.weight.detach().cpu().numpy(),
        "head.bias": values.bias.detach().cpu().numpy(),
    }


def head_input(features: Tensor, config: Config) -> Tensor:
    """Features as the head sees them: per-sample normalised if the settings say so, never over a batch."""
    if config.head.normalize == "none":
        return features
    scale = features.square().mean(dim=1, keepdim=True).add(1e-12).rsqrt()
    return features * scale


class PromptHeads:
    """The prompts and heads of several clusters, to predict with.

    Args:
        constituents: what `tune` gave, for each.
        backbone: the frozen network.
        config: all settings.
    """

    def __init__(self, constituents: Sequence[Mapping[str, Array]], *, backbone: Backbone, config: Config) -> None:
        self._backbone, self._config, self._shape = backbone, config, PromptShape.of(config)
        self._prompts, self._weights, self._biases = (
            torch.from_numpy(np.stack([tensors[name] for tensors in constituents])).to(backbone.device)
            for name in ("prompt", "head.weight", "head.bias")
        )

    def classify(self, clean: Tensor, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, classes], by the prompt and head at one position for each image.

        Args:
            clean: input of one micro-batch, of which the first n are images.
            chosen: positions, int64 [n].
        """
        index = torch.nn.functional.pad(torch.from_numpy(chosen), (0, len(clean) - len(chosen)))
        prompts = self._shape.paint(self._prompts[index], [self._shape.prediction_corner])
        features = head_input(self._backbone.features(clean + prompts), self._config)
        # A product and a sum for each image alone: a batched matrix product may depend on the neighbours.
        logits = (self._weights[index] * features[:, None, :]).sum(dim=2) + self._biases[index]
        probabilities: NDArray[np.float32] = logits.softmax(dim=1)[: len(chosen)].cpu().numpy()
        return probabilities


def _initial(shape: PromptShape, config: Config, classes: int, backbone: Backbone) -> _Values:
    prompt = torch.from_numpy(shape.initial(config.seed, config.prompt.init_scale))
    weight = torch.zeros((classes, backbone.feature_dim))
    bias = torch.zeros(classes)
    return _Values(*(value.to(backbone.device).requires_grad_(True) for value in (prompt, weight, bias)))


def _from_means(
    values: _Values,
    members: Members,
    images: _Images,
    shape: PromptShape,
    config: Config,
    backbone: Backbone,
    parallel: ParallelMap,
) -> _Values:
    """The initial prompt, with the head that its features give: of uncropped members, as predictions see them."""
    painted = shape.paint(values.prompt.detach()[None], [shape.prediction_corner])

    def look(indices: Sequence[int]) -> Tensor:
        with torch.no_grad():
            inputs = to_input(images.centred(indices), backbone)
            return head_input(backbone.features(inputs + painted), config)[: len(indices)].cpu()

    every, size = range(len(members.ids)), backbone.micro_batch
    parts = parallel(look, [every[first : first + size] for first in range(0, len(every), size)])
    weight, bias = class_means(torch.cat(parts), members.labels, len(values.bias))
    tensors = (tensor.to(backbone.device).requires_grad_(True) for tensor in (weight, bias))
    return _Values(values.prompt, *tensors)


def _resumed(start: Mapping[str, Array], backbone: Backbone) -> _Values:
    tensors = (torch.from_numpy(start[name].copy()) for name in ("prompt", "head.weight", "head.bias"))
    return _Values(*(tensor.to(backbone.device).requires_grad_(True) for tensor in tensors))


def _groups(values: _Values, tuning: TuningConfig) -> list[dict[str, Any]]:
    return [
        {
            "params": [values.prompt],
            "lr": tuning.prompt_learning_rate,
            "weight_decay": tuning.prompt_weight_decay,
        },
        {"params": [values.weight], "lr": tuning.head_learning_rate, "weight_decay": tuning.head_weight_decay},
        {"params": [values.bias], "lr": tuning.head_learning_rate, "weight_decay": 0.0},
    ]


def _batches(members: Members, config: Config, epoch: int) -> Iterator[Sequence[str]]:
    """The record ids of each step of one epoch."""
    ordered = order(config.seed, "order", members.ids, epoch)
    for start in range(0, len(ordered), config.tuning.batch_size):
        yield ordered[start : start + config.tuning.batch_size]


class _Images:
    """The members' images as each epoch sees them: cropped, mirrored and patched by hashes of their ids."""

    def __init__(self, members: Members, shape: PromptShape, config: Config) -> None:
        self._members, self._shape, self._config = members, shape, config
        self._position = {record_id: index for index, record_id in enumerate(members.ids)}

    def centred(self, indices: Sequence[int]) -> Array:
        """The centres of some of them, uint8 [n, s, s, 3]."""
        size = self._config.backbone.image_size
        corner = (self._config.backbone.canvas_size - size) // 2
        return crop(self._members.canvases[list(indices)], [(corner, corner)] * len(indices), size)

    def micro_batch(self, ids: Sequence[str], *, epoch: int) -> _MicroBatch:
        """At most one micro-batch of them."""
        config, indices = self._config, [self._position[record_id] for record_id in ids]
        size, room = config.backbone.image_size, config.backbone.canvas_size - config.backbone.image_size
        centre = (room // 2, room // 2)
        corners, mirrored = [], []
        for record_id in ids:
            row, column, mirror = below(config.seed, "augment", (room + 1, room + 1, 2), epoch, record_id)
            corners.append((row, column) if config.tuning.crop else centre)
            mirrored.append(config.tuning.flip and mirror == 1)
        pixels = crop(self._members.canvases[indices], corners, size)
        if any(mirrored):
            pixels[mirrored] = pixels[mirrored, :, ::-1]
        labels = [self._members.labels[index] for index in indices]
        return _MicroBatch(pixels, labels, [self._shape.training_corner(config.seed, epoch, i) for i in ids])


def _gradients(
    pick: Callable[[Sequence[str]], _MicroBatch],
    count: int,
    ids: Sequence[str],
    *,
    values: _Values,
    shape: PromptShape,
    backbone: Backbone,
    config: Config,
) -> list[Tensor]:
    """Gradients of these records' share of the mean cross-entropy over the step's ``count`` records."""
    part = pick(ids)
    prompt, weight, bias = (value.detach().requires_grad_(value.numel() > 0) for value in values)
    missing = backbone.micro_batch - len(part.labels)
    corners = [*part.corners, *[(0, 0)] * missing] if shape.kind == "random_patch" else [(0, 0)]
    images, painted = to_input(part.pixels, backbone), shape.paint(prompt[None], corners)
    shared = len(painted) == 1
    features = backbone.features(images, painted) if shared else backbone.features(images + painted)
    logits = F.linear(head_input(features, config), weight, bias)
    labels = torch.tensor([*part.labels, *[0] * missing], device=logits.device)
    losses = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([1.0 / count] * len(part.labels) + [0.0] * missing, device=logits.device)
    total = (losses * weights).sum()
    if not prompt.requires_grad:  # without a prompt nothing flows back through the backbone
        return [prompt, *torch.autograd.grad(total, [weight, bias])]
    return list(torch.autograd.grad(total, [prompt, weight, bias]))


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Sum in the order given: the order of micro-batches, not the order in which they finished."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
