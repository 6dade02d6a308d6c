"""A model as one graph of plain operations: views, backbone, embedding and head, for other runtimes than torch.

    images, uint8 [n, height, width, 3] -> canvases -> views -> features and layers -> embedding -> probabilities

Everything that decides what a prediction is comes from where predictions take it: the backbone is the workspace's
class with torch's own kernels instead of packed ones (`frozen.plain_kernels`), and what is computed with numpy
there (resizing by Pillow, quantization, the random layer, linear scores) is written here in torch, operation by
operation. Resizing has Pillow's own integer arithmetic, so that canvases have the same pixels; the rest differs by
rounding.

Only models that answer with one head are such a graph: routing to clusters is not written here.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
import PIL
import torch
from PIL import Image
from torch import Tensor, nn

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.random_features import projection, shift_for
from lmeraser.core.sufficient_statistics import LARGEST_INTEGER, SCALE, UNIT_RMS_EPSILON
from lmeraser.core.tensors import Array
from lmeraser.errors import BackboneError, InputError
from lmeraser.models.backbones.base import FINAL, Backbone, ImageBackbone, chosen_layers
from lmeraser.models.backbones.frozen import plain_kernels
from lmeraser.models.manifest import Model
from lmeraser.models.modalities import load_backbone
from lmeraser.models.modalities.image import GREY, canvas_size_of, random_frame

_BLOCK = 128  # numpy's PW_BLOCKSIZE
_PRECISION = 22  # bits of Pillow's fixed-point coefficients for pixels of 8 bits
_SUPPORT = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}  # pixels around the centre that a filter takes


def check_one_head(model: Model) -> None:
    """Check that a model answers with one head.

    Raises:
        InputError: it has several clusters, or tunes something at the input of the backbone.
    """
    config = model.config()
    kind = config.constituent.kind
    if len(model.clusters) > 1 or kind not in ("none", "head") or config.backbone.precision != "fp32":
        raise InputError(
            "Only a model with one head can be exported in this format",
            got=f"{len(model.clusters)} clusters with constituent.kind = {kind!r} and precision "
            f"{config.backbone.precision} (possible: one cluster, 'none' or 'head', fp32, as in the presets "
            "'instant' and linear heads on one cluster)",
            next_step="export with --format folder",
        )


def plain_backbone(model: Model, config: Config) -> Backbone:
    """The backbone of a model, on the CPU with torch's own kernels.

    Args:
        model: the generation.
        config: its settings, with a backbone that can be loaded here.

    Raises:
        BackboneError: it is another one than the model was tuned on.
    """
    with plain_kernels():
        backbone = load_backbone(config.computed({"device": "cpu"}))
    if backbone.digest != model.backbone:
        raise BackboneError(
            "The model was tuned on another backbone",
            got=f"backbone {backbone.digest.short}; the model was tuned on {model.backbone.short}",
            next_step="restore the backbone's files, or run 'lmeraser train'",
        )
    return backbone


class Graph(nn.Module):
    """The whole prediction.

    Args:
        inputs: gives the vectors that embeddings are made of.
        heads: of the global head and of the constituent, as far as the model has them: weight, float32 [classes,
            d + 1], factor of its scores, and weight of its probabilities.
        config: all settings.
    """

    def __init__(self, inputs: Inputs, heads: Sequence[tuple[Array, float, float]], config: Config) -> None:
        super().__init__()
        self.inputs = inputs
        self._heads = [(torch.from_numpy(np.array(weight)), sharp, share) for weight, sharp, share in heads]
        self._width = config.embedding.random_features
        self._seed = config.seed

    def forward(self, *arguments: Tensor) -> Tensor:
        """Probabilities, float32 [n, classes]."""
        embedded = unit_rms(unit_rms(self.inputs(*arguments)).mean(dim=1))
        quantized = (embedded * SCALE).round().clamp(-LARGEST_INTEGER, LARGEST_INTEGER)
        if self._width:
            quantized = self._random_layer(quantized)
        vectors = quantized / SCALE
        with_constant = torch.cat([vectors, torch.ones_like(vectors[:, :1])], dim=1)[:, None]
        total: Tensor | None = None
        for weight, sharpness, share in self._heads:
            scores = row_sums(with_constant * weight) * sharpness
            part = scores.softmax(dim=1)
            weighted = part if share == 1.0 else part * share
            total = weighted if total is None else total + weighted
        assert total is not None
        return total

    def _random_layer(self, quantized: Tensor) -> Tensor:
        length = quantized.shape[1]
        sums = quantized.double() @ torch.from_numpy(np.array(projection(self._seed, length, self._width)))
        shift = shift_for(length)
        rounded = ((sums.clamp(min=0) + ((1 << shift) >> 1)) / (1 << shift)).floor()
        return rounded.clamp(max=LARGEST_INTEGER).float()


class Inputs(nn.Module, ABC):
    """Vectors that embeddings are made of, float32 [n, views, d], from what a caller has.

    Args:
        backbone: with plain kernels.
        config: all settings.
    """

    def __init__(self, backbone: Backbone, config: Config) -> None:
        super().__init__()
        self.backbone = backbone
        self.config = config
        self._names = chosen_layers(backbone, config.embedding.layers, config.backbone.name)

    @property
    @abstractmethod
    def example(self) -> Mapping[str, Tensor]:
        """Arguments by their names, of two queries."""

    @property
    @abstractmethod
    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """Names of the axes that may have any length, for each argument."""

    def vectors(self, inputs: Tensor) -> Tensor:
        """The chosen layers for inputs of one view, float32 [n, d]."""
        below = [name for name in self._names if name != FINAL]
        if not below:
            return self.backbone.features(inputs)
        every = self.backbone.layered(inputs, below)
        lengths = [self.backbone.feature_dim, *(self.backbone.layers[name] for name in below)]
        parts = dict(zip([FINAL, *below], torch.split(every, lengths, dim=1), strict=True))
        return torch.cat([unit_rms(parts[name]) for name in self._names], dim=1)


class ImageInputs(Inputs):
    """From images of one size, uint8 [n, height, width, 3], upright and in RGB."""

    @property
    def example(self) -> Mapping[str, Tensor]:
        """Grey images."""
        return {"images": torch.full((2, 40, 48, 3), GREY, dtype=torch.uint8)}

    @property
    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """Any number of images of any size."""
        return {"images": {0: "batch", 1: "height", 2: "width"}}

    def forward(self, images: Tensor) -> Tensor:
        """The layers of every view."""
        pixels = images.permute(0, 3, 1, 2).double()
        views = [self._view(pixels, view) for view in self.config.embedding.views]
        vectors = self.vectors(torch.cat(views))  # in one pass, so that the graph has the network once
        return vectors.reshape(len(views), -1, vectors.shape[1]).transpose(0, 1)

    def _view(self, pixels: Tensor, view: View) -> Tensor:
        backbone = self.backbone
        assert isinstance(backbone, ImageBackbone)
        side, resample, fit = canvas_size_of(view, self.config)
        size = self.config.backbone.image_size
        canvas = resize(pixels, side, resample, crop=fit == "crop")
        missing = size - side
        if missing > 0:
            after = missing // 2
            before = missing - after
            canvas = nn.functional.pad(canvas, (before, after, before, after), value=float(GREY))
        else:
            first = (side - size) // 2
            canvas = canvas[:, :, first : first + size, first : first + size]
        if view == "mirror":
            canvas = canvas.flip(3)
        inputs = backbone.normalize(canvas.float())
        return inputs + random_frame(self.config) if view == "frame" else inputs


class TextInputs(Inputs):
    """From token ids of texts of one window, int64 [n, tokens], and their attention mask."""

    @property
    def example(self) -> Mapping[str, Tensor]:
        """The first tokens."""
        ids = torch.arange(2, 26).reshape(2, 12)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    @property
    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """Any number of texts of any length that fits into a window."""
        axes = {0: "batch", 1: "tokens"}
        return {"input_ids": axes, "attention_mask": axes}

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """The layers of the window, which is every view of such a text."""
        vectors = self.vectors(input_ids.masked_fill(attention_mask == 0, -1))
        return vectors[:, None]


class VectorInputs(Inputs):
    """From vectors, float32 [n, length]."""

    @property
    def example(self) -> Mapping[str, Tensor]:
        """Two vectors."""
        return {"vectors": torch.linspace(-1, 1, 2 * self.backbone.feature_dim).reshape(2, -1)}

    @property
    def dynamic(self) -> Mapping[str, Mapping[int, str]]:
        """Any number of vectors."""
        return {"vectors": {0: "batch"}}

    def forward(self, vectors: Tensor) -> Tensor:
        """The vectors themselves."""
        return vectors[:, None]


INPUTS: Mapping[str, type[Inputs]] = {"image": ImageInputs, "text": TextInputs, "vector": VectorInputs}


def row_sums(values: Tensor) -> Tensor:
    """Sums along the last axis in numpy's order: pairwise, in blocks of at most 128 with eight sums at once.

    Scores are sums of large numbers that nearly cancel, so another order would move probabilities by some 1e-4.
    """
    sums: list[Tensor] = []
    start = 0
    for size, equal in groupby(_blocks(values.shape[-1])):  # neighbours of one size together: fewer operations
        count = len(list(equal))
        part: Any = values[..., start : start + count * size]  # torch's stubs lack `unflatten`
        sums += _block_sums(part.unflatten(-1, (count, size))).unbind(-1)
        start += count * size
    return _pairwise(iter(sums), values.shape[-1])


def _blocks(count: int) -> list[int]:
    """Lengths of the blocks that numpy divides so many numbers into."""
    if count <= _BLOCK:
        return [count]
    first = count // 2 - count // 2 % 8
    return [*_blocks(first), *_blocks(count - first)]


def _pairwise(sums: Iterator[Tensor], count: int) -> Tensor:
    """The sum of the blocks' sums, added up as they were divided."""
    if count <= _BLOCK:
        return next(sums)
    first = count // 2 - count // 2 % 8
    left = _pairwise(sums, first)
    return left + _pairwise(sums, count - first)


def _block_sums(values: Tensor) -> Tensor:
    """Sums along the last axis, of at most 128 numbers."""
    count = values.shape[-1]
    whole = count - count % 8
    if whole:
        eight = values[..., :8]
        for start in range(8, whole, 8):
            eight = eight + values[..., start : start + 8]
        a, b, c, d, e, f, g, h = eight.unbind(-1)
        total = ((a + b) + (c + d)) + ((e + f) + (g + h))
    else:
        total = torch.zeros_like(values[..., 0])
    for place in range(whole, count):
        total = total + values[..., place]
    return total


def unit_rms(vectors: Tensor) -> Tensor:
    """Vectors along the last axis scaled to root mean square 1, as `sufficient_statistics.unit_rms` does."""
    return vectors / (vectors.square().mean(dim=-1, keepdim=True) + UNIT_RMS_EPSILON).sqrt()


def resize(pixels: Tensor, side: int, resample: str, *, crop: bool) -> Tensor:
    """Images resized as Pillow resizes pixels of 8 bits: first along rows, then along columns, rounded in between.

    Args:
        pixels: whole numbers from 0 to 255, float64 [n, 3, height, width].
        side: of the result.
        resample: "bilinear", "bicubic" or "lanczos"; antialiased.
        crop: only the largest centred square.

    Returns:
        float64 [n, 3, side, side].
    """
    height, width = torch.scalar_tensor(pixels.shape[2]), torch.scalar_tensor(pixels.shape[3])
    square = torch.minimum(height, width)
    rows = _coefficients(pixels.shape[2], height, square if crop else height, side, resample)
    columns = _coefficients(pixels.shape[3], width, square if crop else width, side, resample)
    resized = _rounded(rows @ _rounded(pixels @ columns.T))
    if crop or not pillow_shrinks_tall_images_vertically_first():
        return resized
    shrunk = height - side
    first = (shrunk > 0) & (shrunk > 2 * (width - side))
    return torch.where(first, _rounded(_rounded(rows @ pixels) @ columns.T), resized)


@cache
def pillow_shrinks_tall_images_vertically_first() -> bool:
    """Whether Pillow begins with columns where they are shortened much more than rows, as since version 13."""
    side = 4
    noise = np.random.default_rng(0).integers(0, 256, (64, 6), dtype=np.uint8)
    found = np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.LANCZOS))
    pixels = torch.from_numpy(noise).double()
    rows, columns = (
        _coefficients(length, torch.tensor(length), torch.tensor(length), side, "lanczos")
        for length in noise.shape
    )
    orders = [_rounded(rows @ _rounded(pixels @ columns.T)), _rounded(_rounded(rows @ pixels) @ columns.T)]
    horizontal, vertical = (np.array_equal(order.numpy(), found) for order in orders)
    if horizontal == vertical:
        raise BackboneError(
            "This version of Pillow resizes images in a way that is not known",
            got=f"Pillow {PIL.__version__}",
            next_step="export with --format folder, or use another version of Pillow",
        )
    return vertical


def _rounded(sums: Tensor) -> Tensor:
    """Fixed-point sums as pixels; below 2**53, so every sum is exact in any order."""
    return ((sums + float(1 << (_PRECISION - 1))) / float(1 << _PRECISION)).floor().clamp(0.0, 255.0)


def _coefficients(length: int, whole: Tensor, taken: Tensor, side: int, resample: str) -> Tensor:
    """Pillow's coefficients (``precompute_coeffs`` and ``normalize_coeffs_8bpc`` in Resample.c) as a matrix.

    Args:
        length: of the axis.
        whole: the same as a tensor.
        taken: pixels in its middle that are resized; the others have coefficient 0.
        side: pixels of the result.
        resample: the filter.

    Returns:
        Whole numbers, float64 [side, length].
    """
    taken = taken.double()
    first = ((whole.double() - taken) / 2).floor()
    scale = taken / side
    stretch = scale.clamp(min=1.0)
    support = stretch * _SUPPORT[resample]
    centre = (torch.arange(side, dtype=torch.float64) + 0.5)[:, None] * scale
    start = (centre - support + 0.5).trunc().clamp(min=0.0)
    stop = torch.minimum((centre + support + 0.5).trunc(), taken)
    place = torch.arange(length, dtype=torch.float64)[None] - first
    weights = _filter((place - centre + 0.5) / stretch, resample)
    weights = torch.where((place >= start) & (place < stop), weights, torch.zeros_like(weights))
    shares = weights / weights.sum(dim=1, keepdim=True) * float(1 << _PRECISION)
    return (shares + torch.where(shares < 0, -0.5, 0.5)).trunc()


def _filter(x: Tensor, resample: str) -> Tensor:
    distance = x.abs()
    if resample == "bilinear":
        return (1.0 - distance).clamp(min=0.0)
    if resample == "bicubic":
        near = ((-0.5 + 2.0) * distance - (-0.5 + 3.0)) * distance * distance + 1.0
        far = (((distance - 5.0) * distance + 8.0) * distance - 4.0) * -0.5
        inside = torch.where(distance < 1.0, near, far)
        return torch.where(distance < 2.0, inside, torch.zeros_like(inside))
    turned = distance * math.pi
    safe = torch.where(distance == 0.0, torch.ones_like(turned), turned)
    wave = torch.where(distance == 0.0, torch.ones_like(turned), safe.sin() / safe)
    slow = safe / 3.0
    window = torch.where(distance == 0.0, torch.ones_like(turned), slow.sin() / slow)
    return torch.where(distance < 3.0, wave * window, torch.zeros_like(wave))


def heads_of(model: Model, tensors: Any) -> list[tuple[Array, float, float]]:
    """The heads of a model: weight, factor of its scores, and weight of its probabilities.

    Args:
        model: that `check_one_head` has passed.
        tensors: returns the tensors of an artifact.
    """
    config = model.config()
    share = config.global_head.weight
    heads = []
    if model.global_head is not None:
        weight = tensors(model.global_head.artifact)["weight"]
        heads.append((weight, config.global_head.sharpness, float(np.float32(share))))
    for cluster in model.clusters:
        if cluster.constituent is not None:
            weight = tensors(cluster.constituent.artifact)["weight"]
            heads.append((weight, 1.0, float(1 - np.float32(share))))
    return heads
