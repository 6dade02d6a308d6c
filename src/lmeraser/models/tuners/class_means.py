"""Initial values of a head other than zero: a classifier by the nearest class mean of the members.

    score of class c for features f:   (f . m_c - |m_c|^2 / 2) / sqrt(d)

m_c is the mean of the features of the members of class c; of all classes with members, the one whose mean is
nearest scores highest. A class without members scores 0.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def class_means(features: Tensor, labels: Sequence[int], classes: int) -> tuple[Tensor, Tensor]:
    """Weight and bias of a head that classifies by the nearest class mean.

    Args:
        features: of the members, as the head sees them, float32 [n, d].
        labels: class index of each member.
        classes: number of classes.

    Returns:
        Weight, float32 [classes, d], and bias, float32 [classes].
    """
    scale = float(features.shape[1]) ** 0.5
    weight = torch.zeros((classes, features.shape[1]))
    bias = torch.zeros(classes)
    for label in sorted(set(labels)):
        rows = [row for row, other in enumerate(labels) if other == label]
        mean = features[rows].mean(dim=0)
        weight[label] = mean / scale
        bias[label] = -mean.square().sum() / (2 * scale)
    return weight, bias
