"""Quantized embeddings from vectors of views, as the settings say: for training, predictions and experiments.

    vectors of views -> averaged -> quantized -> random layer, if there is one

Knows nothing about torch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config
from lmeraser.core.random_features import random_features
from lmeraser.core.sufficient_statistics import QuantizedEmbeddings, embedding, quantize


def quantized_embeddings(vectors: NDArray[np.float32], config: Config) -> QuantizedEmbeddings:
    """Quantized embeddings of records; a row does not depend on the others.

    Args:
        vectors: of each view, as `InputEncoder.embeddable` gives them, float32 [n, views, d].
        config: all settings.

    Returns:
        int16 [n, width + 1], the last column a constant.
    """
    quantized = quantize(embedding(vectors))
    width = config.embedding.random_features
    return random_features(quantized, width, config.seed) if width else quantized
