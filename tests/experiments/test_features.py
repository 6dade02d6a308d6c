"""Methods on features: the worked examples do what their names say, and the same inputs give the same bytes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from lmeraser.experiments.features import FeatureRecords, FineTuning, GradientAscent, SoftmaxRegression

CLASSES, WIDTH = 3, 6


@pytest.fixture
def records() -> FeatureRecords:
    drawn = np.random.default_rng(0)
    labels = drawn.integers(CLASSES, size=60)
    features = drawn.standard_normal((60, WIDTH)) + 2 * np.eye(CLASSES, WIDTH)[labels]
    return FeatureRecords(features.astype(np.float32), labels, CLASSES, seed=3)


@pytest.fixture
def forgotten() -> NDArray[np.bool_]:
    return np.arange(60) < 6


def loss(method: SoftmaxRegression, model: object, records: FeatureRecords) -> float:
    shares = method.predict(model, records.features)  # type: ignore[arg-type]
    return float(-np.log(shares[np.arange(len(shares)), records.labels]).mean())


def test_it_trains_as_torch_does(records: FeatureRecords) -> None:
    method = SoftmaxRegression(epochs=2, batch=60, rate=0.05)
    weight = torch.zeros(CLASSES, WIDTH + 1, dtype=torch.float64, requires_grad=True)
    inputs = torch.from_numpy(records.features.astype(np.float64))
    inputs = inputs / (inputs.square().mean(dim=1, keepdim=True)).sqrt()
    inputs = torch.cat([inputs, torch.ones(60, 1, dtype=torch.float64)], dim=1)
    optimizer = torch.optim.Adam([weight], lr=0.05)
    for _ in range(2):
        optimizer.zero_grad()
        torch.autograd.backward(
            torch.nn.functional.cross_entropy(inputs @ weight.T, torch.from_numpy(records.labels))
        )
        optimizer.step()
    np.testing.assert_allclose(method.train(records)["weight"], weight.detach().numpy(), rtol=1e-3, atol=1e-5)


def test_predictions_are_shares_and_training_learns(records: FeatureRecords) -> None:
    method = SoftmaxRegression(epochs=60)
    model = method.train(records)
    shares = method.predict(model, records.features)
    assert shares.dtype == np.float32
    assert shares.shape == (60, CLASSES)
    np.testing.assert_allclose(shares.sum(axis=1), 1, rtol=1e-5)
    assert loss(method, model, records) < 0.7 * np.log(CLASSES)


def test_training_again_is_exact_and_the_approximate_ones_are_not(
    records: FeatureRecords, forgotten: NDArray[np.bool_]
) -> None:
    kept, gone = records.subset(~forgotten), records.subset(forgotten)
    for method, exact in ((SoftmaxRegression(), True), (FineTuning(), False), (GradientAscent(), False)):
        model = method.train(records)
        before = model["weight"].copy()
        changed = method.unlearn(model, kept, gone)
        np.testing.assert_array_equal(model["weight"], before)
        assert (changed["weight"] == method.train(kept)["weight"]).all() == exact
        np.testing.assert_array_equal(changed["weight"], method.unlearn(model, kept, gone)["weight"])


def test_ascent_raises_the_loss_on_what_is_forgotten(
    records: FeatureRecords, forgotten: NDArray[np.bool_]
) -> None:
    method = GradientAscent(ascents=3)
    gone = records.subset(forgotten)
    model = method.train(records)
    assert loss(method, method.unlearn(model, records.subset(~forgotten), gone), gone) > loss(method, model, gone)
