"""Exact unlearning for image classifiers built on large frozen models.

The model is a deterministic function of the retained records, the settings and the backbone; training, adding and
unlearning are that one function, memoised. See `Eraser` for the verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lmeraser._version import __version__
from lmeraser.core import moved_modules
from lmeraser.errors import LmeraserError

if TYPE_CHECKING:
    from lmeraser.config.schema import Config
    from lmeraser.data.sources import Columns
    from lmeraser.eraser import Eraser
    from lmeraser.inference.export.loading import load_predictor

__all__ = ["Columns", "Config", "Eraser", "LmeraserError", "__version__", "load_predictor"]

moved_modules.install()

_HOMES = {
    "Columns": "data.sources",
    "Config": "config.schema",
    "Eraser": "eraser",
    "load_predictor": "inference.export.loading",
}


def __getattr__(name: str) -> Any:
    """Import the public names when they are first used: ``import lmeraser`` alone stays quick."""
    if name in _HOMES:
        import importlib

        return getattr(importlib.import_module(f"lmeraser.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'lmeraser' has no attribute {name!r}")
