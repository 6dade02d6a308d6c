"""Sufficient statistics of records, from which any record can be subtracted again, to the bit.

The *quantized embedding* of a record is its embedding (features averaged over fixed views), rounded to integers,
with a constant for the bias appended. The *sufficient statistics* of a set of records are the products of
quantized embeddings with each other (``gram``, a symmetric matrix of which ``triangle`` holds half) and with
classes (``moments``), summed over the records. They are sums of integers, hence exact: in any order of additions
and subtractions, on any machine, they are those of the records that are left. Linear discriminant analysis needs
nothing else (`core.lda`), so excluding a record takes one outer product and looks at no other record.

Why they are exact: entries of a quantized embedding are below 2**15 in absolute value, so a product is below
2**30; up to 2**20 products are summed in float64, which is exact below 2**53, and everything else in int64. Pure
functions on numpy arrays.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import overload

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.blas import one_blas_thread
from lmeraser.core.digests import Digest
from lmeraser.core.tensors import to_bytes

SCALE = 1024  # integer steps per unit; an embedding's root mean square is about 1
UNIT_RMS_EPSILON = 1e-12  # keeps a vector of zeros finite
LARGEST_INTEGER = 2**15 - 1
LARGEST_ENTRY = LARGEST_INTEGER / SCALE  # of an embedding's numbers, 31.999; larger ones are clipped to it
_ROWS = 128  # of a matrix that are worked on at once
_EXACT = 2**20  # records whose products are summed in float64 at once
_LOW_BITS = 32
_HIGH_TYPES = (np.int8, np.int16)  # of the bits above these, narrowest first
_PLAIN_BYTES = 8

QuantizedEmbeddings = NDArray[np.int16]  # [n, d + 1]


@dataclass(frozen=True)
class SufficientStatistics:
    """Sufficient statistics of a set of records.

    Attributes:
        triangle: products of quantized embeddings with each other: the lower triangle of a symmetric matrix
            [d + 1, d + 1], row by row, int64 [(d + 1) (d + 2) / 2].
        moments: products of quantized embeddings with classes, int64 [d + 1, classes].
    """

    triangle: NDArray[np.int64]
    moments: NDArray[np.int64]

    @classmethod
    def zero(cls, width: int, classes: int) -> SufficientStatistics:
        """The statistics of no record; ``width`` is the length of a quantized embedding."""
        return cls(np.zeros(_start(width), np.int64), np.zeros((width, classes), np.int64))

    def plus(self, embeddings: QuantizedEmbeddings, labels: Sequence[int], sign: int = 1) -> SufficientStatistics:
        """The statistics with more records, or (``sign`` -1) without some.

        Args:
            embeddings: quantized embeddings of these records, int16 [n, d + 1].
            labels: class index of each.
            sign: 1 or -1.
        """
        triangle = self.triangle
        moments = self.moments
        one_hot = np.eye(moments.shape[1])[np.asarray(labels, dtype=np.int64)]
        for start in range(0, len(embeddings), _EXACT):
            part = embeddings[start : start + _EXACT].astype(np.float64)
            signed = sign * part.T
            with _one_thread(len(part)):
                plus_products = _plus_products if len(part) > 1 else _plus_products_of_one
                triangle = plus_products(triangle, signed, part)
                moments = moments + (signed @ one_hot[start : start + _EXACT]).astype(np.int64)
        return SufficientStatistics(triangle, moments)

    @property
    def width(self) -> int:
        """Length of a quantized embedding, d + 1."""
        return len(self.moments)

    @property
    def gram(self) -> NDArray[np.int64]:
        """The whole matrix of ``triangle``, int64 [d + 1, d + 1]."""
        full = np.empty((self.width, self.width), np.int64)
        for number in range(self.width):
            full[number, : number + 1] = self.row(number)
        for first in range(0, self.width, _ROWS):  # in blocks: columns of a large matrix are far apart in memory
            block = slice(first, first + _ROWS)
            below = slice(first + _ROWS, None)
            full[block, below] = full[below, block].T
            square = np.tril(full[block, block])
            full[block, block] = square + np.tril(square, -1).T
        return full

    def row(self, number: int) -> NDArray[np.int64]:
        """One row of the lower triangle, int64 [number + 1]."""
        return self.triangle[_start(number) : _start(number + 1)]

    @property
    def diagonal(self) -> NDArray[np.int64]:
        """The squares of each number of the embeddings, summed, int64 [d + 1]."""
        return self.triangle[_start(np.arange(1, self.width + 1)) - 1]

    def products(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """The products of some numbers of embeddings, by their positions, with each other, int64 [n, n]."""
        return self.triangle[_start(np.maximum.outer(numbers, numbers)) + np.minimum.outer(numbers, numbers)]

    def widened(self, classes: int) -> SufficientStatistics:
        """The statistics with zeros for classes that were added at the end of the list."""
        missing = classes - self.moments.shape[1]
        if missing <= 0:
            return self
        return SufficientStatistics(self.triangle, np.pad(self.moments, ((0, 0), (0, missing))))

    def with_classes(self, columns: Sequence[int | None]) -> SufficientStatistics:
        """The statistics with another list of classes; a class that is left out may not have records.

        Args:
            columns: for each class of the new list its index in the present one, or None for a new class.
        """
        moments = np.zeros((self.width, len(columns)), np.int64)
        for new, old in enumerate(columns):
            if old is not None:
                moments[:, new] = self.moments[:, old]
        return SufficientStatistics(self.triangle, moments)

    @property
    def records_by_class(self) -> tuple[int, ...]:
        """Number of included records of each class; the constant in every quantized embedding counts them."""
        return tuple((self.moments[-1] // SCALE).tolist())

    @property
    def digest(self) -> Digest:
        """Digest of gram and moments."""
        return Digest.of(to_bytes({"gram": self.gram, "moments": self.moments}))

    @property
    def packed_digest(self) -> Digest:
        """Digest of triangle and moments, which takes less than half as long."""
        return Digest.of(self.triangle.data, np.ascontiguousarray(self.moments).data)


@overload
def _start(number: int) -> int: ...
@overload
def _start(number: NDArray[np.int64]) -> NDArray[np.int64]: ...
def _start(number: int | NDArray[np.int64]) -> int | NDArray[np.int64]:
    """Where a row of a lower triangle begins; the size of the triangle with so many rows."""
    return number * (number + 1) // 2


def _one_thread(records: int) -> AbstractContextManager[object]:
    """Products of many records on one thread: several would wait for each other longer than they compute.

    The sums are the same. Those of a few records are computed by one thread anyway.
    """
    if records < _ROWS:
        return nullcontext()
    return one_blas_thread()


def _plus_products(
    triangle: NDArray[np.int64], left: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.int64]:
    """A new triangle: this one plus the lower triangle of a product of integers, [d + 1, n] by [n, d + 1]."""
    total = np.empty_like(triangle)
    width = len(left)
    for first in range(0, width, _ROWS):
        stop = min(first + _ROWS, width)
        products = (left[first:stop] @ right[:, :stop]).astype(np.int64)
        for number, row in enumerate(products, start=first):
            place = slice(_start(number), _start(number + 1))
            np.add(triangle[place], row[: number + 1], out=total[place])
    return total


def _plus_products_of_one(
    triangle: NDArray[np.int64], left: NDArray[np.float64], right: NDArray[np.float64]
) -> NDArray[np.int64]:
    """As `_plus_products` for a single record, in half the time: a deletion waits for this before all else."""
    total = np.empty_like(triangle)
    numbers = right[0].astype(np.int64)
    factors = left[:, 0].astype(np.int64)
    for number, factor in enumerate(factors):
        place = slice(_start(number), _start(number + 1))
        row = np.multiply(numbers[: number + 1], factor, out=total[place])
        row += triangle[place]
    return total


def embedding(views: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features of several views of each image as one vector of root mean square 1.

    Args:
        views: float32 [n, views, d].

    Returns:
        float32 [n, d]: each view's features scaled to root mean square 1, averaged, scaled again.
    """
    return unit_rms(unit_rms(views).mean(axis=1, dtype=np.float32))


def quantize(embeddings: NDArray[np.float32]) -> QuantizedEmbeddings:
    """Embeddings, float32 [n, d], as integers with a constant appended, int16 [n, d + 1]."""
    rounded = np.clip(np.rint(embeddings * np.float32(SCALE)), -LARGEST_INTEGER, LARGEST_INTEGER).astype(np.int16)
    return np.pad(rounded, ((0, 0), (0, 1)), constant_values=SCALE)


def dequantize(embeddings: QuantizedEmbeddings) -> NDArray[np.float32]:
    """Quantized embeddings as inputs of a linear head: float32 [n, d + 1], the last column 1."""
    inputs: NDArray[np.float32] = embeddings.astype(np.float32) / np.float32(SCALE)
    return inputs


def stack_quantized(stored: Iterable[bytes]) -> QuantizedEmbeddings:
    """Quantized embeddings, each stored as bytes, as one matrix, int16 [n, d + 1]."""
    return np.stack([np.frombuffer(data, dtype=np.int16) for data in stored])


def pack(statistics: SufficientStatistics) -> tuple[memoryview, memoryview]:
    """Statistics as bytes to store: ``triangle`` without bytes that say nothing, and ``moments``.

    The products of wide embeddings are large, so they are copied no more often than that needs.

    Up to tens of thousands of records, the bits above the lowest 32 of every product fit into one byte. The low
    parts of all products, uint32, are followed by the high ones, int8 or int16; where these do not suffice,
    products are stored as int64. The length says which it is.
    """
    triangle = statistics.triangle
    count = len(triangle)
    largest = max(int(triangle.max(initial=0)), -int(triangle.min(initial=0))) >> _LOW_BITS
    for narrow in _HIGH_TYPES:
        if largest < np.iinfo(narrow).max:
            packed = np.empty(count * (4 + np.dtype(narrow).itemsize), np.uint8)
            np.copyto(packed[: 4 * count].view(np.uint32), triangle, casting="unsafe")  # modulo 2**32
            np.right_shift(triangle, _LOW_BITS, out=packed[4 * count :].view(narrow), casting="unsafe")
            return packed.data, _bytes_of(statistics.moments)
    return _bytes_of(triangle), _bytes_of(statistics.moments)


def _bytes_of(numbers: NDArray[np.int64]) -> memoryview:
    return np.ascontiguousarray(numbers).view(np.uint8).reshape(-1).data


def unpack(gram: bytes | memoryview, moments: bytes | memoryview, width: int) -> SufficientStatistics:
    """Statistics from what `pack` returned; of workspaces made before it packed, all products are int64.

    Args:
        gram: products.
        moments: products with classes.
        width: length of a quantized embedding.
    """
    count = _start(width)
    each = len(gram) // count
    triangle: NDArray[np.int64]
    if each == _PLAIN_BYTES:
        triangle = np.frombuffer(gram, np.int64)
    else:
        triangle = np.frombuffer(gram, f"i{each - 4}", offset=4 * count).astype(np.int64)
        triangle <<= _LOW_BITS
        triangle |= np.frombuffer(gram, np.uint32, count)
        triangle.setflags(write=False)
    return SufficientStatistics(triangle, np.frombuffer(moments, dtype=np.int64).reshape(width, -1))


def unit_rms(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Vectors along the last axis, scaled to root mean square 1: x / sqrt(mean(x^2) + 1e-12), in float32.

    Each vector is scaled by itself, never with statistics of a batch. `gradient_tuner.unit_rms` is the same for
    torch tensors; the two round differently, and both roundings are part of models.
    """
    mean = np.square(vectors).mean(axis=-1, keepdims=True, dtype=np.float32)
    scaled: NDArray[np.float32] = vectors / np.sqrt(mean + np.float32(UNIT_RMS_EPSILON))
    return scaled


def unit_rms_at_any_size(vectors: NDArray[np.floating]) -> NDArray[np.float32]:
    """Vectors of somebody else's making, scaled to root mean square 1; zeros stay zeros.

    Their numbers may be so large or small that squares in float32 are infinite or zero. Each vector is therefore
    multiplied by a power of two first, which is exact, so that its largest number is between 0.5 and 1. Where
    `unit_rms` needs no such help (root mean squares from about 1e-2 to 1e15), it gives the same bits.

    Args:
        vectors: float32 or float64 [n, d], finite.

    Returns:
        float32 [n, d].
    """
    exponents = np.frexp(np.abs(vectors).max(axis=-1, keepdims=True, initial=0))[1]
    # In two steps: the power of two that brings the smallest numbers to 1 is itself too large for a float.
    halves = exponents // 2
    scaled = np.ldexp(np.ldexp(vectors, -halves), halves - exponents)
    return unit_rms(scaled.astype(np.float32, order="C"))  # another order in memory is another order of summation
