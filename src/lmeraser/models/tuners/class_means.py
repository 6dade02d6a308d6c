"""Where a head may start instead of at zero: the nearest mean of its own members.

    score of class c for features f:   (f . m_c - |m_c|^2 / 2) / sqrt(d)

m_c are the mean features of the members of class c; of all classes with members, the one with the nearest mean
scores highest. A class without members scores 0. Knows nothing about where features come from.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def class_means(features: Tensor, labels: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a head.

    Args:
        features: as the head sees them, float32 [n, d].
        labels: class index of each.
        classes: number of classes.

    Returns:
        Weight, float32 [classes, d], and bias, float32 [classes].
    """
    scale = float(features.shape[1]) ** 0.5
    weight, bias = torch.zeros((classes, features.shape[1])), torch.zeros(classes)
    for label in sorted(set(labels)):
        mean = features[[index for index, given in enumerate(labels) if given == label]].mean(dim=0)
        weight[label], bias[label] = mean / scale, -mean.square().sum() / (2 * scale)
    return weight, bias
