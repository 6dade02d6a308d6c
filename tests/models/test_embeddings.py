"""Quantized embeddings as the settings say."""

from __future__ import annotations

import numpy as np

from lmeraser.config.schema import parse
from lmeraser.core.random_features import random_features
from lmeraser.core.sufficient_statistics import embedding, quantize
from lmeraser.models.embeddings import quantized_embeddings

VECTORS = np.random.default_rng(0).standard_normal((4, 3, 10)).astype(np.float32)


def test_without_a_random_layer_they_are_the_rounded_mean_of_the_views() -> None:
    found = quantized_embeddings(VECTORS, parse({}))
    assert np.array_equal(found, quantize(embedding(VECTORS)))


def test_a_random_layer_has_its_width_and_the_seed_of_the_settings() -> None:
    config = parse({"seed": 3, "embedding": {"random_features": 7}})
    found = quantized_embeddings(VECTORS, config)
    assert np.array_equal(found, random_features(quantize(embedding(VECTORS)), 7, seed=3))
    assert not np.array_equal(found, quantized_embeddings(VECTORS, parse({"embedding": {"random_features": 7}})))
