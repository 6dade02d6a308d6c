"""What is tuned for one cluster: `kind_of` gives the kind that the settings name."""

from __future__ import annotations

from typing import Any

from lmeraser.config.schema import Config
from lmeraser.errors import ConfigError
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.tuners.base import Kind
from lmeraser.models.tuners.head import Head
from lmeraser.models.tuners.mapping import MappedPrompt
from lmeraser.models.tuners.network import Network
from lmeraser.models.tuners.prompt_head import PromptHead
from lmeraser.models.tuners.shared_head import SharedHead
from lmeraser.models.tuners.tokens import Tokens

__all__ = ["Kind", "kind_of"]


def kind_of(config: Config, backbone: Backbone) -> Kind[Any]:
    """The kind of constituent that the settings name.

    Raises:
        ConfigError: they name none.
    """
    match config.constituent.kind:
        case "head":
            return Head(config)
        case "prompt_head":
            return PromptHead(backbone, config)
        case "network":
            return Network(backbone, config)
        case "tokens":
            return Tokens(backbone, config)
        case "mapping":
            return MappedPrompt(backbone, config)
        case "shared_head":
            return SharedHead(backbone, config)
    raise ConfigError("Something is tuned.", got="constituent.kind = 'none'")
