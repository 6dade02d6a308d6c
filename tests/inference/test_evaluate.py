"""Evaluation: what stands beside the accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import DIGIT_COLUMNS, digits
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.inference.evaluate import calibration_error, embeddings_in_use


def test_calibration_error_is_the_gap_between_probability_and_frequency() -> None:
    sure = np.array([[0.95, 0.05]] * 20, np.float32)
    assert calibration_error(sure, np.array([0] * 19 + [1])) == pytest.approx(0.0, abs=1e-6)
    assert calibration_error(sure, np.array([0] * 10 + [1] * 10)) == pytest.approx(0.45, abs=1e-6)
    mixed = np.array([[1.0, 0.0], [0.6, 0.4]], np.float32)
    assert calibration_error(mixed, np.array([0, 1])) == pytest.approx(0.3, abs=1e-6)


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
