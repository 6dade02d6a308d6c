"""Exact unlearning for image classifiers built on large frozen backbones.

The model is a deterministic function of the retained records, the settings and the backbone; training, adding and
unlearning are that one function, memoised. See `Eraser` for the verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmeraser._version import __version__
from lmeraser.errors import LmeraserError

if TYPE_CHECKING:
    from lmeraser.config import Config
    from lmeraser.eraser import Eraser
    from lmeraser.sources import Columns

__all__ = ["Columns", "Config", "Eraser", "LmeraserError", "__version__"]

_HOMES = {"Columns": "sources", "Config": "config", "Eraser": "eraser"}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: ``import lmeraser`` alone stays quick."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"lmeraser.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lmeraser' has no attribute {name!r}")
