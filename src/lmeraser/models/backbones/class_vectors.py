"""Class vectors: the weights of a checkpoint's own classifier, where they belong to the features.

They do if features @ vectors + bias gives the logits of the publisher's classifier (`reproduces_logits`): some
classifiers take another pooling (BEiT) or other weights in between (`PoolFormer`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.models.backbones.location import Location

CLASSIFIER = "classifier.weight"  # name of the class vectors in transformers' image classifiers
_BIAS = "classifier.bias"
_TOLERANCE = 1e-3  # of the logits' largest magnitude


def classifier_weights(location: Location) -> NDArray[np.float32] | None:
    """Weights of the checkpoint's own classifier, float32 [classes, d], which `AutoModel` does not load.

    None where there are none.
    """
    weights = location.tensor(CLASSIFIER)
    return weights if weights is not None and weights.ndim == 2 else None


def reproduces_logits(
    location: Location, images: Tensor, extra: dict[str, bool], pool: Callable[[Any], Tensor]
) -> bool:
    """Whether features times the classifier's weights, plus its bias, are the publisher's logits.

    Args:
        location: of the checkpoint; it has a classifier.
        images: float32 [n, 3, size, size], normalised.
        extra: more arguments of the network.
        pool: features, [n, d], from the output of the network below the classifier.
    """
    from transformers import AutoModelForImageClassification

    weights, bias = location.tensor(CLASSIFIER), location.tensor(_BIAS)
    try:
        whole = AutoModelForImageClassification.from_pretrained(
            location.name, use_safetensors=True, dtype=torch.float32, **location.loading
        ).eval()
        with torch.no_grad():
            logits = whole(pixel_values=images, **extra).logits.numpy()
            features = pool(whole.base_model(pixel_values=images, **extra)).numpy()
        ours = features @ weights.T + (0 if bias is None else bias) if weights is not None else None
    except Exception:  # no such classifier in this version of transformers, or one with other parts
        return False
    if ours is None or ours.shape != logits.shape:
        return False
    return bool(np.abs(ours - logits).max() <= _TOLERANCE * np.abs(logits).max())
