"""Methods that learn and unlearn on the frozen backbone's features alone, such as approximate ones.

A method of this kind is three functions on arrays. It needs no workspace, and its models are compared with
retrained ones by the same metrics as those of all other methods. `FineTuning` and `GradientAscent` are worked
examples: both start from the trained model and change it, so that what they give depends on the records that were
forgotten.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.sufficient_statistics import unit_rms

Arrays = Mapping[str, NDArray[np.floating]]  # a model, by names

_DECAYS = (0.9, 0.999)  # of Adam's means (Kingma and Ba, 2015)


@dataclass(frozen=True)
class FeatureRecords:
    """Records as a method of this kind sees them.

    Attributes:
        features: of the frozen backbone, float32 [n, d].
        labels: class of each record, int64 [n].
        classes: number of classes.
        seed: of all randomness.
    """

    features: NDArray[np.float32]
    labels: NDArray[np.int64]
    classes: int
    seed: int

    def subset(self, chosen: NDArray[np.bool_]) -> FeatureRecords:
        """The records where the mask, bool [n], is true."""
        return FeatureRecords(self.features[chosen], self.labels[chosen], self.classes, self.seed)


class FeatureMethod(ABC):
    """A way to train and to unlearn on features; the same inputs must give the same bytes."""

    @abstractmethod
    def train(self, records: FeatureRecords) -> Arrays:
        """The model of these records."""

    @abstractmethod
    def unlearn(self, model: Arrays, retained: FeatureRecords, forgotten: FeatureRecords) -> Arrays:
        """The model without the forgotten records.

        Args:
            model: of both, from `train` or from earlier calls; must not be changed.
            retained: the records that stay.
            forgotten: the records to forget.
        """

    @abstractmethod
    def predict(self, model: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities, float32 [n, classes], of features, float32 [n, d]."""


class SoftmaxRegression(FeatureMethod):
    """A linear classifier on features scaled to root mean square 1, by Adam on the mean cross-entropy.

    Args:
        epochs: passes over the records in training.
        batch: records of a step.
        rate: learning rate.
    """

    def __init__(self, *, epochs: int = 10, batch: int = 16, rate: float = 0.003) -> None:
        self.epochs = epochs
        self.batch = batch
        self.rate = rate

    def train(self, records: FeatureRecords) -> Arrays:
        """``weight``, float64 [classes, d + 1]; the last column is the bias."""
        weight = np.zeros((records.classes, records.features.shape[1] + 1))
        return {"weight": self.descend(weight, records, self.epochs)}

    def unlearn(self, model: Arrays, retained: FeatureRecords, forgotten: FeatureRecords) -> Arrays:
        """Train again: exact, and as expensive as training."""
        return self.train(retained)

    def predict(self, model: Arrays, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Class probabilities, float32 [n, classes]."""
        return _softmax(_inputs(features) @ model["weight"].T).astype(np.float32)

    def descend(
        self, start: NDArray[np.floating], records: FeatureRecords, epochs: int, sign: float = 1.0
    ) -> NDArray[np.float64]:
        """Weights after steps from other weights.

        Args:
            start: [classes, d + 1].
            records: whose mean cross-entropy is minimised.
            epochs: passes over them.
            sign: -1 to maximise it instead.
        """
        weight = np.array(start, np.float64)
        inputs = _inputs(records.features)
        truth = np.eye(records.classes)[records.labels]
        mean, square = np.zeros_like(weight), np.zeros_like(weight)
        step = 0
        for epoch in range(epochs):
            order = np.random.default_rng([records.seed, epoch]).permutation(len(inputs))
            for first in range(0, len(order), self.batch):
                rows = order[first : first + self.batch]
                error = _softmax(inputs[rows] @ weight.T) - truth[rows]
                gradient = sign * error.T @ inputs[rows] / len(rows)
                step += 1
                mean = _DECAYS[0] * mean + (1 - _DECAYS[0]) * gradient
                square = _DECAYS[1] * square + (1 - _DECAYS[1]) * gradient**2
                scale = np.sqrt(square / (1 - _DECAYS[1] ** step)) + 1e-8
                weight -= self.rate * mean / (1 - _DECAYS[0] ** step) / scale
        return weight


class FineTuning(SoftmaxRegression):
    """Approximate: continue on the retained records, and hope that the others are forgotten on the way.

    A baseline of most papers on approximate unlearning (Golatkar et al., CVPR 2020).
    """

    again = 2  # passes over the retained records

    def unlearn(self, model: Arrays, retained: FeatureRecords, forgotten: FeatureRecords) -> Arrays:
        """Steps on the retained records, from the trained model."""
        return {"weight": self.descend(model["weight"], retained, self.again)}


class GradientAscent(SoftmaxRegression):
    """Approximate: a few steps that raise the loss on the forgotten records (Thudi et al., Euro S&P 2022).

    Args:
        ascents: passes over the forgotten records.
    """

    def __init__(self, *, ascents: int = 1) -> None:
        super().__init__()
        self.ascents = ascents

    def unlearn(self, model: Arrays, retained: FeatureRecords, forgotten: FeatureRecords) -> Arrays:
        """Steps on the forgotten records, from the trained model."""
        return {"weight": self.descend(model["weight"], forgotten, self.ascents, sign=-1.0)}


def _inputs(features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Features at root mean square 1 with a column of ones, float64 [n, d + 1]."""
    scaled = unit_rms(features).astype(np.float64)
    return np.concatenate([scaled, np.ones((len(scaled), 1))], axis=1)


def _softmax(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return shares
