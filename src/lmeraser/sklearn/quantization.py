"""Parameters of the estimator as numbers, and vectors as integers."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Real

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.sufficient_statistics import (
    LARGEST_ENTRY,
    SCALE,
    QuantizedEmbeddings,
    quantize,
    unit_rms_at_any_size,
)
from lmeraser.errors import listing
from lmeraser.sklearn.errors import VectorError

AT_ONCE = 4096  # vectors that are quantized or scored together: bounds the memory, changes no result

Vectors = NDArray[np.floating]  # [n, d], float32 or float64


def quantized(vectors: Vectors, scale: NDArray[np.float64] | None) -> Iterator[QuantizedEmbeddings]:
    """Quantized vectors, int16 [at most 4,096, d + 1] at a time; a row does not depend on the others."""
    for start in range(0, len(vectors), AT_ONCE):
        part = vectors[start : start + AT_ONCE]
        if scale is None:
            yield quantize(unit_rms_at_any_size(part))
            continue
        with np.errstate(over="ignore"):
            scaled = part / scale
        beyond = np.argwhere(np.abs(scaled) > LARGEST_ENTRY)
        if len(beyond):
            raise VectorError(
                f"Numbers beyond {LARGEST_ENTRY * SCALE:.0f} / {SCALE} times the scale",
                got=listing([f"row {start + row}, column {column}" for row, column in beyond]),
                next_step="leave these rows out, or fit all records with a larger scale",
            )
        yield quantize(scaled.astype(np.float32))


def scale_of(scale: object, width: int) -> NDArray[np.float64] | None:
    """None for "rms", or what vectors are divided by, float64 [] or [width]."""
    if isinstance(scale, str) and scale == "rms":
        return None
    wrong = VectorError(
        "Scale cannot be used",
        got=f'{scale!r} (possible: "rms", a number above 0, or one for each of {width} columns)',
    )
    try:
        numbers = np.array(scale, dtype=np.float64)
    except (TypeError, ValueError):
        raise wrong from None
    if isinstance(scale, (str, bool)) or numbers.shape not in ((), (width,)):
        raise wrong
    if not (np.isfinite(numbers) & (numbers > 0)).all():
        raise wrong
    return numbers


def same_scale(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> bool:
    """Whether two scales are equal."""
    if one is None or other is None:
        return one is other
    return bool((one == other).all())


def shrinkage_of(shrinkage: object) -> float | None:
    """None for "oas", or a number from 0 to 1."""
    if isinstance(shrinkage, str) and shrinkage == "oas":
        return None
    if isinstance(shrinkage, Real) and not isinstance(shrinkage, bool) and 0 <= float(shrinkage) <= 1:
        return float(shrinkage)
    raise VectorError("Shrinkage cannot be used", got=f'{shrinkage!r} (possible: 0 to 1, or "oas")')
