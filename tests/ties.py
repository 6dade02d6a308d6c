"""Numbers half way between two integers, which two ways of computing them in float32 may round differently."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from types import ModuleType

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

_HALF_WAY = 0.004  # from the middle: float32 gives features to 4e-6 of their root mean square, which is 1024


def possible_probabilities(
    vectors: torch.Tensor,
    scale: float,
    normalisation: tuple[ModuleType, str],
    probabilities: Callable[[torch.Tensor], NDArray[np.float32]],
) -> Iterator[NDArray[np.float32]]:
    """Probabilities of one image as they are, and with one or two numbers of its embedding rounded the other way.

    Args:
        vectors: of the views of the image, float32 [views, d].
        scale: of an embedding; it is rounded after it was multiplied by this.
        normalisation: module and name of the function that scales vectors to root mean square 1.
        probabilities: of vectors of one image, float32 [1, views, d].
    """
    module, name = normalisation
    unit_rms = getattr(module, name)
    scaled = unit_rms(unit_rms(vectors).mean(dim=0)) * scale
    rounded = scaled.round()
    middles = scaled.floor() + 0.5

    def evaluated(numbers: torch.Tensor) -> NDArray[np.float32]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, name, lambda given: given)
            return probabilities(numbers[None, None] / scale)

    yield evaluated(rounded)
    ties = ((scaled - middles).abs() < _HALF_WAY).nonzero()[:, 0].tolist()
    for places in itertools.chain(itertools.combinations(ties, 1), itertools.combinations(ties, 2)):
        other = rounded.clone()
        for place in places:
            other[place] = 2 * middles[place] - rounded[place]
        yield evaluated(other)
