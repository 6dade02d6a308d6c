"""A worker that repeats its arguments; imports little, because every process of workers imports it anew."""

from __future__ import annotations

import os
import time
from typing import Any

from lmeraser.errors import BackboneError


class Echo:
    """Repeats its arguments."""

    def __init__(self, settings: str) -> None:
        if settings == "broken":
            raise BackboneError("Weights not found", got="none", next_step="find them")
        self.settings = settings

    def say(self, *words: Any) -> tuple[Any, ...]:
        return (self.settings, os.getpid(), os.environ.get("CUDA_VISIBLE_DEVICES"), *words)

    def sleep(self) -> None:
        time.sleep(600)
