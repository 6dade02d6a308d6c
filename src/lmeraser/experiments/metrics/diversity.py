"""How diverse a set of images is: the mean perceptual distance of pairs of them.

The distance is that of Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
CVPR 2018, Eq. 1 (LPIPS) without learned weights: activations of several layers of a frozen network, the channels
of each position scaled to length 1, squared differences summed over channels, averaged over positions, summed over
layers. The paper of LMEraser gives the diversity of its data sets by LPIPS (section V-A5), after DAM-VP (Huang et
al., CVPR 2023). Values depend on the network and on the layers: compare only those of the same.

Pure functions of activations. Knows nothing about networks or images.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.seeding import below
from lmeraser.errors import InputError
from lmeraser.experiments.metrics.arrays import Floats
from lmeraser.experiments.metrics.base import Direction, Metric

Activations = NDArray[np.floating]

_AT_ONCE = 64  # pairs: bounds the memory for scaled copies of their activations


def diversity(layers: Sequence[Activations], ids: Sequence[str], *, pairs: int = 10_000, seed: int = 0) -> float:
    """Mean distance of pairs of different images; 0 to 4 times the number of layers, larger: more diverse.

    Args:
        layers: activations of each layer, float [n, channels, height, width] or [n, tokens, channels].
        ids: of the images, all different; they decide, with the seed, which pairs are taken.
        pairs: the most of them; all are taken if there are no more than that.
        seed: of the choice.

    Raises:
        InputError: fewer than two images, ids that repeat, no pairs, or activations that do not fit together.
    """
    chosen = choose_pairs(ids, pairs=pairs, seed=seed)
    if any(len(layer) != len(ids) for layer in layers):
        raise InputError(
            "Every layer has the activations of every image.",
            got=f"{[len(layer) for layer in layers]} images for {len(ids)} ids",
        )
    found = [
        distances([layer[part[:, 0]] for layer in layers], [layer[part[:, 1]] for layer in layers])
        for part in np.array_split(chosen, math.ceil(len(chosen) / _AT_ONCE))
    ]
    return float(np.concatenate(found).mean())


def choose_pairs(ids: Sequence[str], *, pairs: int, seed: int) -> NDArray[np.int64]:
    """Places in ``ids`` of the two images of each pair, int64 [p, 2], never twice the same image.

    All pairs if there are no more than ``pairs``; otherwise that many, drawn with replacement by hashes, so that
    whoever computes activations needs them only for the images in here. The pairs depend on the set of ids and
    not on their order.

    Args:
        ids: of the images, all different.
        pairs: the most of them.
        seed: of the choice.

    Raises:
        InputError: fewer than two images, ids that repeat, or no pairs.
    """
    count = len(ids)
    if count < 2 or len(set(ids)) < count or pairs < 1:
        raise InputError(
            "Pairs are taken, at least one, from at least two images with different ids.",
            got=f"{pairs} pairs, {count} images, {len(set(ids))} ids",
        )
    if count * (count - 1) // 2 <= pairs:
        drawn = list(itertools.combinations(range(count), 2))
    else:
        tosses = (below(seed, "diversity", (count, count - 1), number) for number in range(pairs))
        drawn = [(first, other + (other >= first)) for first, other in tosses]
    places = np.array(sorted(range(count), key=lambda place: ids[place]), dtype=np.int64)
    return places[np.array(drawn, dtype=np.int64)]


def distances(first: Sequence[Activations], second: Sequence[Activations]) -> Floats:
    """Perceptual distance of each image of ``first`` to that of ``second`` in the same place, float64 [n].

    For one layer it is 2 - 2 cos, averaged over positions, of the angle between the two images' channels. A
    position without any activation is at distance 1 from one with, and 0 from one without.

    Args:
        first: activations of each layer, float [n, channels, height, width] or [n, tokens, channels].
        second: of the other images, the same shapes.

    Raises:
        InputError: no layers, or shapes that differ or are neither of the two.
    """
    shapes = [layer.shape for layer in first]
    if not shapes or shapes != [layer.shape for layer in second] or len({shape[0] for shape in shapes}) != 1:
        raise InputError(
            "Both sides have the same layers, of as many images.",
            got=f"shapes {shapes} and {[layer.shape for layer in second]}",
        )
    total = np.zeros(shapes[0][0])
    for one, other in zip(first, second, strict=True):
        squares = np.square(_unit(one) - _unit(other)).sum(axis=_channels(one))
        total += squares.reshape(len(squares), -1).mean(axis=1)
    return total


def _channels(layer: Activations) -> int:
    if layer.ndim not in (3, 4) or 0 in layer.shape:
        raise InputError(
            "Activations are [n, channels, height, width] or [n, tokens, channels].", got=f"shape {layer.shape}"
        )
    return 1 if layer.ndim == 4 else 2


def _unit(layer: Activations) -> Floats:
    """Channels of each position scaled to length 1, float64; without any activation they stay 0."""
    values = layer.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("Activations are finite.", got=f"{int((~np.isfinite(values)).sum())} that are not")
    lengths = np.linalg.norm(values, axis=_channels(layer), keepdims=True)
    unit: Floats = np.divide(values, lengths, out=np.zeros_like(values), where=lengths > 0)
    return unit


METRICS = (
    Metric(
        key="diversity",
        name="diversity of a data set",
        definition="mean over pairs of images of their LPIPS distance without learned weights",
        low=0.0,
        high=None,
        direction=Direction.NONE,
        source='Zhang et al., "The Unreasonable Effectiveness of Deep Features", CVPR 2018, Eq. 1',
    ),
)
