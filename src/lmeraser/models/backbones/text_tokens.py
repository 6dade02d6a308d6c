"""Learned tokens before the tokens of a text: soft prompts (Lester et al., 2021), deep ones (P-tuning v2).

    [tokens, text, padding] -> layer -> [tokens, text, padding] -> ... -> hidden states of the text

Tokens for the first layer are part of the network's input, with positions of their own. Deep tokens replace the
hidden states at their places before every further layer. The pooling sees the text's places alone. The tokens of
a pass are kept for each thread, so that several threads can use one network.
"""

from __future__ import annotations

import threading
from typing import Any

import torch
from torch import Tensor, nn


class LayerTokens:
    """Replaces hidden states before the layers of a network.

    Args:
        layers: those of the network.
    """

    def __init__(self, layers: nn.ModuleList) -> None:
        self._current = threading.local()
        for number, layer in enumerate(layers):
            if number:
                layer.register_forward_pre_hook(self._hook(number), with_kwargs=True)

    def run(self, model: nn.Module, tokens: Tensor, arguments: dict[str, Any]) -> Any:
        """The output of a pass.

        Args:
            model: the network.
            tokens: [n or 1, layers, count, width].
            arguments: of the pass; the first ``count`` places are those of the tokens.
        """
        self._current.tokens = tokens
        try:
            return model(**arguments)
        finally:
            self._current.tokens = None

    def _hook(self, number: int) -> Any:
        def replace(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
            tokens = getattr(self._current, "tokens", None)
            if tokens is None or number >= tokens.shape[1]:
                return None
            if arguments:
                return (_replaced(arguments[0], tokens[:, number]), *arguments[1:]), named
            return arguments, {**named, "hidden_states": _replaced(named["hidden_states"], tokens[:, number])}

        return replace


def _replaced(hidden: Tensor, tokens: Tensor) -> Tensor:
    """Hidden states, [n, places, width], with tokens, [n or 1, count, width], at the first places."""
    count = tokens.shape[1]
    return torch.cat([tokens.to(hidden.dtype).expand(len(hidden), -1, -1), hidden[:, count:]], dim=1)


def describe_model(model: Any, values: dict[str, Any], *, uses_layers: bool) -> dict[str, Any]:
    """Names of a model's classes in transformers, its configuration, and where its list of layers is.

    Args:
        model: of transformers.
        values: of its configuration.
        uses_layers: whether vectors of its layers may be embedded.
    """
    layers = find_layers(model) if uses_layers else None
    paths = [path for path, module in model.named_modules() if module is layers] if layers is not None else [None]
    return {
        "kind": "model",
        "architecture": type(model).__name__,
        "configuration": type(model.config).__name__,
        "values": values,
        "blocks": paths[0],
    }


def find_layers(model: Any) -> nn.ModuleList | None:
    """The layers of a transformer; None where it has no list of as many modules as its configuration says."""
    count = getattr(model.config, "num_hidden_layers", None)
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return lists[0] if lists else None
