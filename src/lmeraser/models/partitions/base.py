"""What a partition is: a rule that gives every record its place, and every new image the clusters that answer.

A partition is fitted on private records (a sample of them), on the backbone's public class vectors, or on
nothing. A record's place depends on what was fitted and on the record alone; `grouping` makes clusters of
places. Clusters are numbered in an order that is a function of the retained records; their *identity* is their
members, so renumbering tunes nothing again. Knows numpy only.
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
Fitted = Mapping[str, Array]  # the artifact's tensors; each partition knows its own

_HASH_BITS = 32


class Partition(ABC):
    """A way of dividing records; `PartitionConfig.fitted_on` says what shapes it."""

    def __init__(self, config: Config) -> None:
        self._seed = config.seed
        self._settings = config.partition

    @property
    @abstractmethod
    def needs_features(self) -> bool:
        """Whether places and routes depend on features."""

    @abstractmethod
    def sample(self, ids: Sequence[str]) -> list[str]:
        """Those of ``ids`` that shape the partition, in the order in which `fit` takes their features."""

    @abstractmethod
    def fit(self, features: Features) -> Fitted:
        """Fit on the features of the sample, or on public class vectors."""

    @abstractmethod
    def trie_keys(self, fitted: Fitted, ids: Sequence[str], features: Features) -> list[str]:
        """Place of each record outside the sample; does not depend on the other records."""

    def sample_places(self, fitted: Fitted, ids: Sequence[str]) -> list[str]:
        """Place of each sampled record, in the order of `fit`."""
        return []

    @abstractmethod
    def router(self, fitted: Fitted, paths: Sequence[str]) -> Router:
        """Which of the clusters with these paths answer for new images; made once, asked for every micro-batch.

        Returns:
            A function of features and pixels that gives positions in ``paths``, int64 [n, votes]; -1 where an
            image has fewer votes. Each image's row depends on that image alone.
        """

    def _place(self, head: int, record_id: str) -> str:
        """A head, with bits of the record's hash where clusters may have to be divided."""
        if self._settings.max_records is None:
            return str(head)
        return f"{head}/{self._hash_bits(record_id)}"

    def _hash_bits(self, record_id: str) -> str:
        word = int.from_bytes(coin(self._seed, "divide", record_id)[:4], "big")
        return f"{word:0{_HASH_BITS}b}"


def padded(votes: Sequence[Sequence[int]]) -> Clusters:
    """Lists of positions as int64 [n, votes], filled up with -1."""
    width = max((len(row) for row in votes), default=0)
    rows = [[*row, *[-1] * (width - len(row))] for row in votes]
    return np.array(rows, dtype=np.int64).reshape(len(votes), width)


def by_head(paths: Sequence[str]) -> dict[int, list[int]]:
    """Positions of the paths with each head."""
    found: dict[int, list[int]] = {}
    for position, path in enumerate(paths):
        found.setdefault(int(path.partition("/")[0]), []).append(position)
    return found
