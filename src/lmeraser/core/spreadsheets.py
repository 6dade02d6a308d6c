"""Values in the cells of CSV files that people open in a spreadsheet."""

from __future__ import annotations

from typing import Any

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def cell(value: Any) -> str:
    """A value in one cell; a spreadsheet takes none for a formula, and an empty cell is no value.

    >>> cell(["a", "b"])
    'a b'
    >>> cell("=1+1")
    "'=1+1"
    """
    text = "" if value is None else " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text
