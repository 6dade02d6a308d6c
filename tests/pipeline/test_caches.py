"""The caches of an audit, which start empty: nothing is stored, and statistics stay in memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from lmeraser.core.digests import Digest
from lmeraser.core.sufficient_statistics import SufficientStatistics, stack_quantized
from lmeraser.pipeline.caches import InMemoryStatistics, ReadOnlyCache
from lmeraser.pipeline.executors.base import Vector

KEY = Digest.of(b"partition")


def vector(value: float) -> Vector:
    return np.full(3, value, np.float32)


class Known:
    """A cache with the features of one record, which must not be written to or asked for trie keys."""

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, Vector]:
        return {"a": vector(1)} if key == "features" and "a" in ids else {}

    def store_features(self, vectors: Mapping[str, Vector], *, key: str) -> None:
        raise AssertionError("stored features")

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        raise AssertionError("asked for trie keys")

    def store_trie_keys(self, trie_keys: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        raise AssertionError("stored trie keys")


@pytest.mark.parametrize("known", [None, Known()], ids=["from nothing", "with known features"])
def test_the_forgetful_remember_nothing(known: Known | None) -> None:
    cache = ReadOnlyCache(known)
    cache.store_features({"b": vector(2)}, key="features")
    cache.store_trie_keys({"b": "0"}, partition=KEY)
    cache.store_trie_keys({"c": "1"}, partition=KEY, sampled=True)
    assert cache.features(["b"], key="features") == {}
    assert cache.trie_keys(KEY) == {}
    assert cache.trie_keys(KEY, ["b", "c"]) == {}


def test_the_forgetful_pass_on_features_that_are_known() -> None:
    cache = ReadOnlyCache(Known())
    found = cache.features(["a", "b"], key="features")
    assert list(found) == ["a"]
    np.testing.assert_array_equal(found["a"], vector(1))
    assert cache.features(["a"], key="of other settings") == {}
    assert cache.features(["b"], key="features") == {}
    assert ReadOnlyCache().features(["a"], key="features") == {}


def embeddings(*numbers: int) -> dict[str, Any]:
    """A quantized embedding of each of these records: noise of its own, and the constant."""
    return {
        f"r{number}": np.append(np.random.default_rng(number).integers(-3000, 3000, 4), 1024).astype(np.int16)
        for number in numbers
    }


def total(known: Mapping[str, Any], labels: Sequence[int], classes: int) -> tuple[Any, Any]:
    """The statistics by their definition, record by record, in Python's integers."""
    width = len(next(iter(known.values())))
    gram, moments = np.zeros((width, width), object), np.zeros((width, classes), object)
    for embedding, label in zip(known.values(), labels, strict=True):
        exact = np.array([int(value) for value in embedding], object)
        gram += np.outer(exact, exact)
        moments[:, label] += exact
    return gram, moments


def assert_sums(
    found: SufficientStatistics | None, known: Mapping[str, Any], labels: Sequence[int], classes: int
) -> None:
    assert found is not None
    gram, moments = total(known, labels, classes)
    assert found.gram.tolist() == gram.tolist()
    assert found.moments.tolist() == moments.tolist()


def test_counts_start_with_no_record() -> None:
    counts = InMemoryStatistics()
    assert counts.ids(key="key") == set()
    assert counts.current() is None
    assert counts.quantized_embeddings([]) == []
    with pytest.raises(KeyError):
        counts.quantized_embeddings(["r1"])


def test_records_are_counted() -> None:
    counts, known = InMemoryStatistics(), embeddings(3, 1, 2)
    counts.include(known, [0, 2, 2], 4, key="key")
    assert counts.ids(key="key") == {"r1", "r2", "r3"}
    assert counts.quantized_embeddings(["r2", "r3"]) == [known["r2"].tobytes(), known["r3"].tobytes()]
    np.testing.assert_array_equal(
        stack_quantized(counts.quantized_embeddings(["r2", "r3"])), [known["r2"], known["r3"]]
    )
    assert_sums(counts.current(), known, [0, 2, 2], 4)
    statistics = counts.current()
    assert statistics is not None
    assert statistics.records_by_class == (1, 0, 2, 0)


def test_records_counted_one_after_the_other_are_counted_as_at_once() -> None:
    at_once, in_parts = InMemoryStatistics(), InMemoryStatistics()
    known, labels = embeddings(*range(9)), [number % 3 for number in range(9)]
    at_once.include(known, labels, 3, key="key")
    for number in (7, 2, 8, 0, 1, 6, 5, 3, 4):
        in_parts.include(embeddings(number), [labels[number]], 3, key="key")
    one, other = at_once.current(), in_parts.current()
    assert one is not None
    assert other is not None
    assert one.digest == other.digest
    assert in_parts.ids(key="key") == at_once.ids(key="key")
    assert_sums(other, known, labels, 3)


def test_two_counts_do_not_share_records() -> None:
    first, second = InMemoryStatistics(), InMemoryStatistics()
    first.include(embeddings(1), [0], 2, key="key")
    assert second.ids(key="key") == set()
    assert second.current() is None
