"""A backbone that takes microseconds, and the training loop that a PyTorch user would write for it.

Tuning is compared with this loop, which shares no code with it but the hashed randomness of `core.seeding`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from conftest import png
from lmeraser.config.schema import Config, parse
from lmeraser.core.digests import Digest
from lmeraser.core.seeding import below, order
from lmeraser.data.canvases import Canvases
from lmeraser.models.backbones.base import Backbone, ImageBackbone, channel_constants
from lmeraser.models.backbones.frozen import freeze
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities.base import MemberInputs
from lmeraser.models.modalities.image import ImageMembers
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.base import Members, serial_map

SIZE, SIDE, CLASSES, FEATURES = 16, 18, 3, 8


class Pool(nn.Module):
    """The mean over an image."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=(2, 3))


class Small(ImageBackbone):
    """A frozen convolution and a mean over the image, differentiable like any other backbone.

    Args:
        micro_batch: images in every pass.
        garbage: added to the features of black images, which are padding.
    """

    def __init__(self, micro_batch: int = 4, garbage: float = 0.0) -> None:
        torch.manual_seed(0)
        self.digest = Digest.of(b"small")
        self.image_size, self.micro_batch, self.feature_dim = SIZE, micro_batch, FEATURES
        self.device = torch.device("cpu")
        self._mean = channel_constants((0.5,) * 3, self.device)
        self._std = channel_constants((0.5,) * 3, self.device)
        self.features_network = freeze(nn.Sequential(nn.Conv2d(3, FEATURES, 5, stride=2), nn.Tanh(), Pool()))
        self.class_vectors = np.random.default_rng(0).standard_normal((5, FEATURES)).astype(np.float32)
        self.garbage = garbage
        self.shapes: set[tuple[int, ...]] = set()

    def features(self, inputs: Tensor, prompt: Tensor | None = None) -> Tensor:
        self.shapes.add(tuple(inputs.shape))
        black = (inputs.detach() == -1).all(dim=(1, 2, 3))
        pooled: Tensor = self.features_network(inputs if prompt is None else inputs + prompt)
        return pooled + self.garbage * black[:, None]

    def network(self) -> nn.Module:
        return copy.deepcopy(self.features_network)


def config(**changes: Any) -> Config:
    """Settings for this backbone; those of ``tuning`` are merged with the defaults."""
    tuning = {"epochs": 3, "batch_size": 8, "head_learning_rate": 0.05, "prompt_learning_rate": 0.05}
    base = {
        "backbone": {"image_size": SIZE, "resize": SIDE, "micro_batch": 4},
        "prompt": {"width": 3, "init_scale": 0.1},
        "head": {"normalize": "none"},
        "tuning": {**tuning, **changes.pop("tuning", {})},
    }
    return parse({**base, **changes})


def for_tuning(known: Members[Canvases], chosen: Config, backbone: Backbone) -> Members[MemberInputs]:
    """The records as a gradient tuner takes them."""
    return Members(**{**vars(known), "inputs": ImageMembers(known.inputs, chosen, backbone)})


def members(count: int, labels: list[int] | None = None) -> Members[Canvases]:
    """Records with images of noise."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    images = {f"r{number:02d}": png(picture) for number, picture in enumerate(pixels)}
    canvases = Canvases(tuple(images), lambda ids: [images[i] for i in ids], side=SIDE, budget=10**8)
    chosen = labels if labels is not None else [number % CLASSES for number in range(count)]
    return Members(tuple(images), tuple(chosen), canvases)


def tuned(
    known: Members[Canvases],
    chosen: Config,
    backbone: Backbone | None = None,
    parallel: Any = serial_map,
    **options: Any,
) -> dict[str, Any]:
    """The constituent that `create_tuner` tunes for these members."""
    with deterministic():
        used = backbone or Small()
        return create_tuner(chosen, used).tune(
            for_tuning(known, chosen, used), classes=CLASSES, parallel=parallel, **options
        )


def linear_head(chosen: Config) -> tuple[nn.Linear, list[dict[str, Any]]]:
    """A head of zeros and its parameter groups."""
    tuning = chosen.tuning
    head = nn.Linear(FEATURES, CLASSES)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    rate, decay = tuning.head_learning_rate, tuning.head_weight_decay
    weight = {"params": [head.weight], "lr": rate, "weight_decay": decay}
    return head, [weight, {"params": [head.bias], "lr": rate, "weight_decay": 0.0}]


def torch_optimizer(
    groups: list[dict[str, Any]], chosen: Config, count: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """torch's optimiser and scheduler for ``count`` records."""
    tuning = chosen.tuning
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups)
    if tuning.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=tuning.momentum)
    warm = math.ceil(count / tuning.batch_size)
    total = warm * tuning.epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            (step + 1) / warm
            if step < warm
            else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        ),
    )
    return optimizer, scheduler


def plain_loop(
    known: Members[Canvases],
    chosen: Config,
    groups: list[dict[str, Any]],
    logits: Callable[[Tensor, list[str]], Tensor],
) -> None:
    """Tunes the values in ``groups``: whole batches, torch's optimiser, scheduler and cross-entropy."""
    tuning = chosen.tuning
    optimizer, scheduler = torch_optimizer(groups, chosen, len(known.ids))
    for epoch in range(tuning.epochs):
        shuffled = order(0, "order", known.ids, epoch)
        for first in range(0, len(shuffled), tuning.batch_size):
            batch = shuffled[first : first + tuning.batch_size]
            images, labels = [], []
            for record_id in batch:
                row, column, mirror = below(0, "augment", (3, 3, 2), epoch, record_id)
                index = known.ids.index(record_id)
                view = known.inputs[[index]][0][row : row + SIZE, column : column + SIZE]
                image = torch.from_numpy(view.copy()).permute(2, 0, 1).float()
                images.append(image.flip(2) if tuning.flip and mirror else image)
                labels.append(known.labels[index])
            inputs = torch.stack(images) / 127.5 - 1
            loss = nn.functional.cross_entropy(logits(inputs, batch), torch.tensor(labels))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            scheduler.step()


def save_transformer(folder: Path, family: str) -> Path:
    """A tiny randomly initialised ViT or Swin, saved as transformers saves models."""
    from transformers import SwinConfig, SwinModel, ViTConfig, ViTModel

    torch.manual_seed(0)
    if family == "vit":
        shape = {"hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
        model = ViTModel(ViTConfig(image_size=32, patch_size=8, **shape), add_pooling_layer=False)
    else:
        layout: dict[str, Any] = {"embed_dim": 12, "depths": [1, 1], "num_heads": [2, 2], "window_size": 4}
        model = SwinModel(SwinConfig(image_size=32, patch_size=4, **layout))
    model.save_pretrained(folder)
    return folder
