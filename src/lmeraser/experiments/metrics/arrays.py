"""The arrays that metrics are computed from, checked: distributions, labels, shares.

A metric of bad input is a number like any other, and nobody sees it. So NaN, rows that are not distributions,
labels that are not classes and empty sets are refused here, with the name of the argument. Everything is computed
in float64. Knows nothing about models.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmeraser.errors import InputError

Floats = NDArray[np.float64]

_TOLERANCE = 1e-3  # of the sum of a row: float32 softmax over thousands of classes stays well inside it


def distributions(values: ArrayLike, name: str) -> Floats:
    """Probabilities of classes, float64 [n, classes]; every row sums to 1, n and classes are at least 1.

    Args:
        values: [n, classes].
        name: what the caller calls them.

    Raises:
        InputError: they are not distributions.
    """
    checked = shares(values, name, dimensions=2)
    off = np.abs(checked.sum(axis=1) - 1) > _TOLERANCE
    if off.any():
        row = int(off.argmax())
        raise InputError(
            f"Every row of {name} sums to 1.",
            got=f"{int(off.sum())} rows that do not; row {row} sums to {checked[row].sum():.6g}",
            next_step="pass probabilities, not logits or percentages",
        )
    return checked


def shares(values: ArrayLike, name: str, *, dimensions: int = 1) -> Floats:
    """Numbers from 0 to 1, float64, with so many dimensions and at least one number.

    Args:
        values: probabilities or accuracies, not percentages.
        name: what the caller calls them.
        dimensions: of the array; 0 is a single number.

    Raises:
        InputError: they are not.
    """
    checked = finite(values, name, dimensions=dimensions)
    if checked.min() < 0 or checked.max() > 1 + _TOLERANCE:
        raise InputError(
            f"The numbers of {name} lie between 0 and 1.",
            got=f"numbers from {checked.min():.6g} to {checked.max():.6g}",
            next_step="pass probabilities, not logits or percentages",
        )
    return np.minimum(checked, 1.0)


def finite(values: ArrayLike, name: str, *, dimensions: int = 1) -> Floats:
    """Finite numbers, float64, with so many dimensions and at least one number.

    Args:
        values: the numbers.
        name: what the caller calls them.
        dimensions: of the array.

    Raises:
        InputError: they are not.
    """
    try:
        checked = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} is an array of numbers.", got=str(error)) from error
    if checked.ndim != dimensions or checked.size == 0:
        rule = (
            f"{name} has {dimensions} dimensions, none of them empty." if dimensions else f"{name} is one number."
        )
        raise InputError(rule, got=f"an array of shape {checked.shape}")
    if not np.isfinite(checked).all():
        bad = int((~np.isfinite(checked)).sum())
        raise InputError(f"The numbers of {name} are finite.", got=f"{bad} of {checked.size} that are not")
    return checked


def share(value: float, name: str) -> float:
    """One number from 0 to 1; raises `InputError` unless it is."""
    return float(shares(value, name, dimensions=0))


def certainty(confidence: float) -> float:
    """The confidence of an interval, from 0.5 to 0.9999; raises `InputError` unless it is.

    Above, its quantile is soon infinite; below, the interval says less often yes than no.
    """
    checked = share(confidence, "confidence")
    if not 0.5 <= checked <= 0.9999:
        raise InputError("The confidence of an interval lies between 0.5 and 0.9999.", got=f"{confidence}")
    return checked


def classes_of(labels: ArrayLike, like: Floats) -> NDArray[np.int64]:
    """Labels as int64 [n], one for each row of ``like`` and each the number of one of its columns.

    Args:
        labels: [n].
        like: probabilities, float64 [n, classes].

    Raises:
        InputError: they are not.
    """
    checked = np.asarray(labels)
    count, classes = like.shape
    if checked.shape != (count,) or checked.dtype.kind not in "iu":
        raise InputError(
            "There is one label, an integer, for each row of probabilities.",
            got=f"shape {checked.shape} of {checked.dtype} for {count} rows",
        )
    if checked.min() < 0 or checked.max() >= classes:
        raise InputError(
            f"With {classes} classes, labels are 0 to {classes - 1}.",
            got=f"labels from {checked.min()} to {checked.max()}",
        )
    return checked.astype(np.int64)


def flags(values: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    """Yes or no, bool, of this shape; numbers are refused, for 0.5 would be a yes.

    Args:
        values: booleans.
        shape: that they must have.
        name: what the caller calls them.

    Raises:
        InputError: they are not.
    """
    checked = np.asarray(values)
    if checked.shape != shape or checked.dtype != np.bool_:
        raise InputError(
            f"{name} is an array of booleans of shape {shape}.", got=f"shape {checked.shape} of {checked.dtype}"
        )
    return checked


def true_class(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """The probability that each record's own class was given, float64 [n].

    Args:
        probabilities: float [n, classes].
        labels: int [n].

    Raises:
        InputError: they are not distributions and their labels.
    """
    checked = distributions(probabilities, "probabilities")
    picked: Floats = np.take_along_axis(checked, classes_of(labels, checked)[:, None], axis=1)[:, 0]
    return picked
