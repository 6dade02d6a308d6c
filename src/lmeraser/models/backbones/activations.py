"""Activations of a backbone's layers, for metrics that compare images by them.

The layers are the members of the network's longest list of modules: the blocks of a CNN, the layers of a
transformer, the stages of a Swin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lmeraser.models.backbones.base import Backbone


def activations(backbone: Backbone, images: Tensor) -> list[NDArray[np.float32]]:
    """Outputs of all layers for one micro-batch.

    Args:
        backbone: the frozen network.
        images: float32 [micro_batch, 3, size, size], normalised.

    Returns:
        For each layer float32 [micro_batch, channels, height, width] or [micro_batch, tokens, d].
    """
    outputs: list[NDArray[np.float32]] = []

    def keep_output(module: nn.Module, inputs: Any, output: Any) -> None:
        tensor: Tensor = output[0] if isinstance(output, tuple) else output
        outputs.append(tensor.float().contiguous().cpu().numpy())

    hooks = [layer.register_forward_hook(keep_output) for layer in layers(backbone)]
    try:
        with torch.inference_mode():
            backbone.features(images)
    finally:
        for hook in hooks:
            hook.remove()
    return outputs


def layers(backbone: Backbone) -> list[nn.Module]:
    """The layers of a backbone, in the order in which images pass them."""
    networks = [value for value in vars(backbone).values() if isinstance(value, nn.Module)]
    lists = [part for network in networks for part in network.modules() if isinstance(part, nn.ModuleList)]
    return list(max(lists, key=len, default=[]))
