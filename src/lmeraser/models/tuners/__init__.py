"""Tuners, one for each kind of constituent; `create_tuner` gives the one that the settings name."""

from __future__ import annotations

from typing import Any

from lmeraser.config.schema import Config
from lmeraser.errors import ConfigError
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.tuners.base import Tuner
from lmeraser.models.tuners.head import HeadTuner
from lmeraser.models.tuners.mapping import MappedPromptTuner
from lmeraser.models.tuners.network import NetworkTuner
from lmeraser.models.tuners.pixels import PixelPrompt
from lmeraser.models.tuners.prompt_head import PromptHeadTuner
from lmeraser.models.tuners.prompts import InputPrompt
from lmeraser.models.tuners.shared_head import SharedHeadTuner
from lmeraser.models.tuners.tokens import TokenPrompt

__all__ = ["Tuner", "create_tuner"]


def create_tuner(config: Config, backbone: Backbone) -> Tuner[Any]:
    """The tuner for ``constituent.kind``.

    Raises:
        ConfigError: the model has no constituents.
    """
    match config.constituent.kind:
        case "head":
            return HeadTuner(config)
        case "prompt_head":
            return PromptHeadTuner(backbone, config, PixelPrompt(backbone, config))
        case "network":
            return NetworkTuner(backbone, config)
        case "tokens":
            return PromptHeadTuner(backbone, config, TokenPrompt(backbone, config))
        case "mapping":
            return MappedPromptTuner(backbone, config, _prompt(config, backbone))
        case "shared_head":
            return SharedHeadTuner(backbone, config, _prompt(config, backbone))
    raise ConfigError(
        "The model has no constituents to tune",
        got="constituent.kind = 'none'",
        next_step="choose another constituent.kind",
    )


def _prompt(config: Config, backbone: Backbone) -> InputPrompt:
    """The prompt of the modality."""
    kind = TokenPrompt if config.modality.prompt == "tokens" else PixelPrompt
    return kind(backbone, config)
