"""Add a method and a data set to the experiments, and measure it against retraining; `RUN` is a new folder.

    lmeraser experiments run removal accuracy --with examples/add_a_method.py --data digits8x8 --out RUN

The data set is scikit-learn's digits as vectors of 64 numbers. The method is approximate: it goes on training with
random classes for the forgotten records ("Amnesiac Machine Learning", Graves et al., AAAI 2021).
"""

from collections.abc import Iterator

import numpy as np
from sklearn.datasets import load_digits

from lmeraser.experiments.datasets import DataSet
from lmeraser.experiments.features import Arrays, FeatureRecords, SoftmaxRegression
from lmeraser.experiments.methods import Method


def rows(split: str) -> Iterator[dict[str, object]]:
    """Rows with a vector and its class: the first 1,300 for training, the others for tests."""
    images, labels = load_digits(return_X_y=True)
    chosen = slice(0, 1300) if split == "train" else slice(1300, None)
    for image, label in zip(images[chosen], labels[chosen], strict=True):
        yield {"vector": image, "label": str(label)}


class RandomLabels(SoftmaxRegression):
    """Trains like softmax regression; unlearns by one pass in which forgotten records have random classes."""

    def unlearn(self, model: Arrays, retained: FeatureRecords, forgotten: FeatureRecords) -> Arrays:
        """Go on from the model on all records, those to forget with random classes."""
        drawn = np.random.default_rng(forgotten.seed).integers(forgotten.classes, size=len(forgotten.labels))
        features = np.concatenate([retained.features, forgotten.features])
        labels = np.concatenate([retained.labels, drawn])
        mixed = FeatureRecords(features, labels, retained.classes, retained.seed)
        return {"weight": self.descend(model["weight"], mixed, epochs=1)}


DATA = DataSet("digits8x8", "8x8", (1300, 497), modality="vector", length=64, make=rows, classes=(*"0123456789",))
RANDOM_LABELS = Method("random-labels", "Random labels (approximate)", on_features=RandomLabels())
