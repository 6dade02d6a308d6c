"""Combination of several clusters' answers: the mean of their probabilities, or the majority of their classes.

Each image is combined on its own. Pure functions; needs numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Probabilities = NDArray[np.float32]  # [n, classes]; each row sums to 1


def combine(
    answers: Iterable[Probabilities], present: NDArray[np.bool_], how: Literal["mean", "vote"]
) -> Probabilities:
    """The answers of several clusters as one.

    A vote gives each class  (clusters that choose it + the mean of its probabilities) / (clusters + 1).  So the
    majority wins and the mean probability breaks ties: two means differ by less than one vote unless all clusters
    agree.

    Args:
        answers: probabilities of each image's first cluster, of its second...
        present: whether an image has a first, second... cluster at all, bool [n, votes]; at least one each.
        how: to combine them.
    """
    total = votes = np.zeros(1, np.float32)
    for probabilities, has_answer in zip(answers, present.T, strict=True):
        mask = has_answer[:, None].astype(np.float32)
        is_choice = np.arange(probabilities.shape[1]) == probabilities.argmax(axis=1)[:, None]
        total = total + probabilities * mask
        votes = votes + is_choice.astype(np.float32) * mask
    count = present.sum(axis=1, keepdims=True).astype(np.float32)
    mean: Probabilities = total / count
    if how == "mean":
        return mean
    majority: Probabilities = (votes + mean) / (count + np.float32(1))
    return majority
