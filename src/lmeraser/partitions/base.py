"""What a partition is: a rule that gives every record its cluster, and every new image its clusters.

A partition is fitted on a sample (or on nothing) and states so; it does not change when a record outside the
sample goes. Clusters are numbered in an order that is a function of the retained records; their *identity* is
their members, so renumbering tunes nothing again. Knows numpy only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.tensors import Array

Features = NDArray[np.float32]  # [n, d]
Clusters = NDArray[np.int64]  # [n]


@dataclass(frozen=True)
class Fitted:
    """What fitting gives.

    Attributes:
        prototypes: float32 [clusters, d]; no rows where clusters are not found by distance.
        sample_clusters: cluster of each sampled record, int64 [sample].
    """

    prototypes: NDArray[np.float32]
    sample_clusters: Clusters

    def tensors(self) -> dict[str, Array]:
        """The artifact's tensors."""
        return {"prototypes": self.prototypes, "sample_clusters": self.sample_clusters}

    @classmethod
    def of(cls, tensors: dict[str, Array]) -> Fitted:
        """From the artifact's tensors."""
        return cls(tensors["prototypes"], tensors["sample_clusters"])


class Partition(ABC):
    """A way of dividing records into clusters; `PartitionConfig.fitted_on` says what shapes it."""

    @abstractmethod
    def sample(self, ids: Sequence[str]) -> list[str]:
        """Those of ``ids`` that shape the partition, in the order in which `fit` takes their features."""

    @abstractmethod
    def fit(self, features: Features) -> Fitted:
        """Fit on the features of the sample."""

    @property
    @abstractmethod
    def needs_features(self) -> bool:
        """Whether assignment and routing look at features."""

    @abstractmethod
    def assign(self, fitted: Fitted, ids: Sequence[str], features: Features) -> Clusters:
        """Cluster of each record outside the sample; does not depend on the other records."""

    @abstractmethod
    def route(self, fitted: Fitted, features: Features, clusters: Sequence[int]) -> NDArray[np.int64]:
        """Clusters that classify new images, int64 [n, votes]: positions in ``clusters``, those with members."""
