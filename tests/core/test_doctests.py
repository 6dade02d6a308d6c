"""The examples in the docstrings of this room run."""

from __future__ import annotations

import doctest
import importlib

import pytest


@pytest.mark.parametrize(("module", "examples"), [("console", 1), ("digests", 1), ("terminal", 1), ("time", 3)])
def test_the_examples_in_the_docstrings_hold(module: str, examples: int) -> None:
    outcome = doctest.testmod(importlib.import_module(f"lmeraser.core.{module}"))
    assert (outcome.attempted, outcome.failed) == (examples, 0)
