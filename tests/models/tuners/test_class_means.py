"""A head that starts from class means is a nearest-mean classifier."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.neighbors import NearestCentroid

from lmeraser.models.tuners.class_means import class_means

FEATURES = hnp.arrays(np.float32, (12, 5), elements=st.floats(-3, 3, width=32), unique=True)


@given(FEATURES, st.lists(st.integers(0, 3), min_size=12, max_size=12).filter(lambda labels: len(set(labels)) > 1))
def test_the_class_with_the_nearest_mean_scores_highest(features: np.ndarray, labels: list[int]) -> None:
    weight, bias = class_means(torch.from_numpy(features), labels, classes=6)
    scores = features @ weight.numpy().T + bias.numpy()
    reference = NearestCentroid().fit(features, labels)
    distances = np.linalg.norm(features[:, None] - reference.centroids_[None], axis=2)
    ordered = np.sort(distances, axis=1)
    clear = ordered[:, 1] - ordered[:, 0] > 1e-3  # elsewhere rounding decides
    present = sorted(set(labels))
    best = np.array(present)[scores[:, present].argmax(axis=1)]
    np.testing.assert_array_equal(best[clear], reference.predict(features)[clear])


def test_the_numbers_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0, 0.0, 0.0], [4.0, 0.0, 0.0, 0.0], [0.0, 6.0, 0.0, 0.0]])
    weight, bias = class_means(features, [2, 2, 0], classes=3)
    assert weight.tolist() == [[0, 3, 0, 0], [0, 0, 0, 0], [1.5, 0, 0, 0]]
    assert bias.tolist() == [-9, 0, -2.25]


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_shapes_and_kinds(order: list[int]) -> None:
    weight, bias = class_means(torch.randn(4, 7)[order], [0, 0, 1, 5], classes=10)
    assert (weight.shape, bias.shape) == ((10, 7), (10,))
    assert (weight.dtype, bias.dtype) == (torch.float32, torch.float32)
