"""The training loop of a pre-training, and its checkpoints.

All randomness is hashed (`core.seeding`): initial weights by their names; order, crops and mirror images by the
epoch and the index of the image. So the state consists of the number of steps, the weights and the optimiser's
moments. With checkpoints of it, a stopped training can continue and, on a CPU, gives the same bytes as one that
was never stopped. Knows nothing about backbone folders.
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
from lmeraser.data.canvases import to_canvas
from lmeraser.data.crops import crop
from lmeraser.data.images import decode
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.backbones.base import channel_constants
from lmeraser.models.pretraining.arrow_dataset import ArrowDataset
from lmeraser.models.pretraining.recipe import ARCHITECTURES, Recipe
from lmeraser.models.tuners.optimization import warmed_cosine

MEAN = STD = (0.5, 0.5, 0.5)  # pixels from -1 to 1, as for the published ViTs; does not depend on data
_INITIAL_SCALE = 0.02  # standard deviation of the initial weights, as transformers draws them
_LAYER_NORM_EPSILON = 1e-6
_SMOOTHING = 0.1  # of labels (Szegedy et al., CVPR 2016)
_LONGEST_GRADIENT = 1.0  # gradients are scaled down to this norm (Dosovitskiy et al., ICLR 2021)
_PREFETCHED = 4  # batches that are decoded while others are trained on


def build_network(recipe: Recipe, classes: Sequence[str]) -> Any:
    """A ViT with a classifier on its class token; initial weights are drawn by hashes of their names."""
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
    """Trains a network in steps and writes checkpoints.

    Args:
        network: with its initial weights; trained in place.
        images: the data set.
        recipe: hyperparameters.
        accelerator: an ``accelerate.Accelerator``; manages devices, processes and precision.
        checkpoint: file with the state; the training continues from it, if it exists.

    Attributes:
        seconds: time of all steps up to the last checkpoint, including those before an interruption.
    """

    def __init__(
        self, network: Any, images: ArrowDataset, recipe: Recipe, accelerator: Any, checkpoint: Path
    ) -> None:
        self._images = images
        self._recipe = recipe
        self._accelerator = accelerator
        self._checkpoint = checkpoint
        self._network = network
        self._batch_size = min(recipe.batch_size, len(images))
        if self._batch_size == 0 or self._batch_size % accelerator.num_processes:
            raise InputError(
                "The images of a step cannot be divided evenly among the processes",
                got=f"{self._batch_size} images a step for {accelerator.num_processes} processes",
                next_step="choose a --batch-size that is a multiple of the number of processes",
            )
        self._epoch_steps = len(images) // self._batch_size  # the remaining images have their turn in other epochs
        self._total_steps = self._epoch_steps * recipe.epochs
        self._optimizer = torch.optim.AdamW(_parameter_groups(network, recipe.weight_decay), fused=True)
        self._wrapped_network, self._wrapped_optimizer = accelerator.prepare(network, self._optimizer)
        self._step = 0
        self.seconds = 0.0
        if checkpoint.exists():
            self._restore(from_bytes(checkpoint.read_bytes()))

    def run(self, checkpoint_steps: int, progress: Progress) -> None:
        """Take all remaining steps.

        Args:
            checkpoint_steps: number of steps between checkpoints.
            progress: reports the number of images seen.
        """
        progress("pre-training", self._step * self._batch_size, self._total_steps * self._batch_size)
        warm = min(round(self._recipe.warmup_epochs * self._epoch_steps), self._total_steps)
        since = time.monotonic()
        self._wrapped_network.train()
        for pixels, labels in self._batches():
            factor = warmed_cosine(self._step, warm, self._total_steps)
            for group in self._optimizer.param_groups:
                group["lr"] = self._recipe.learning_rate * factor
            loss = self._take_step(pixels, labels)
            self._step += 1
            progress("pre-training", self._step * self._batch_size, self._total_steps * self._batch_size)
            if self._step % checkpoint_steps == 0 or self._step == self._total_steps:
                now = time.monotonic()
                self.seconds += now - since
                since = now
                self._save(loss)
        self._network.eval()

    def _take_step(self, pixels: Array, labels: Tensor) -> Tensor:
        """Update the weights with one batch; returns the loss before the update."""
        device = self._accelerator.device
        logits = self._wrapped_network(pixel_values=network_input(pixels, device)).logits
        loss = F.cross_entropy(logits, labels.to(device), label_smoothing=_SMOOTHING)
        self._wrapped_optimizer.zero_grad()
        self._accelerator.backward(loss)
        self._accelerator.clip_grad_norm_(self._wrapped_network.parameters(), _LONGEST_GRADIENT)
        self._wrapped_optimizer.step()
        return loss.detach()

    def _batches(self) -> Iterator[tuple[Array, Tensor]]:
        """This process's share of each remaining step: pixels uint8 [n, s, s, 3] and labels [n]."""
        waiting: deque[tuple[list[Future[Array]], list[int]]] = deque()
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            for epoch, indices in self._batch_indices():
                examples = [self._images[index] for index in indices]
                augment = partial(_augmented, self._recipe, epoch)
                pixels = [
                    pool.submit(augment, index, example.payload)
                    for index, example in zip(indices, examples, strict=True)
                ]
                waiting.append((pixels, [example.label for example in examples]))
                if len(waiting) > _PREFETCHED:
                    yield _stacked(*waiting.popleft())
            while waiting:
                yield _stacked(*waiting.popleft())

    def _batch_indices(self) -> Iterator[tuple[int, list[int]]]:
        """For each remaining step its epoch and the indices of this process's images."""
        first_step = self._step
        rank = self._accelerator.process_index
        all_indices = [str(index) for index in range(len(self._images))]
        ordered: list[str] = []
        for step in range(first_step, self._total_steps):
            epoch, number = divmod(step, self._epoch_steps)
            if number == 0 or step == first_step:
                ordered = order(self._recipe.seed, "public order", all_indices, epoch)
            batch = ordered[number * self._batch_size : (number + 1) * self._batch_size]
            yield epoch, [int(index) for index in batch[rank :: self._accelerator.num_processes]]

    def _save(self, loss: Tensor) -> None:
        """Write a checkpoint, unless the training has diverged."""
        if not bool(torch.isfinite(loss)):
            raise BackboneError(
                "The training diverged",
                got=f"the loss is {float(loss)} at step {self._step}",
                next_step="choose a lower --learning-rate or a longer --warmup-epochs, and another folder",
            )
        if not self._accelerator.is_main_process:
            return
        tensors = {"step": np.array(self._step), "seconds": np.array(self.seconds)}
        for name, weights in self._network.named_parameters():
            state = {"weight": weights, **self._optimizer.state[weights]}
            tensors |= {f"{key} {name}": value.detach().cpu().numpy() for key, value in state.items()}
        write_atomic(self._checkpoint, to_bytes(tensors))

    def _restore(self, tensors: Mapping[str, Array]) -> None:
        """Continue from the tensors of a checkpoint."""
        self._step = int(tensors["step"])
        self.seconds = float(tensors["seconds"])
        with torch.no_grad():
            for name, weights in self._network.named_parameters():
                weights.copy_(torch.from_numpy(tensors[f"weight {name}"]))
                moments = {key: tensors[f"{key} {name}"] for key in ("step", "exp_avg", "exp_avg_sq")}
                self._optimizer.state[weights] = {
                    key: torch.from_numpy(value.copy()).to(weights.device) for key, value in moments.items()
                }


def _parameter_groups(network: Any, decay: float) -> list[dict[str, Any]]:
    """Torch's parameter groups: weight decay for matrices and kernels, not for all other parameters."""
    decaying: list[Tensor] = []
    others: list[Tensor] = []  # biases, scales, positions and the class token
    for parameter in network.parameters():
        (decaying if parameter.ndim in (2, 4) else others).append(parameter)
    return [{"params": decaying, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]


def _augmented(recipe: Recipe, epoch: int, index: int, data: bytes) -> Array:
    """The image at an index in one epoch, randomly cropped and possibly mirrored: uint8 [s, s, 3]."""
    room = recipe.canvas_size - recipe.image_size
    row, column, mirror = below(recipe.seed, "public augment", (room + 1, room + 1, 2), epoch, index)
    canvas = to_canvas(decode(data), recipe.canvas_size)
    pixels: Array = crop(canvas[None], [(row, column)], recipe.image_size)[0]
    return pixels[:, ::-1] if mirror else pixels


def _stacked(pixels: Sequence[Future[Array]], labels: Sequence[int]) -> tuple[Array, Tensor]:
    """A batch of images that are being decoded."""
    return np.stack([future.result() for future in pixels]), torch.tensor(labels)


def network_input(pixels: Array, device: torch.device) -> Tensor:
    """Pixels as normalised input: uint8 [n, s, s, 3] to float32 [n, 3, s, s]."""
    scaled = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 255.0
    return (scaled - channel_constants(MEAN, device)) / channel_constants(STD, device)
