"""Backbones, the frozen networks; `load_backbone` loads the one that the settings name."""

from __future__ import annotations

import torch

from lmeraser.config.schema import Config
from lmeraser.errors import BackboneError
from lmeraser.models.backbone_names import BUNDLED
from lmeraser.models.backbones.base import Backbone

__all__ = ["Backbone", "load_backbone"]


def load_backbone(config: Config) -> Backbone:
    """Load the backbone that the settings name onto the device that they name.

    Raises:
        BackboneError: the weights cannot be found or loaded, or there is no such device.
    """
    device = _device(config.compute.device)
    if config.backbone.name == BUNDLED:
        from lmeraser.models.backbones.efficientnet_lite import EfficientNetLite0

        return EfficientNetLite0(config.backbone, device)
    from lmeraser.models.backbones.huggingface import HuggingFaceBackbone

    return HuggingFaceBackbone(config.backbone, device)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise BackboneError(
            "Device not found",
            got="compute.device is 'cuda', but torch sees no GPU",
            next_step='set compute.device = "cpu", or install a torch build for your GPU',
        )
    return torch.device(name)
