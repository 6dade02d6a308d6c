"""Payloads, one module for each modality; `payload_format` chooses it.

A further modality is one more module here, beside its settings (`config.modalities`) and its inputs of backbones
(`models.modalities`).
"""

from __future__ import annotations

from importlib import import_module

from lmeraser.config.schema import Config
from lmeraser.data.modalities.base import PayloadFormat

__all__ = ["PayloadFormat", "payload_format"]


def payload_format(config: Config) -> PayloadFormat:
    """The format of payloads for the modality of the settings."""
    module = import_module(f"{__name__}.{config.data.modality}")
    opened: PayloadFormat = module.open_format(config)
    return opened
