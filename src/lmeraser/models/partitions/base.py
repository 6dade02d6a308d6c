"""The interface of a partition: a rule that assigns records to clusters and routes new images to them.

A partition is fitted on a sample of the private records, on the backbone's public class vectors, or on nothing.
Once fitted, it gives every record a trie key, which depends on the fit and on that record alone; `trie.group`
turns the trie keys of all records into clusters. Cluster numbers are a function of the retained records. A cluster
is identified by its members, so a cluster that only gets another number is not tuned again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config
from lmeraser.core.seeding import coin
from lmeraser.core.tensors import Array

Features = NDArray[np.float32]  # [n, d]
Pixels = NDArray[np.float32]  # clean views as input of the backbone, [n, 3, size, size]
Clusters = NDArray[np.int64]  # [n]
Router = Callable[[Features, Pixels], Clusters]
Fitted = Mapping[str, Array]  # the tensors of the partition's artifact; their names differ between partitions

_HASH_BITS = 32


class Partition(ABC):
    """A rule that divides records; `PartitionConfig.fitted_on` says what it is fitted on."""

    def __init__(self, config: Config) -> None:
        self._seed = config.seed
        self._settings = config.partition

    @property
    @abstractmethod
    def needs_features(self) -> bool:
        """Whether trie keys and routes depend on features."""

    @abstractmethod
    def sample(self, ids: Sequence[str]) -> list[str]:
        """The record ids among ``ids`` that the partition is fitted on, in the order in which `fit` takes them."""

    @abstractmethod
    def fit(self, features: Features) -> Fitted:
        """Fit on the features of the sample, or on public class vectors."""

    @abstractmethod
    def trie_keys(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """The trie key of each record outside the sample; it does not depend on the other records."""

    def sample_trie_keys(self, fitted: Fitted, ids: Sequence[str]) -> list[str]:
        """The trie key of each sampled record, in the order of `fit`."""
        return []

    def for_routing(self, fitted: Fitted) -> Fitted:
        """The tensors that `router` needs, without what says anything about single records."""
        return fitted

    @abstractmethod
    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """Build the function that selects clusters for new images; built once, called for every micro-batch.

        Args:
            fitted: what `fit` returned.
            paths: of the clusters to choose from.

        Returns:
            A function of features and pixels that returns positions in ``paths``, int64 [n, votes]; -1 where an
            image has fewer votes. Each image's row depends on that image alone.
        """

    def _trie_key(self, root: int, record_id: str) -> str:
        """A root, followed by bits of the record's hash if clusters may have to be divided."""
        if self._settings.max_records is None:
            return str(root)
        return f"{root}/{self._hash_bits(record_id)}"

    def _hash_bits(self, record_id: str) -> str:
        word = int.from_bytes(coin(self._seed, "divide", record_id)[:4], "big")
        return f"{word:0{_HASH_BITS}b}"


def padded(votes: Sequence[Sequence[int]]) -> Clusters:
    """Lists of positions as one array, int64 [n, votes], filled up with -1."""
    width = max((len(row) for row in votes), default=0)
    rows = [[*row, *[-1] * (width - len(row))] for row in votes]
    return np.array(rows, dtype=np.int64).reshape(len(votes), width)


def positions_by_root(paths: Sequence[str]) -> dict[int, list[int]]:
    """Positions in ``paths`` of the clusters under each root."""
    positions: dict[int, list[int]] = {}
    for position, path in enumerate(paths):
        positions.setdefault(int(path.partition("/")[0]), []).append(position)
    return positions
