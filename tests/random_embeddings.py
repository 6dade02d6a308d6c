"""Quantized embeddings for tests of what is computed from them."""

from __future__ import annotations

import numpy as np

from lmeraser.core.sufficient_statistics import QuantizedEmbeddings, embedding, quantize


def quantized_of(seed: int, count: int, width: int, classes: int) -> tuple[QuantizedEmbeddings, list[int]]:
    """Quantized embeddings of random embeddings that know a little of their random classes."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, classes, count)
    centres = random.standard_normal((classes, width))
    features = random.standard_normal((count, 1, width)) + centres[labels][:, None]
    return quantize(embedding(features.astype(np.float32))), labels.tolist()
