"""Learned tokens between the class token and the patches of a transformer (VPT, Jia et al., 2022).

    [class, tokens, patches] -> layer -> ... -> norm -> class token

Runs the parts of a frozen ViT, DeiT or DINOv2 of ``transformers`` one after the other, since its own forward pass
takes no additional tokens.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor

from lmeraser.models.backbones.base import TokenInput

_MODEL_TYPES = frozenset({"vit", "deit", "dinov2", "dinov2_with_registers"})


def token_input(model: Any, extra: dict[str, bool]) -> TokenInput | None:
    """The input for learned tokens of a model; None where its type is not supported.

    Args:
        model: a frozen model of transformers whose features are the class token.
        extra: arguments for its embeddings.
    """
    if str(model.config.model_type) not in _MODEL_TYPES:
        return None
    patch = model.config.patch_size
    side = int(patch if isinstance(patch, int) else patch[0])
    features = partial(_features, model, extra)
    width = int(model.config.hidden_size)
    bound = (6 / (3 * side**2 + width)) ** 0.5  # of Glorot and Bengio (2010), as in VPT
    return TokenInput(len(_layers(model)), width, bound, features)


def _layers(model: Any) -> Any:
    """The layers of a model; versions of transformers keep them in different places."""
    return model.layers if hasattr(model, "layers") else model.encoder.layer


def _features(model: Any, extra: dict[str, bool], images: Tensor, tokens: Tensor) -> Tensor:
    """`TokenInput.features` of a model."""
    hidden: Tensor = model.embeddings(images.to(model.dtype), **extra)
    count = tokens.shape[2]
    for number, layer in enumerate(_layers(model)):
        if number < tokens.shape[1]:
            learned = tokens[:, number].to(hidden.dtype).expand(len(hidden), -1, -1)
            patches = hidden[:, 1:] if number == 0 else hidden[:, 1 + count :]
            hidden = torch.cat([hidden[:, :1], learned, patches], dim=1)
        result = layer(hidden)
        hidden = result[0] if isinstance(result, tuple) else result
    normed: Tensor = model.layernorm(hidden)
    return normed[:, 0].float()
