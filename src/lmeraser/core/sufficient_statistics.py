"""Sums over records from which any record can be subtracted again, to the bit.

A record's *code* is its embedding (features averaged over fixed views), rounded to integers, with a constant for
the bias. The *sums* are the products of codes with codes (``gram``) and of codes with classes (``moments``),
added up over records. They are sums of integers, so they are exact: in any order of additions and
subtractions, on any machine, they are those of the records that are left. Linear discriminants need
nothing else (`discriminant`), so forgetting a record costs one outer product and no other record is looked at.

Why it is exact: |code| < 2**15, so a product is below 2**30; up to 2**20 of them are added in float64, which is
exact below 2**53, and everything else in int64. Pure functions; knows numpy only.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.digests import Digest
from lmeraser.core.tensors import to_bytes

SCALE = 1024  # codes per unit; an embedding's root mean square is about 1
UNIT_RMS_EPSILON = 1e-12  # keeps a vector of zeros finite
_LARGEST = 2**15 - 1
_EXACT = 2**20  # records whose products are added in float64 at once

Codes = NDArray[np.int16]  # [n, d + 1]


@dataclass(frozen=True)
class SufficientStatistics:
    """Sums over records.

    Attributes:
        gram: products of codes with codes, int64 [d + 1, d + 1].
        moments: products of codes with classes, int64 [d + 1, classes].
    """

    gram: NDArray[np.int64]
    moments: NDArray[np.int64]

    @classmethod
    def zero(cls, width: int, classes: int) -> SufficientStatistics:
        """Of no record; ``width`` is the length of a code."""
        return cls(np.zeros((width, width), np.int64), np.zeros((width, classes), np.int64))

    def plus(self, codes: Codes, labels: Sequence[int], sign: int = 1) -> SufficientStatistics:
        """With more records, or (``sign`` -1) without some.

        Args:
            codes: of these records, int16 [n, d + 1].
            labels: class index of each.
            sign: 1 or -1.
        """
        gram, moments = self.gram, self.moments
        one_hot = np.eye(moments.shape[1])[np.asarray(labels, dtype=np.int64)]
        for start in range(0, len(codes), _EXACT):
            part = codes[start : start + _EXACT].astype(np.float64)
            signed = sign * part.T
            gram = gram + (signed @ part).astype(np.int64)
            moments = moments + (signed @ one_hot[start : start + _EXACT]).astype(np.int64)
        return SufficientStatistics(gram, moments)

    def widened(self, classes: int) -> SufficientStatistics:
        """With zeros for classes that were added to the end of the list."""
        missing = classes - self.moments.shape[1]
        return (
            SufficientStatistics(self.gram, np.pad(self.moments, ((0, 0), (0, missing)))) if missing > 0 else self
        )

    @property
    def records_by_class(self) -> tuple[int, ...]:
        """How many records of each class were added up; the code's constant counts them."""
        return tuple((self.moments[-1] // SCALE).tolist())

    @property
    def digest(self) -> Digest:
        """Digest of both."""
        return Digest.of(to_bytes({"gram": self.gram, "moments": self.moments}))


def embedding(views: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of several views of each image as one vector of root mean square 1.

    Args:
        views: float32 [n, views, d].

    Returns:
        float32 [n, d]: each view's features scaled to root mean square 1, averaged, scaled again.
    """
    return unit_rms(unit_rms(views).mean(axis=1, dtype=np.float32))


def encode(embeddings: NDArray[np.float32]) -> Codes:
    """Embeddings, float32 [n, d], as codes, int16 [n, d + 1]."""
    rounded = np.clip(np.rint(embeddings * np.float32(SCALE)), -_LARGEST, _LARGEST).astype(np.int16)
    return np.pad(rounded, ((0, 0), (0, 1)), constant_values=SCALE)


def decode(codes: Codes) -> NDArray[np.float32]:
    """Codes as what heads multiply: float32 [n, d + 1], the last column 1."""
    decoded: NDArray[np.float32] = codes.astype(np.float32) / np.float32(SCALE)
    return decoded


def stack(codes: Iterable[bytes]) -> Codes:
    """Stored codes as one matrix, int16 [n, d + 1]."""
    return np.stack([np.frombuffer(code, dtype=np.int16) for code in codes])


def pack(sums: SufficientStatistics) -> tuple[bytes, bytes]:
    """Sums as bytes to store: of ``gram``, which is symmetric, the lower triangle, and ``moments``."""
    rows = (row[: number + 1] for number, row in enumerate(sums.gram))
    return b"".join(row.tobytes() for row in rows), sums.moments.tobytes()


def unpack(gram: bytes, moments: bytes, width: int) -> SufficientStatistics:
    """Sums from what `pack` gave; ``width`` is the length of a code."""
    full, flat, start = np.empty((width, width), np.int64), np.frombuffer(gram, dtype=np.int64), 0
    for number in range(width):
        row = flat[start : start + number + 1]
        full[number, : number + 1] = row
        full[: number + 1, number] = row
        start += number + 1
    full.setflags(write=False)
    return SufficientStatistics(full, np.frombuffer(moments, dtype=np.int64).reshape(width, -1))


def unit_rms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors along the last axis, scaled to root mean square 1: x / sqrt(mean(x^2) + 1e-12), in float32.

    Each vector is scaled by itself, never with statistics of a batch. `gradient_tuner.unit_rms` is the same for torch
    tensors; the two round differently, and both roundings are part of models.
    """
    mean = np.square(vectors).mean(axis=-1, keepdims=True, dtype=np.float32)
    scaled: NDArray[np.float32] = vectors / np.sqrt(mean + np.float32(UNIT_RMS_EPSILON))
    return scaled
