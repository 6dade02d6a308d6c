"""From the answers of several clusters to one: the mean of their probabilities, or the majority of their classes.

Each image is added up alone. Pure functions; knows numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Shares = NDArray[np.float32]  # [n, classes]; each row sums to 1


def combined(answers: Iterable[Shares], asked: NDArray[np.bool_], how: Literal["mean", "vote"]) -> Shares:
    """The answers of several clusters as one.

    A vote gives each class  (clusters that choose it + the mean of its probabilities) / (clusters + 1).  So the
    majority wins and the mean probability breaks ties: two means differ by less than one vote
    unless all clusters agree.

    Args:
        answers: probabilities of the first cluster that each image asks, of the second...
        asked: whether an image has a first, second... cluster at all, bool [n, votes]; at least one each.
        how: they are combined.
    """
    total = votes = np.zeros(1, np.float32)
    for shares, present in zip(answers, asked.T, strict=True):
        mask = present[:, None].astype(np.float32)
        chosen = (np.arange(shares.shape[1]) == shares.argmax(axis=1)[:, None]).astype(np.float32)
        total, votes = total + shares * mask, votes + chosen * mask
    count = asked.sum(axis=1, keepdims=True).astype(np.float32)
    mean: Shares = total / count
    if how == "mean":
        return mean
    majority: Shares = (votes + mean) / (count + np.float32(1))
    return majority
