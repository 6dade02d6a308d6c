"""How long work tells its caller how far it is: one callable, so that a program needs no library for it.

The default says nothing. The command line shows a bar with an estimate of the time left (`cli`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """Called with the name of a step, how much of it is done, and its total (None: not known)."""

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Report."""
        ...


def silent(step: str, done: int, total: int | None) -> None:
    """Report nothing."""


def track(items: Iterable[T], step: str, total: int | None, progress: Progress) -> Iterator[T]:
    """Pass ``items`` on and report each."""
    progress(step, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(step, done, total)
