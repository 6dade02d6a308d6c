"""What a constituent is: the thing that is tuned for one cluster, from its members alone (SISA's word).

A constituent is tuned by a pure function of its members, the settings, the backbone and the number of classes,
and is stored as one artifact of named tensors. Nothing of another cluster may enter: no shared batch, schedule,
optimiser, validation set or warm start. Any of these would make a deletion reach every cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from lmeraser.images import Canvases

T = TypeVar("T")
R = TypeVar("R")


class ParallelMap(Protocol):
    """Applies a function to items, possibly several at once; results in the order of the items."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """Map."""
        ...


@dataclass(frozen=True)
class Members:
    """The records of one cluster as tuning sees them.

    Attributes:
        ids: record ids, sorted.
        labels: class index of each.
        canvases: decoded images of each.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    canvases: Canvases


def serial(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
    """The `ParallelMap` that runs one after the other."""
    return [function(item) for item in items]
