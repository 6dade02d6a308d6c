"""Progress reporting for long-running work: one callable, so that callers need no particular library.

By default nothing is reported. The command line shows a bar with an estimate of the time left (`console`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

T = TypeVar("T")


class Progress(Protocol):
    """A function to which long-running work reports its progress."""

    def __call__(self, step: str, done: int, total: int | None) -> None:
        """Take a report.

        Args:
            step: name of the step.
            done: how much of it is done.
            total: how much there is to do; None: unknown.
        """
        ...


def silent(step: str, done: int, total: int | None) -> None:
    """Report nothing."""


def track(items: Iterable[T], step: str, total: int | None, progress: Progress) -> Iterator[T]:
    """Iterate over ``items`` and report each one when it has been consumed.

    Args:
        items: to iterate over.
        step: name of the step.
        total: number of items; None: unknown.
        progress: receives the reports.
    """
    progress(step, 0, total)
    for done, item in enumerate(items, start=1):
        yield item
        progress(step, done, total)
