"""Inputs of backbones, one module for each modality; `input_encoder` and `load_backbone` choose it.

Each module has an ``ENCODER`` and a function ``load_network``. A further modality is one more module here, beside
its settings (`config.modalities`) and its payloads (`data.modalities`).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lmeraser.config.schema import Config
from lmeraser.models.backbones import open_device
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.modalities.base import InputEncoder

__all__ = ["Backbone", "InputEncoder", "input_encoder", "load_backbone"]


def input_encoder(config: Config, backbone: Backbone) -> InputEncoder[Any, Any]:
    """The encoder for the modality of the settings."""
    encoder: InputEncoder[Any, Any] = _module(config).ENCODER(config, backbone)
    return encoder


def load_backbone(config: Config) -> Backbone:
    """Load the backbone that the settings name onto the device that they name.

    Raises:
        BackboneError: the weights cannot be found or loaded, or there is no such device.
    """
    backbone: Backbone = _module(config).load_network(config, open_device(config.compute.device))
    return backbone


def _module(config: Config) -> Any:
    """The module of the modality; texts need libraries that images do not."""
    return import_module(f"{__name__}.{config.data.modality}")
