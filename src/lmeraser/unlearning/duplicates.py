"""Near duplicates: records that look like deleted ones, judged by their stored features.

A *duplicate* of a record has the same payload, byte for byte (`Records.duplicates`), and can be selected with it.
A *near duplicate* has features whose cosine with the record's is at least `NEAR`. That is a hint, never a
selection: it finds a picture that another program saved again, and may find two that only look alike.

The bound was measured with EfficientNet-Lite0 on CIFAR-10. Among 1.1 million pairs of different images the
largest cosine was 0.90; of 300 images encoded again as JPEG of quality 95 or 75, all were near their originals.
Of those resized to twice their size, 58 % were found; cropped by one pixel, 41 %; mirrored, 24 %.

Every stored vector is compared, so nothing is counted in workspaces that hold more records than the setting
``requests.near_duplicate_records``.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from lmeraser.data.records import Records
from lmeraser.workspace.workspace import Workspace

NEAR = 0.95  # cosine
_SMALLEST = 1e-12  # keeps a vector of zeros finite

K = TypeVar("K", bound=Hashable)


def near_duplicates(workspace: Workspace, deleted: Mapping[K, Iterable[str]]) -> dict[K, int]:
    """How many near duplicates each of several deletions would leave that are carried out together.

    Args:
        workspace: before the deletions; only read.
        deleted: ids of the records that each of them deletes.

    Returns:
        The counts, duplicates not included; without deletions for whose records no features are stored, and empty
        if the workspace is too large.
    """
    records = workspace.records
    if records.count() > workspace.config.requests.near_duplicate_records:
        return {}
    chosen = {each: set(ids) for each, ids in deleted.items()}
    together = sorted(set().union(*chosen.values()))
    keys = records.derived.feature_keys(together)
    by_key: dict[str, list[K]] = {}
    for each, ids in chosen.items():
        found = {keys.get(record_id) for record_id in ids}
        if len(found) == 1 and (key := found.pop()) is not None:
            by_key.setdefault(key, []).append(each)
    if not by_key:
        return {}
    duplicates = records.duplicates(together)
    numbers = records.derived.numbers(set(together).union(*duplicates.values()))
    gone = {numbers[record_id] for record_id in together}
    counts: dict[K, int] = {}
    for key, deletions in by_key.items():
        vectors = records.derived.features(sorted(set().union(*(chosen[each] for each in deletions))), key=key)
        queries = {
            each: _Query(
                np.stack([vectors[record_id] for record_id in sorted(chosen[each])]),
                {numbers[other] for record_id in chosen[each] for other in duplicates.get(record_id, ())},
            )
            for each in deletions
        }
        counts |= _count(records, queries, key, gone)
    return counts


def near_held(
    workspace: Workspace, images: NDArray[np.float32], *, key: str, duplicates: Iterable[str]
) -> int | None:
    """How many held records are near one of some images; None if the workspace is too large to count them.

    Args:
        workspace: only read.
        images: features of the images, float32 [n, d].
        key: identifies what features depend on besides the image (`pipeline.derive.feature_key`).
        duplicates: ids of records that are no near duplicates, because they have the same payload.
    """
    records = workspace.records
    if records.count() > workspace.config.requests.near_duplicate_records:
        return None
    numbers = set(records.derived.numbers(duplicates).values())
    return _count(records, {None: _Query(images, numbers)}, key, set())[None]


@dataclass(frozen=True)
class _Query:
    """Features to compare with, float32 [n, d], and numbers of records that do not count."""

    vectors: NDArray[np.float32]
    passed_over: set[int]


def _count(records: Records, queries: Mapping[K, _Query], key: str, gone: set[int]) -> dict[K, int]:
    """How many records are near each query, in one pass over the stored features.

    Args:
        records: of the workspace.
        queries: what to compare with.
        key: of the features.
        gone: numbers of records that count for no query.
    """
    counts = np.zeros(len(queries), np.int64)
    directions = np.concatenate([_unit(query.vectors) for query in queries.values()]).T  # [d, rows of all queries]
    starts = np.cumsum([0, *(len(query.vectors) for query in queries.values())])[:-1]
    for numbers, vectors in records.derived.all_features(key=key):
        kept = [row for row, number in enumerate(numbers) if number not in gone]
        if not kept:
            continue
        row_of = {numbers[row]: position for position, row in enumerate(kept)}
        near = np.logical_or.reduceat(
            _unit(vectors[kept]) @ directions >= NEAR, starts, axis=1
        )  # [records, queries]
        counts += near.sum(axis=0)
        for column, query in enumerate(queries.values()):
            counts[column] -= sum(
                bool(near[row_of[number], column]) for number in query.passed_over & row_of.keys()
            )
    return dict(zip(queries, counts.tolist(), strict=True))


def _unit(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors scaled to length 1, float32 [n, d]."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit: NDArray[np.float32] = vectors / np.maximum(lengths, np.float32(_SMALLEST))
    return unit
