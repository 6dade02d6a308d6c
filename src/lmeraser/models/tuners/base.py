"""What a constituent is: the thing that is tuned for one cluster, from its members alone (SISA's word).

A constituent is tuned by a pure function of its members, the settings, the backbone and the number of classes,
and is stored as one artifact of named tensors. Nothing of another cluster may enter: no shared batch, schedule,
optimiser, validation set or warm start. Any of these would make a deletion reach every cluster. (`shared_head` is
the exception on purpose: its one task has the records of all clusters.)

A `Tuner` says what its tuning is given of each member, how it is tuned, and what predicts for several clusters.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from lmeraser.core.tensors import Array

T = TypeVar("T")
R = TypeVar("R")
Given = TypeVar("Given")


class ParallelMap(Protocol):
    """Applies a function to items, possibly several at once; results in the order of the items."""

    def __call__(self, function: Callable[[T], R], items: Iterable[T]) -> Iterable[R]:
        """Map."""
        ...


def serial(function: Callable[[T], R], items: Iterable[T]) -> Iterable[R]:
    """The `ParallelMap` that runs one after the other."""
    return map(function, items)


def untold(records: int) -> None:
    """Tell nobody how far it is."""


@dataclass(frozen=True)
class Members(Generic[Given]):
    """The records of one cluster as tuning sees them.

    Attributes:
        ids: record ids, sorted.
        labels: class index of each.
        given: what tuning is given of each: decoded images (`Canvases`), or codes, int16 [n, d + 1].
        groups: number of the cluster of each, where clusters are tuned together; else empty.
        parts: number of clusters that are tuned together.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    given: Given
    groups: tuple[int, ...] = ()
    parts: int = 1


@dataclass(frozen=True)
class QueryBatch:
    """One micro-batch of images that constituents are asked about.

    Attributes:
        clean: their clean views as input of the backbone, float32 [micro_batch, 3, size, size]; those beyond the
            first n are padding.
        embedded: of the first n, features averaged over the views, float32 [n, d]; None where no part of the model
            sees them.
    """

    clean: Tensor
    embedded: NDArray[np.float32] | None = None


class ClusterPredictor(Protocol):
    """The constituents of several clusters, to predict with."""

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, classes], by the constituent at one position for each image.

        The bits of an image's row do not depend on the other images.

        Args:
            queries: the images.
            chosen: positions, int64 [n].
        """
        ...


class Tuner(ABC, Generic[Given]):
    """One kind of constituent, with its settings."""

    @abstractmethod
    def load(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> Given:
        """What tuning is given of each member.

        Args:
            ids: of the members.
            fetch: their images or codes, as the settings say (`ConstituentConfig.given`).
            budget: bytes of decoded pixels that may be kept.
            parallel: decodes several at once.
        """

    @abstractmethod
    def tune(
        self,
        members: Members[Given],
        *,
        classes: int,
        parallel: ParallelMap = serial,
        start: Mapping[str, Array] | None = None,
        on_step: Callable[[int], None] = untold,
    ) -> dict[str, Array]:
        """Tune a constituent.

        Args:
            members: the cluster's records; at least one.
            classes: number of classes, a public input.
            parallel: runs micro-batches of one step, possibly at the same time.
            start: what an earlier tuning gave, to go on from; None: the initial values.
            on_step: called after every step with its number of records; may raise to stop.

        Returns:
            The artifact's tensors.
        """

    def of_cluster(self, tensors: Mapping[str, Array], number: int) -> Mapping[str, Array]:
        """What of an artifact belongs to one cluster: all of it, unless clusters are tuned together."""
        return tensors

    @abstractmethod
    def answers(self, constituents: Sequence[Mapping[str, Array]]) -> ClusterPredictor:
        """What answers for several clusters; ``constituents`` is what `of_cluster` gave for each."""
