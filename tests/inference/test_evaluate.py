"""Evaluation: what stands beside the accuracy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from conftest import DIGIT_COLUMNS, digits
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.inference.evaluate import (
    TrainingSet,
    best_regularisation,
    calibration_error,
    embeddings_in_use,
    linear_accuracy_of,
)


def test_calibration_error_is_the_gap_between_probability_and_frequency() -> None:
    sure = np.array([[0.95, 0.05]] * 20, np.float32)
    assert calibration_error(sure, np.array([0] * 19 + [1])) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(sure, np.array([0] * 10 + [1] * 10)) == pytest.approx(0.45, abs=1e-6)
    mixed = np.array([[1.0, 0.0], [0.6, 0.4]], np.float32)
    assert calibration_error(mixed, np.array([0, 1])) == pytest.approx(0.3, abs=1e-6)


@pytest.mark.parametrize(
    ("peak", "chosen", "tried"),
    [(0.03, 0.03, 4), (0.1, 0.1, 5), (1.0, 1.0, 7), (1e6, 100.0, 10), (0.001, 0.001, 6), (1e-9, 0.0001, 7)],
)
def test_regularisations_are_tried_until_the_best_is_between_two_others(
    peak: float, chosen: float, tried: int
) -> None:
    asked = list[float]()

    def accuracy(strength: float) -> float:
        asked.append(strength)
        return -abs(math.log(strength / peak))

    assert best_regularisation(accuracy) == chosen
    assert len(asked) == len(set(asked)) == tried


def test_of_equally_good_regularisations_the_first_is_taken() -> None:
    assert best_regularisation(lambda _: 0.5) == 0.003


def test_a_linear_classifier_may_need_little_regularisation() -> None:
    coins = np.random.default_rng(0)
    labels = np.arange(300) % 2
    features = coins.standard_normal((300, 64)).astype(np.float32)
    features[:, 0] = 0.3 * (2 * labels - 1)  # tells the classes apart, and is small beside the others
    training = TrainingSet(features[:200], labels[:200], None)
    found = linear_accuracy_of(training, features[200:], labels[200:])
    assert found is not None
    assert found > 0.9


def test_nothing_is_fitted_where_a_class_is_only_held_out() -> None:
    features = np.random.default_rng(0).standard_normal((10, 4)).astype(np.float32)
    for rare in (2, 8):  # which are the two that are held out
        linear_accuracy_of(
            TrainingSet(features, np.eye(10, dtype=np.int64)[rare], None), features, np.zeros(10, np.int64)
        )


def test_a_linear_classifier_on_the_embedding_is_compared_where_it_is_not_the_features(tmp_path: Path) -> None:
    settings = {
        "backbone": {"image_size": 32, "micro_batch": 4},
        "embedding": {"views": ["clean", "whole"], "layers": ["block5.inner", "block3.std"]},
    }
    with Eraser.create(tmp_path / "w", parse(settings, base="instant")) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
        model = eraser.workspace.generations.require()
        vectors = embeddings_in_use(eraser.workspace.records, model)
        assert vectors is not None
        assert vectors.shape == (20, 240 + 24)
        report = eraser.evaluate(digits(range(20, 30)), columns=DIGIT_COLUMNS)
        assert report.embedding_accuracy is not None
        alone = eraser.evaluate(digits(range(20, 30)), columns=DIGIT_COLUMNS, on_embedding=False)
        assert alone.embedding_accuracy is None
        assert alone.linear_accuracy == report.linear_accuracy
