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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from lmeraser.backbones.base import Backbone
from lmeraser.config import Config, TuningConfig
from lmeraser.constituents.base import Members, ParallelMap
from lmeraser.determinism import below, order
from lmeraser.prompts import Corner, PromptShape
from lmeraser.tensors import Array


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
    on_step: Callable[[int], None] = lambda records: None,
) -> dict[str, Array]:
    """Tune a prompt and a head on the members, from their initial values.

    Args:
        members: the cluster's records; at least one.
        backbone: the frozen network.
        config: all settings; those of ``[compute]`` do not change the result.
        classes: number of classes, a public input.
        parallel: runs micro-batches of one step, possibly at the same time.
        on_step: called after every step with its number of records; may raise to stop.

    Returns:
        ``prompt`` float32 [3, pixels], ``head.weight`` float32 [classes, d], ``head.bias`` float32 [classes].
    """
    shape = PromptShape.of(config)
    values = _initial(shape, config, classes, backbone)
    optimizer = _optimizer(values, config.tuning)
    base_rates = [group["lr"] for group in optimizer.param_groups]
    steps = math.ceil(len(members.ids) / config.tuning.batch_size)
    schedule = _schedule(config.tuning, steps)
    for epoch in range(config.tuning.epochs):
        for batch, count in _batches(members, shape, config, epoch):
            factor = next(schedule)
            for group, rate in zip(optimizer.param_groups, base_rates, strict=True):
                group["lr"] = rate * factor
            work = partial(_gradients, count=count, values=values, shape=shape, backbone=backbone, config=config)
            gradients = parallel(work, batch)
            for value, *parts in zip(values, *gradients, strict=True):
                value.grad = _sum(parts)
            optimizer.step()
            on_step(count)
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


def crop(canvases: Array, corners: Sequence[Corner], size: int) -> Array:
    """The ``size`` px square of each canvas at its corner: uint8 [n, size, size, 3]."""
    cut = [
        canvas[row : row + size, column : column + size]
        for canvas, (row, column) in zip(canvases, corners, strict=True)
    ]
    return np.stack(cut)


def to_input(pixels: Array, backbone: Backbone) -> Tensor:
    """Pixels, uint8 [n, s, s, 3] with n <= micro_batch, as normalised input [micro_batch, 3, s, s].

    Rows beyond n are black images: every pass has the same shape, because another shape gives other bits.
    """
    missing = backbone.micro_batch - len(pixels)
    padded = np.pad(pixels, ((0, missing), (0, 0), (0, 0), (0, 0)))
    return backbone.normalize(torch.from_numpy(padded).permute(0, 3, 1, 2))


def _initial(shape: PromptShape, config: Config, classes: int, backbone: Backbone) -> _Values:
    prompt = torch.from_numpy(shape.initial(config.seed, config.prompt.init_scale))
    weight = torch.zeros((classes, backbone.feature_dim))
    bias = torch.zeros(classes)
    return _Values(*(value.to(backbone.device).requires_grad_(True) for value in (prompt, weight, bias)))


def _optimizer(values: _Values, tuning: TuningConfig) -> torch.optim.Optimizer:
    groups = [
        {
            "params": [values.prompt],
            "lr": tuning.prompt_learning_rate,
            "weight_decay": tuning.prompt_weight_decay,
        },
        {"params": [values.weight], "lr": tuning.head_learning_rate, "weight_decay": tuning.head_weight_decay},
        {"params": [values.bias], "lr": tuning.head_learning_rate, "weight_decay": 0.0},
    ]
    if tuning.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=tuning.momentum, foreach=False)
    return torch.optim.AdamW(groups, foreach=False)


def _schedule(tuning: TuningConfig, steps_per_epoch: int) -> Iterator[float]:
    """Factor of the learning rates at each step: linear warm-up, then a cosine to 0, or constant."""
    total = tuning.epochs * steps_per_epoch
    warm = min(round(tuning.warmup_epochs * steps_per_epoch), total)
    for step in range(total):
        if step < warm:
            yield (step + 1) / warm
        elif tuning.schedule == "constant":
            yield 1.0
        else:
            yield 0.5 * (1 + math.cos(math.pi * (step - warm) / (total - warm)))


def _batches(
    members: Members, shape: PromptShape, config: Config, epoch: int
) -> Iterator[tuple[list[_MicroBatch], int]]:
    """The steps of one epoch: the micro-batches of each, and its number of records."""
    position = {record_id: index for index, record_id in enumerate(members.ids)}
    ordered = order(config.seed, "order", members.ids, epoch)
    micro = config.backbone.micro_batch
    for start in range(0, len(ordered), config.tuning.batch_size):
        ids = ordered[start : start + config.tuning.batch_size]
        parts = [ids[i : i + micro] for i in range(0, len(ids), micro)]
        yield [_micro_batch(members, position, part, shape, config, epoch) for part in parts], len(ids)


def _micro_batch(
    members: Members,
    position: dict[str, int],
    ids: Sequence[str],
    shape: PromptShape,
    config: Config,
    epoch: int,
) -> _MicroBatch:
    indices = [position[record_id] for record_id in ids]
    size, room = config.backbone.image_size, config.backbone.canvas_size - config.backbone.image_size
    centre = (room // 2, room // 2)
    corners, mirrored = [], []
    for record_id in ids:
        row, column, mirror = below(config.seed, "augment", (room + 1, room + 1, 2), epoch, record_id)
        corners.append((row, column) if config.tuning.crop else centre)
        mirrored.append(config.tuning.flip and mirror == 1)
    pixels = crop(members.canvases[indices], corners, size)
    if any(mirrored):
        pixels[mirrored] = pixels[mirrored, :, ::-1]
    labels = [members.labels[index] for index in indices]
    return _MicroBatch(pixels, labels, [shape.training_corner(config.seed, epoch, i) for i in ids])


def _gradients(
    part: _MicroBatch, *, count: int, values: _Values, shape: PromptShape, backbone: Backbone, config: Config
) -> list[Tensor]:
    """Gradients of this micro-batch's share of the mean cross-entropy over the step's ``count`` records."""
    prompt, weight, bias = (value.detach().requires_grad_(True) for value in values)
    missing = backbone.micro_batch - len(part.labels)
    corners = [*part.corners, *[(0, 0)] * missing] if shape.kind == "random_patch" else [(0, 0)]
    images = to_input(part.pixels, backbone) + shape.paint(prompt[None], corners)
    logits = F.linear(head_input(backbone.features(images), config), weight, bias)
    labels = torch.tensor([*part.labels, *[0] * missing], device=logits.device)
    losses = F.cross_entropy(logits, labels, reduction="none")
    weights = torch.tensor([1.0 / count] * len(part.labels) + [0.0] * missing, device=logits.device)
    return list(torch.autograd.grad((losses * weights).sum(), [prompt, weight, bias], materialize_grads=True))


def _sum(parts: Sequence[Tensor]) -> Tensor:
    """Sum in the order given: the order of micro-batches, not the order in which they finished."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
