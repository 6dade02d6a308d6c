"""The interface of tuners: how the constituent of one cluster is tuned, and how constituents predict.

A *constituent* (SISA's word) is what is tuned for one cluster, from its members alone. Tuning is a pure function
of the members, the settings, the backbone and the number of classes; its result is one artifact of named tensors.
Nothing of another cluster may enter: no shared batch, schedule, optimiser, validation set or warm start. Any of
these would make a deletion change every cluster. (`shared_head` is the deliberate exception: its single task has
the records of all clusters.)

    Tuner.load(ids)           the members' inputs of the backbone, or their quantized embeddings
    Tuner.tune(members)       the artifact of a cluster
    Tuner.predictor(...)      a `ClusterPredictor` for the artifacts of several clusters
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
from lmeraser.models.modalities.base import ParallelMap

T = TypeVar("T")
R = TypeVar("R")
Inputs = TypeVar("Inputs")


def serial_map(function: Callable[[T], R], items: Iterable[T]) -> Iterable[R]:
    """The `ParallelMap` that handles one item after the other."""
    return map(function, items)


def ignore_step(records: int) -> None:
    """The `on_step` callback that does nothing."""


@dataclass(frozen=True)
class Members(Generic[Inputs]):
    """The records of one cluster as its tuning sees them.

    Attributes:
        ids: record ids, sorted.
        labels: class index of each member.
        inputs: of all members, from `Tuner.load`: `MemberInputs`, or quantized embeddings,
            int16 [n, d + 1].
        cluster_numbers: cluster of each member, where clusters are tuned together; else empty.
        cluster_count: how many clusters are tuned together.
    """

    ids: tuple[str, ...]
    labels: tuple[int, ...]
    inputs: Inputs
    cluster_numbers: tuple[int, ...] = ()
    cluster_count: int = 1


@dataclass(frozen=True)
class QueryBatch:
    """One micro-batch of records to classify.

    Attributes:
        clean: clean views as input of the backbone, [micro_batch, ...]; rows beyond the first n are padding.
        embeddings: of the n records, features averaged over the views, float32 [n, d]; None where no part of the
            model uses them.
    """

    clean: Tensor
    embeddings: NDArray[np.float32] | None = None


class ClusterPredictor(Protocol):
    """Classifies records with the constituents of several clusters."""

    def classify(self, queries: QueryBatch, chosen: NDArray[np.int64]) -> NDArray[np.float32]:
        """Class probabilities of each record by the constituent that is chosen for it.

        The bits of a row do not depend on the others.

        Args:
            queries: n records.
            chosen: for each record a position in the list of constituents, int64 [n].

        Returns:
            float32 [n, classes].
        """
        ...


class Tuner(ABC, Generic[Inputs]):
    """Tunes one kind of constituent with fixed settings.

    Attributes:
        in_flight: how many recorded passes (`recorded_passes`) are in flight at once, so that clusters are tuned
            one after the other; 0: threads compute the micro-batches. Both ways give the same bits.
    """

    in_flight = 0

    @abstractmethod
    def load(
        self,
        ids: Sequence[str],
        fetch: Callable[[Sequence[str]], Sequence[bytes]],
        *,
        budget: int,
        parallel: ParallelMap,
    ) -> Inputs:
        """The inputs of tuning for these members.

        Args:
            ids: record ids of the members.
            fetch: gives their payloads or quantized embeddings, as `ConstituentConfig.tuned_on` says.
            budget: bytes of decoded inputs that may be kept in memory.
            parallel: decodes several at once.
        """

    @abstractmethod
    def tune(
        self,
        members: Members[Inputs],
        *,
        classes: int,
        parallel: ParallelMap = serial_map,
        start: Mapping[str, Array] | None = None,
        on_step: Callable[[int], None] = ignore_step,
    ) -> dict[str, Array]:
        """Tune a constituent.

        Args:
            members: the cluster's records; at least one.
            classes: number of classes, a public input.
            parallel: runs the micro-batches of a step, possibly at the same time.
            start: tensors of an earlier tuning to continue from; None: the initial values.
            on_step: called after every step with its number of records; may raise to stop.

        Returns:
            The artifact's tensors.
        """

    def cluster_tensors(self, tensors: Mapping[str, Array], number: int) -> Mapping[str, Array]:
        """The part of an artifact that belongs to one cluster: all of it, unless clusters are tuned together."""
        return tensors

    @abstractmethod
    def predictor(self, constituents: Sequence[Mapping[str, Array]]) -> ClusterPredictor:
        """A predictor for several clusters.

        Args:
            constituents: the tensors of each cluster, from `cluster_tensors`.
        """
