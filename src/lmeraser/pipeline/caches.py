"""What F remembers of single records: their features, places and codes, and the sums of the codes.

All of it is derived from one record each, so it stays right whatever other records come and go. The workspace's
memory is its database (`records`, `counted`); an audit's starts empty. Knows nothing about stages.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digests import Digest
from lmeraser.core.sufficient_statistics import SufficientStatistics


class FeatureCache(Protocol):
    """What was derived from single records: features and places."""

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Stored features of those ids that have them."""
        ...

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Store features."""
        ...

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Known places under the partition with this key."""
        ...

    def store_trie_keys(self, places: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        """Store places, of records that shaped the partition or of others."""
        ...


class Statistics(Protocol):
    """Which records are counted in the sums, and their codes."""

    def ids(self, *, key: str) -> set[str]:
        """The records that are counted under this key."""
        ...

    def codes(self, ids: Sequence[str]) -> list[bytes]:
        """Codes of counted records."""
        ...

    def sums(self) -> SufficientStatistics | None:
        """The sums over the counted records."""
        ...

    def count(
        self, codes: Mapping[str, NDArray[np.int16]], labels: Sequence[int], classes: int, *, key: str
    ) -> None:
        """Count records."""
        ...


class ReadOnlyCache:
    """A `FeatureCache` that keeps nothing, so that every place is found again.

    Args:
        known: where features may be read from; None: every image is embedded again.
    """

    def __init__(self, known: FeatureCache | None = None) -> None:
        self._known = known

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, NDArray[np.float32]]:
        """Features that are known elsewhere."""
        return self._known.features(ids, key=key) if self._known is not None else {}

    def store_features(self, vectors: Mapping[str, NDArray[np.float32]], *, key: str) -> None:
        """Store nothing."""

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        """Nothing is known."""
        return {}

    def store_trie_keys(self, places: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        """Store nothing."""


class InMemoryStatistics:
    """`Statistics` that start with no record and stay in memory."""

    def __init__(self) -> None:
        self._codes: dict[str, bytes] = {}
        self._sums: SufficientStatistics | None = None

    def ids(self, *, key: str) -> set[str]:
        """The records counted so far."""
        return set(self._codes)

    def codes(self, ids: Sequence[str]) -> list[bytes]:
        """Codes of counted records."""
        return [self._codes[record_id] for record_id in ids]

    def sums(self) -> SufficientStatistics | None:
        """The sums over the records counted so far."""
        return self._sums

    def count(
        self, codes: Mapping[str, NDArray[np.int16]], labels: Sequence[int], classes: int, *, key: str
    ) -> None:
        """Count records."""
        matrix = np.stack(list(codes.values()))
        self._sums = (
            (self._sums or SufficientStatistics.zero(matrix.shape[1], classes))
            .widened(classes)
            .plus(matrix, labels)
        )
        self._codes |= {record_id: code.tobytes() for record_id, code in codes.items()}
