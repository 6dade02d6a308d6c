"""Diversity of a set of images: the mean perceptual distance between pairs.

The distance is that of Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric",
CVPR 2018, Eq. 1 (LPIPS) without learned weights: activations of several layers of a frozen network, the channels
of each position scaled to length 1, squared differences summed over channels, averaged over positions, summed over
layers. The LMEraser paper reports the diversity of its data sets by LPIPS (section V-A5), after DAM-VP (Huang et
al., CVPR 2023). Values depend on the network and the layers: compare only values for the same ones.

Pure functions of activations; must not depend on networks or images.
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

_PAIRS_AT_ONCE = 64  # bounds the memory for scaled copies of activations


def diversity(layers: Sequence[Activations], ids: Sequence[str], *, pairs: int = 10_000, seed: int = 0) -> float:
    """Mean distance between pairs of different images; 0 to 4 times the number of layers, larger: more diverse.

    Args:
        layers: activations of each layer, float [n, channels, height, width] or [n, tokens, channels].
        ids: image ids, all different; together with the seed they determine which pairs are drawn.
        pairs: maximum number of pairs; all pairs are used if there are no more.
        seed: seed of the draw.

    Raises:
        InputError: fewer than two images, repeated ids, no pairs, or layers of different numbers of images.
    """
    chosen = choose_pairs(ids, pairs=pairs, seed=seed)
    if any(len(layer) != len(ids) for layer in layers):
        raise InputError(
            "Layers and ids differ in number of images",
            got=f"{[len(layer) for layer in layers]} images per layer, {len(ids)} ids",
        )
    found = [
        distances([layer[part[:, 0]] for layer in layers], [layer[part[:, 1]] for layer in layers])
        for part in np.array_split(chosen, math.ceil(len(chosen) / _PAIRS_AT_ONCE))
    ]
    return float(np.concatenate(found).mean())


def choose_pairs(ids: Sequence[str], *, pairs: int, seed: int) -> NDArray[np.int64]:
    """Draw pairs of different images; returns indices into ``ids``, int64 [p, 2].

    All pairs if there are no more than ``pairs``; otherwise that many, drawn with replacement by hashes, so that
    activations are needed only for the images in the result. The pairs depend on the set of ids, not on their
    order.

    Args:
        ids: image ids, all different.
        pairs: maximum number of pairs.
        seed: seed of the draw.

    Raises:
        InputError: fewer than two images, repeated ids, or no pairs.
    """
    count = len(ids)
    if count < 2 or len(set(ids)) < count or pairs < 1:
        raise InputError(
            "Pairs cannot be drawn",
            got=f"{pairs} pairs, {count} images, {len(set(ids))} different ids",
            next_step="pass at least two images with different ids, and at least one pair",
        )
    if count * (count - 1) // 2 <= pairs:
        drawn = list(itertools.combinations(range(count), 2))
    else:
        tosses = (below(seed, "diversity", (count, count - 1), number) for number in range(pairs))
        drawn = [(first, other + (other >= first)) for first, other in tosses]
    by_id = np.array(sorted(range(count), key=lambda index: ids[index]), dtype=np.int64)
    return by_id[np.array(drawn, dtype=np.int64)]


def distances(first: Sequence[Activations], second: Sequence[Activations]) -> Floats:
    """Perceptual distance between the images of ``first`` and ``second`` at the same index, float64 [n].

    For one layer it is 2 - 2 cos, averaged over positions, of the angle between the two images' channels. A
    position without any activation is at distance 1 from one with, and 0 from one without.

    Args:
        first: activations of each layer, float [n, channels, height, width] or [n, tokens, channels].
        second: activations of the other images, same shapes.

    Raises:
        InputError: no layers, or shapes that differ or are neither of the two.
    """
    shapes = [layer.shape for layer in first]
    if not shapes or shapes != [layer.shape for layer in second] or len({shape[0] for shape in shapes}) != 1:
        raise InputError(
            "Activations differ in shape, or there are none",
            got=f"{shapes} and {[layer.shape for layer in second]}",
        )
    total = np.zeros(shapes[0][0])
    for one, other in zip(first, second, strict=True):
        squares = np.square(_unit(one) - _unit(other)).sum(axis=_channels(one))
        total += squares.reshape(len(squares), -1).mean(axis=1)
    return total


def _channels(layer: Activations) -> int:
    if layer.ndim not in (3, 4) or 0 in layer.shape:
        raise InputError(
            "Unexpected shape of activations",
            got=f"{layer.shape}, expected [n, channels, height, width] or [n, tokens, channels]",
        )
    return 1 if layer.ndim == 4 else 2


def _unit(layer: Activations) -> Floats:
    """Channels of each position scaled to length 1, float64; a position without any activation stays 0."""
    values = layer.astype(np.float64)
    if not np.isfinite(values).all():
        raise InputError("Activations are not finite", got=f"{int((~np.isfinite(values)).sum())} of {values.size}")
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
