"""The steps of a pre-training, and its state between them.

All randomness is hashed (`determinism`): initial weights by their names, order, crops and mirror images by the
epoch and the image's place. So the state is the number of steps done, the weights and the optimiser's moments.
Written every so many steps, it lets a stopped training go on and, on a CPU, give the same bytes. Follows `write_arrow_dataset`
(images) and `recipe`; knows nothing about folders of backbones.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own convention
from torch import Tensor

from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.progress import Progress
from lmeraser.core.seeding import below, normal, order
from lmeraser.core.tensors import Array, from_bytes, to_bytes
from lmeraser.data.crops import crop
from lmeraser.data.images import decode, to_canvas
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.backbones.base import channel_constants
from lmeraser.models.pretraining.arrow_dataset import ArrowDataset
from lmeraser.models.pretraining.recipe import ARCHITECTURES, Recipe
from lmeraser.models.tuners.optimization import warmed_cosine

MEAN = STD = (0.5, 0.5, 0.5)  # pixels from -1 to 1, as the published ViTs want them; no data decide it
_INITIAL_SCALE = 0.02  # standard deviation of the initial weights, as transformers draws them
_LAYER_NORM_EPSILON = 1e-6
_SMOOTHING = 0.1  # of labels (Szegedy et al., CVPR 2016)
_LONGEST_GRADIENT = 1.0  # gradients are scaled down to this norm (Dosovitskiy et al., ICLR 2021)
_AHEAD = 4  # batches that are decoded while others are trained on


def build_network(recipe: Recipe, classes: Sequence[str]) -> Any:
    """A ViT with a classifier on its class token, its initial weights hashed from their names."""
    from transformers import ViTConfig, ViTForImageClassification

    width, layers, heads = ARCHITECTURES[recipe.arch]
    names = dict(enumerate(classes))
    config = ViTConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        image_size=recipe.image_size,
        patch_size=recipe.patch_size,
        layer_norm_eps=_LAYER_NORM_EPSILON,
        id2label=names,
        label2id={name: label for label, name in names.items()},
    )
    with torch.device("meta"):  # transformers would draw from torch's global generator
        network = ViTForImageClassification(config)
    network.to_empty(device="cpu")
    with torch.no_grad():
        for name, weights in network.named_parameters():
            if weights.ndim == 1:
                weights.fill_(0.0 if name.endswith("bias") else 1.0)
                continue
            drawn = normal(recipe.seed, f"initial {name}", weights.numel())
            weights.copy_(torch.from_numpy(drawn).reshape(weights.shape) * _INITIAL_SCALE)
    return network


class Trainer:
    """The steps of a training, and its state between them.

    Args:
        network: with its initial weights; trained in place.
        images: what on.
        recipe: how.
        accelerator: knows devices, processes and precision.
        checkpoint: file with the state; gone on from, if it is there.
    """

    def __init__(
        self, network: Any, images: ArrowDataset, recipe: Recipe, accelerator: Any, checkpoint: Path
    ) -> None:
        self._images, self._recipe, self._accelerator = images, recipe, accelerator
        self._checkpoint, self._network = checkpoint, network
        self._batch = min(recipe.batch_size, len(images))
        if self._batch == 0 or self._batch % accelerator.num_processes:
            raise InputError(
                "Every process takes the same share of a step.",
                got=f"{self._batch} images a step for {accelerator.num_processes} processes",
                next_step="choose a --batch-size that is a multiple of the number of processes",
            )
        self._steps = len(images) // self._batch  # in an epoch; the images left over come in another one
        self._total = self._steps * recipe.epochs
        self._optimizer = torch.optim.AdamW(_groups(network, recipe.weight_decay), fused=True)
        self._wrapped, self._stepper = accelerator.prepare(network, self._optimizer)
        self._step, self.seconds = 0, 0.0
        if checkpoint.exists():
            self._restore(from_bytes(checkpoint.read_bytes()))

    def run(self, checkpoint_steps: int, progress: Progress) -> None:
        """All steps that are left; the state is written after every ``checkpoint_steps`` of them."""
        progress("pre-training", self._step * self._batch, self._total * self._batch)
        warm = min(round(self._recipe.warmup_epochs * self._steps), self._total)
        since = time.monotonic()
        self._wrapped.train()
        for pixels, labels in self._batches():
            factor = warmed_cosine(self._step, warm, self._total)
            for group in self._optimizer.param_groups:
                group["lr"] = self._recipe.learning_rate * factor
            loss = self._descend(pixels, labels)
            self._step += 1
            progress("pre-training", self._step * self._batch, self._total * self._batch)
            if self._step % checkpoint_steps == 0 or self._step == self._total:
                since, before = time.monotonic(), since
                self.seconds += since - before
                self._save(loss)
        self._network.eval()

    def _descend(self, pixels: Array, labels: Tensor) -> Tensor:
        device = self._accelerator.device
        logits = self._wrapped(pixel_values=network_input(pixels, device)).logits
        loss = F.cross_entropy(logits, labels.to(device), label_smoothing=_SMOOTHING)
        self._stepper.zero_grad()
        self._accelerator.backward(loss)
        self._accelerator.clip_grad_norm_(self._wrapped.parameters(), _LONGEST_GRADIENT)
        self._stepper.step()
        return loss.detach()

    def _batches(self) -> Iterator[tuple[Array, Tensor]]:
        """This process's part of each step that is left: pixels uint8 [n, s, s, 3] and labels [n]."""
        waiting: deque[tuple[list[Future[Array]], list[int]]] = deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for epoch, places in self._trie_keys():
                examples = [self._images[place] for place in places]
                seen = partial(_augmented, self._recipe, epoch)
                pixels = [pool.submit(seen, p, e.image) for p, e in zip(places, examples, strict=True)]
                waiting.append((pixels, [example.label for example in examples]))
                if len(waiting) > _AHEAD:
                    yield _together(*waiting.popleft())
            while waiting:
                yield _together(*waiting.popleft())

    def _trie_keys(self) -> Iterator[tuple[int, list[int]]]:
        """Epoch and places of the images of each step that is left."""
        first, rank = self._step, self._accelerator.process_index
        every = [str(place) for place in range(len(self._images))]
        ordered: list[str] = []
        for step in range(first, self._total):
            epoch, number = divmod(step, self._steps)
            if number == 0 or step == first:
                ordered = order(self._recipe.seed, "public order", every, epoch)
            part = ordered[number * self._batch : (number + 1) * self._batch]
            yield epoch, [int(place) for place in part[rank :: self._accelerator.num_processes]]

    def _save(self, loss: Tensor) -> None:
        if not bool(torch.isfinite(loss)):
            raise BackboneError(
                "The loss of a training stays finite.",
                got=f"{float(loss)} at step {self._step}",
                next_step="choose a lower --learning-rate or a longer --warmup-epochs, and another folder",
            )
        if not self._accelerator.is_main_process:
            return
        tensors = {"step": np.array(self._step), "seconds": np.array(self.seconds)}
        for name, weights in self._network.named_parameters():
            state = {"weight": weights, **self._optimizer.state[weights]}
            tensors |= {f"{what} {name}": value.detach().cpu().numpy() for what, value in state.items()}
        write_atomic(self._checkpoint, to_bytes(tensors))

    def _restore(self, tensors: Mapping[str, Array]) -> None:
        self._step, self.seconds = int(tensors["step"]), float(tensors["seconds"])
        with torch.no_grad():
            for name, weights in self._network.named_parameters():
                weights.copy_(torch.from_numpy(tensors[f"weight {name}"]))
                moments = {key: tensors[f"{key} {name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                self._optimizer.state[weights] = {
                    key: torch.from_numpy(value.copy()).to(weights.device) for key, value in moments.items()
                }


def _groups(network: Any, decay: float) -> list[dict[str, Any]]:
    """Matrices and kernels decay; biases, scales, positions and the class token do not."""
    kinds: dict[bool, list[Tensor]] = {True: [], False: []}
    for parameter in network.parameters():
        kinds[parameter.ndim in (2, 4)].append(parameter)
    return [{"params": kinds[True], "weight_decay": decay}, {"params": kinds[False], "weight_decay": 0.0}]


def _augmented(recipe: Recipe, epoch: int, place: int, data: bytes) -> Array:
    """An image as one epoch sees it, cropped and perhaps mirrored: uint8 [s, s, 3]."""
    room = recipe.canvas_size - recipe.image_size
    row, column, mirror = below(recipe.seed, "public augment", (room + 1, room + 1, 2), epoch, place)
    canvas = to_canvas(decode(data), recipe.canvas_size)
    pixels: Array = crop(canvas[None], [(row, column)], recipe.image_size)[0]
    return pixels[:, ::-1] if mirror else pixels


def _together(pixels: Sequence[Future[Array]], labels: Sequence[int]) -> tuple[Array, Tensor]:
    return np.stack([future.result() for future in pixels]), torch.tensor(labels)


def network_input(pixels: Array, device: torch.device) -> Tensor:
    """Pixels, uint8 [n, s, s, 3], as normalised input, float32 [n, 3, s, s]."""
    scaled = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255.0
    return (scaled - channel_constants(MEAN, device)) / channel_constants(STD, device)
