"""Checks of arguments that callers in Python easily get wrong."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TypeVar

from lmeraser.errors import InputError

T = TypeVar("T")


def listed(values: Iterable[T] | None, what: str) -> list[T]:
    """The values of an argument that is a list; one text or image would be taken apart as if it were one.

    Raises:
        InputError: it is a single value.
    """
    if values is None:
        return []
    table: Any = values
    if getattr(table, "ndim", 0) == 2 and hasattr(table, "to_numpy"):  # a DataFrame, which lists its columns
        return list(table.to_numpy())
    one_array = getattr(values, "ndim", 0) == 3  # whose rows would be taken for grey images
    single = one_array or isinstance(values, str | bytes | bytearray | os.PathLike)
    if not single:
        with contextlib.suppress(TypeError):  # not iterable, or an array without dimensions
            return list(values)
    raise InputError(
        "One value where a list is expected",
        got=f"{what} is of type {type(values).__name__}",
        next_step=f"write {what}=[...]",
    )


def as_path(value: str | os.PathLike[str]) -> Path:
    """The path of a file or folder.

    Raises:
        InputError: it is none, or an empty text, which pathlib would take for the working directory.
    """
    if isinstance(value, str | os.PathLike) and os.fspath(value):
        return Path(value)
    empty = isinstance(value, str | os.PathLike)
    got = "an empty text" if empty else f"a value of type {type(value).__name__}"
    raise InputError("Not a path", got=got, next_step="give the path of a file or folder")
