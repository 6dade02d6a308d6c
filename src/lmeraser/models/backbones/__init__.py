"""Frozen networks: `load_backbone` gives the one that the settings name."""

from __future__ import annotations

import torch

from lmeraser.config.schema import Config
from lmeraser.errors import BackboneError
from lmeraser.models.backbones import efficientnet_lite
from lmeraser.models.backbones.base import Backbone

__all__ = ["Backbone", "load_backbone"]


def load_backbone(config: Config) -> Backbone:
    """The backbone that the settings name, frozen, on the device they name.

    Raises:
        BackboneError: the weights or the device are not there.
    """
    device = _device(config.compute.device)
    if config.backbone.name == efficientnet_lite.NAME:
        return efficientnet_lite.EfficientNetLite0(config.backbone, device)
    from lmeraser.models.backbones.huggingface import HuggingFaceBackbone

    return HuggingFaceBackbone(config.backbone, device)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise BackboneError(
            "compute.device is a device that torch sees.",
            got="'cuda', but torch sees no GPU",
            next_step='set compute.device = "cpu", or install a torch build for your GPU',
        )
    return torch.device(name)
