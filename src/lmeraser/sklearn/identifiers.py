"""Labels, ids and subjects as they are given: checked, and in canonical form."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Set
from typing import Any

from numpy.typing import NDArray

from lmeraser.data.canonical_names import canonical_name
from lmeraser.sklearn.errors import VectorError

Label = bool | int | float | str
Names = Iterable[object]


def labels_of(labels: NDArray[Any]) -> list[Label]:
    """Labels as Python's own values, all of one type."""
    found = [str(label) if isinstance(label, str) else label for label in labels.ravel().tolist()]
    found = [label + 0.0 if isinstance(label, float) else label for label in found]  # -0.0 is 0.0
    kinds = {type(label) for label in found}
    if len(kinds) != 1 or not kinds <= {bool, int, float, str}:
        raise VectorError(
            "Labels are neither all texts nor all numbers of one type",
            got=", ".join(sorted(kind.__name__ for kind in kinds)) or "none",
            next_step="convert them to one type",
        )
    if any(isinstance(label, float) and not math.isfinite(label) for label in found):
        raise VectorError("Labels that are not finite", got="nan or inf", next_step="leave them out")
    return found


def name_of(value: object, place: str, faults: list[str] | None = None) -> str | None:
    """The canonical form of a name; None, and a line in ``faults``, if it cannot be one."""
    try:
        return canonical_name(value)
    except ValueError as error:
        if faults is not None:
            faults.append(f"{place}: {error}")
        return None


def per_row(names: Names, count: int, what: str) -> Iterable[tuple[int, object]]:
    """Names with the numbers of their rows; refuses what has no order, or is not one per row."""
    if isinstance(names, (str, bytes, Set, Mapping)) or not isinstance(names, Iterable) or _is_table(names):
        raise VectorError(
            f"{what} are not a list",
            got=type(names).__name__,
            next_step="give one for each row, in the same order",
        )
    cells = list(names)
    if len(cells) != count:
        raise VectorError(
            f"{what} and rows differ in number", got=f"{len(cells)} and {count}", next_step="give one for each row"
        )
    return enumerate(cells)


def names_given(names: Names | None) -> list[object]:
    """Names of records to forget: several, or a single one, which is never taken for a list of its letters."""
    if names is None:
        return []
    if isinstance(names, str) or not isinstance(names, Iterable):
        return [names]
    if isinstance(names, (bytes, Mapping)) or _is_table(names):
        raise VectorError("Names are not a list", got=type(names).__name__, next_step="give a list of names")
    return list(names)


def _is_table(names: object) -> bool:
    """Whether names are an array or data frame of other than one dimension."""
    return getattr(names, "ndim", 1) != 1
