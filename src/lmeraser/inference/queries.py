"""Answers of a predictor for any number of queries, some at a time: in a workspace, and without one.

Knows nothing about where the predictor comes from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

from lmeraser.core.progress import Progress, silent
from lmeraser.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lmeraser.inference.predictor import Predictions, Predictor

_CHUNK = 256  # queries in memory at once while they are classified


def predict(predictor: Predictor, queries: Sequence[Any], progress: Progress = silent) -> Predictions:
    """Class, probability and clusters of each query."""
    from lmeraser.inference.predictor import Predictions

    predictions = Predictions()
    for chunk in _chunks(queries, progress):
        predictions += predictor.predict(chunk)
    return predictions


def predict_proba(
    predictor: Predictor, queries: Sequence[Any], classes: int, progress: Progress = silent
) -> NDArray[np.float32]:
    """Probabilities of all classes, float32 [n, classes]; 0 for classes that the model does not know."""
    import numpy as np

    rows = [np.zeros((0, classes), dtype=np.float32)]
    for chunk in _chunks(queries, progress):
        known = predictor.batch(chunk).probabilities
        rows.append(np.pad(known, ((0, 0), (0, classes - known.shape[1]))))
    return np.concatenate(rows)


def top_k(probabilities: NDArray[np.float32], classes: Sequence[str], k: int) -> list[list[tuple[str, float]]]:
    """The most probable classes of each row with their probabilities, the most probable first.

    Raises:
        InputError: ``k`` is no positive number.
    """
    import numpy as np

    check_k(k)
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]  # equal ones as `predict` chooses
    return [
        [(classes[label], float(row[label])) for label in labels]
        for row, labels in zip(probabilities, order, strict=True)
    ]


def check_k(k: int) -> None:
    """Check a number of classes; raises as `top_k`."""
    if not isinstance(k, Integral) or k < 1:
        raise InputError("Number of classes is not positive", got=f"k is {k!r}", next_step="give at least 1")


def _chunks(queries: Sequence[Any], progress: Progress) -> Iterator[Sequence[Any]]:
    """Some of the queries at a time; reports progress."""
    for start in range(0, len(queries), _CHUNK):
        chunk = queries[start : start + _CHUNK]
        yield chunk
        progress("predicting", start + len(chunk), len(queries))
