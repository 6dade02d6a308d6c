"""A fixed random layer on quantized embeddings (RanPAC, McDonnell et al., 2023), in integers.

    c = max(0, q R)  shifted right by s bits         R in {-1, 0, 1}, drawn from the seed, whatever the records are

The discriminants of c are not linear in the embedding, and still follow from sums that any record can be
subtracted from. Everything is exact on every machine: an entry of a quantized embedding is below 2**15 in absolute
value, so a sum of at most 65,536 of them is below 2**31. Pure functions on numpy arrays.
"""

from __future__ import annotations

import hashlib
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.sufficient_statistics import LARGEST_INTEGER, SCALE, QuantizedEmbeddings

_NONZERO = 0.5  # share of the entries of R that are not 0


def random_features(quantized: QuantizedEmbeddings, width: int, seed: int) -> QuantizedEmbeddings:
    """The random layer's outputs for quantized embeddings; a row does not depend on the others.

    Args:
        quantized: int16 [n, d + 1].
        width: number of outputs.
        seed: of R.

    Returns:
        int16 [n, width + 1], the last column the constant, with a root mean square of about `SCALE`.
    """
    inputs = quantized[:, :-1]
    length = inputs.shape[1]
    # Below 2**31 in absolute value, so float64 products and sums are exact in any order.
    sums = (inputs.astype(np.float64) @ projection(seed, length, width)).astype(np.int32)
    shift = shift_for(length)
    rounding = (1 << shift) >> 1
    outputs = np.minimum((np.maximum(sums, 0).astype(np.int64) + rounding) >> shift, LARGEST_INTEGER)
    return np.pad(outputs.astype(np.int16), ((0, 0), (0, 1)), constant_values=SCALE)


def shift_for(length: int) -> int:
    """The power of two nearest to the root mean square of max(0, q R) / `SCALE` for embeddings of this length."""
    variance = length * _NONZERO / 2
    shift = 0
    while 4 ** (shift + 1) <= 2 * variance:
        shift += 1
    return shift


@lru_cache(maxsize=2)
def projection(seed: int, length: int, width: int) -> NDArray[np.float64]:
    """R, float64 [length, width], of -1, 0 and 1: two bits of SHAKE-256 for each entry, 00 is -1, 11 is 1."""
    count = length * width
    name = f"lmeraser random features {seed} {length} {width}".encode()
    data = np.frombuffer(hashlib.shake_256(name).digest(-(-count // 4)), np.uint8)
    pairs = np.stack([(data >> step) & 3 for step in (0, 2, 4, 6)], axis=1).ravel()[:count]
    values = np.array([-1.0, 0.0, 0.0, 1.0])
    matrix: NDArray[np.float64] = values[pairs].reshape(length, width)
    matrix.setflags(write=False)
    return matrix
