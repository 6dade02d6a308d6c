"""Payloads, one module for each modality; `payload_format` chooses it.

A further modality is one more module here, beside its settings (`config.modalities`) and its inputs of backbones
(`models.modalities`).
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module

from lmeraser.config.modalities import MODALITIES
from lmeraser.config.schema import Config
from lmeraser.data.modalities.base import PayloadFormat

__all__ = ["PayloadFormat", "of_another_modality", "payload_format"]


def payload_format(config: Config) -> PayloadFormat:
    """The format of payloads for the modality of the settings."""
    module = import_module(f"{__name__}.{config.data.modality}")
    opened: PayloadFormat = module.open_format(config)
    return opened


def of_another_modality(columns: Iterable[str], own: str) -> str:
    """The end of a next step, where a table has a column that is named as the payloads of another modality are."""
    there = set(columns)
    for modality in MODALITIES:
        if modality != own and there.intersection(import_module(f"{__name__}.{modality}").COLUMNS):
            return f"; for {modality}s, make the workspace with 'lmeraser init --modality {modality}'"
    return ""
