"""Validation of the arrays that metrics are computed from: distributions, labels, shares.

A metric of invalid input is a number like any other, so the fault would go unnoticed. NaN, rows that are not
distributions, labels that are not classes and empty sets are therefore rejected here, with the name of the
argument. Everything is computed in float64.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lmeraser.errors import InputError

Floats = NDArray[np.float64]

_TOLERANCE = 1e-3  # for the sum of a row: float32 softmax over thousands of classes stays well inside it


def check_distributions(values: ArrayLike, name: str) -> Floats:
    """Check class probabilities; returns float64 [n, classes] with rows that sum to 1, n and classes at least 1.

    Args:
        values: [n, classes].
        name: name of the argument, for the error.

    Raises:
        InputError: the rows are not distributions.
    """
    checked = check_shares(values, name, dimensions=2)
    off = np.abs(checked.sum(axis=1) - 1) > _TOLERANCE
    if off.any():
        row = int(off.argmax())
        raise InputError(
            f"Rows of {name} do not sum to 1",
            got=f"{int(off.sum())} of {len(checked)} rows; row {row} sums to {checked[row].sum():.6g}",
            next_step="pass probabilities, not logits or percentages",
        )
    return checked


def check_shares(values: ArrayLike, name: str, *, dimensions: int = 1) -> Floats:
    """Check numbers from 0 to 1; returns a float64 array with ``dimensions`` dimensions and at least one number.

    Args:
        values: probabilities or accuracies, not percentages.
        name: name of the argument, for the error.
        dimensions: dimensions of the array; 0: a single number.

    Raises:
        InputError: the values are not such an array.
    """
    checked = check_finite(values, name, dimensions=dimensions)
    if checked.min() < 0 or checked.max() > 1 + _TOLERANCE:
        raise InputError(
            f"Values of {name} are out of range",
            got=f"{checked.min():.6g} to {checked.max():.6g}, expected 0 to 1",
            next_step="pass probabilities, not logits or percentages",
        )
    return np.minimum(checked, 1.0)


def check_finite(values: ArrayLike, name: str, *, dimensions: int = 1) -> Floats:
    """Check finite numbers; returns a float64 array with ``dimensions`` dimensions and at least one number.

    Args:
        values: the numbers to check.
        name: name of the argument, for the error.
        dimensions: dimensions of the array.

    Raises:
        InputError: the values are not such an array.
    """
    try:
        checked = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be converted to numbers", got=str(error)) from error
    if checked.ndim != dimensions or checked.size == 0:
        expected = f"a non-empty {dimensions}-D array" if dimensions else "a single number"
        raise InputError(f"Unexpected shape of {name}", got=f"{checked.shape}, expected {expected}")
    if not np.isfinite(checked).all():
        bad = int((~np.isfinite(checked)).sum())
        raise InputError(f"Values of {name} are not finite", got=f"{bad} of {checked.size}")
    return checked


def check_share(value: float, name: str) -> float:
    """Check that a number lies between 0 and 1; raises `InputError` otherwise."""
    return float(check_shares(value, name, dimensions=0))


def check_confidence(confidence: float) -> float:
    """Check that a confidence level lies between 0.5 and 0.9999; raises `InputError` otherwise.

    Above that, the quantile approaches infinity; below, the interval misses more often than it covers.
    """
    checked = check_share(confidence, "confidence")
    if not 0.5 <= checked <= 0.9999:
        raise InputError("Confidence level is out of range", got=f"{confidence}, expected 0.5 to 0.9999")
    return checked


def check_labels(labels: ArrayLike, like: Floats) -> NDArray[np.int64]:
    """Check labels; returns int64 [n], one for each row of ``like``, each the index of one of its columns.

    Args:
        labels: [n].
        like: probabilities, float64 [n, classes].

    Raises:
        InputError: the labels do not fit the probabilities.
    """
    checked = np.asarray(labels)
    count, classes = like.shape
    if checked.shape != (count,) or checked.dtype.kind not in "iu":
        raise InputError(
            "Labels do not match the rows of probabilities",
            got=f"shape {checked.shape} of {checked.dtype}, expected {count} integers",
        )
    if checked.min() < 0 or checked.max() >= classes:
        raise InputError(
            "Labels are out of range",
            got=f"{checked.min()} to {checked.max()}, expected 0 to {classes - 1} for {classes} classes",
        )
    return checked.astype(np.int64)


def check_flags(values: ArrayLike, shape: tuple[int, ...], name: str) -> NDArray[np.bool_]:
    """Check a boolean array of this shape; numbers are rejected, since 0.5 would count as true.

    Args:
        values: booleans.
        shape: required shape.
        name: name of the argument, for the error.

    Raises:
        InputError: the values are not booleans of this shape.
    """
    checked = np.asarray(values)
    if checked.shape != shape or checked.dtype != np.bool_:
        raise InputError(
            f"{name} is not a boolean array of the expected shape",
            got=f"shape {checked.shape} of {checked.dtype}, expected {shape} of bool",
        )
    return checked


def true_class(probabilities: ArrayLike, labels: ArrayLike) -> Floats:
    """The probability of each record's true class, float64 [n].

    Args:
        probabilities: float [n, classes].
        labels: int [n].

    Raises:
        InputError: the arrays are not distributions and matching labels.
    """
    checked = check_distributions(probabilities, "probabilities")
    picked: Floats = np.take_along_axis(checked, check_labels(labels, checked)[:, None], axis=1)[:, 0]
    return picked
