"""Caches of what was derived from single records: features, trie keys, quantized embeddings and their statistics.

Each value depends on one record only, so it stays valid whatever other records come and go. A workspace keeps the
caches in its database; an audit starts with empty ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digests import Digest
from lmeraser.core.sufficient_statistics import SufficientStatistics
from lmeraser.data.references import RecordRef


class FeatureCache(Protocol):
    """Features and trie keys of single records."""

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Cached features, float32 [d], of those ids that have them."""
        ...

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Cache features."""
        ...

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Cached trie keys under the partition with this key."""
        ...

    def store_trie_keys(self, trie_keys: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        """Cache trie keys, of records that shaped the partition or of others."""
        ...


class Statistics(Protocol):
    """Sufficient statistics, and the quantized embeddings of the records that they include."""

    def ids(self, *, key: str) -> set[str]:
        """The records that are included under this key."""
        ...

    def quantized_embeddings(self, ids: Sequence[str]) -> list[bytes]:
        """Quantized embeddings of included records."""
        ...

    def current(self) -> SufficientStatistics | None:
        """The statistics of the included records; None if there is none."""
        ...

    def include(
        self, embeddings: Mapping[str, NDArray[np.int16]], labels: Sequence[int], classes: int, *, key: str
    ) -> None:
        """Include records, given their quantized embeddings, int16 [d + 1]."""
        ...


class TrieKeyIndex(Protocol):
    """Trie keys of the retained records, looked up by path."""

    def trie_keys_under(self, partition: Digest, path: str) -> dict[str, str]:
        """Trie keys of the records under one path of the partition."""
        ...

    def count_under(self, partition: Digest, path: str) -> int:
        """Number of the records under one path of the partition."""
        ...


class PartitionedRecords(Protocol):
    """Retained records, looked up by where the served partition puts them."""

    @property
    def derived(self) -> TrieKeyIndex:
        """Trie keys of the records."""
        ...

    def count(self) -> int:
        """Number of all records."""
        ...

    def refs(self, ids: Iterable[str]) -> Sequence[RecordRef]:
        """References to these records, sorted by id."""
        ...


class ReadOnlyCache:
    """A `FeatureCache` that stores nothing, so that every trie key is computed again.

    Args:
        source: where features may be read from; None: every image is embedded again.
    """

    def __init__(self, source: FeatureCache | None = None) -> None:
        self._source = source

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Features that the source has."""
        return self._source.features(ids, key=key) if self._source is not None else {}

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Store nothing."""

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        """No trie key is cached."""
        return {}

    def store_trie_keys(self, trie_keys: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        """Store nothing."""


class InMemoryStatistics:
    """`Statistics` that start empty and stay in memory."""

    def __init__(self) -> None:
        self._embeddings: dict[str, bytes] = {}
        self._statistics: SufficientStatistics | None = None

    def ids(self, *, key: str) -> set[str]:
        """The records included so far."""
        return set(self._embeddings)

    def quantized_embeddings(self, ids: Sequence[str]) -> list[bytes]:
        """Quantized embeddings of included records."""
        return [self._embeddings[record_id] for record_id in ids]

    def current(self) -> SufficientStatistics | None:
        """The statistics of the records included so far."""
        return self._statistics

    def include(
        self, embeddings: Mapping[str, NDArray[np.int16]], labels: Sequence[int], classes: int, *, key: str
    ) -> None:
        """Include records."""
        matrix = np.stack(list(embeddings.values()))
        statistics = self._statistics or SufficientStatistics.zero(matrix.shape[1], classes)
        self._statistics = statistics.widened(classes).plus(matrix, labels)
        self._embeddings |= {record_id: embedding.tobytes() for record_id, embedding in embeddings.items()}
