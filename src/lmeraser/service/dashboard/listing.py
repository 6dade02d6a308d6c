"""Lists on the pages: one page of many lines, and rows as CSV.

Pure functions. Names and references are searched for in bodies of forms only (`request_pages`), so nothing
ends up in an address but words of fixed lists and numbers.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lmeraser.core.spreadsheets import cell

T = TypeVar("T")

PAGE_SIZE = 50


@dataclass(frozen=True)
class Page(Generic[T]):
    """One page of a list.

    Attributes:
        lines: on this page.
        number: of the page, from 1.
        pages: how many there are.
        total: lines on all pages.
    """

    lines: Sequence[T]
    number: int
    pages: int
    total: int

    @classmethod
    def of(cls, lines: Sequence[T], number: int, size: int = PAGE_SIZE) -> Page[T]:
        """A page of these lines; beyond the last one, the last one."""
        pages = max(1, math.ceil(len(lines) / size))
        number = min(max(1, number), pages)
        return cls(lines[(number - 1) * size : number * size], number, pages, len(lines))


def as_csv(rows: Sequence[dict[str, Any]]) -> str:
    """Rows of plain values as CSV with a header; a spreadsheet takes no cell for a formula."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerow(rows[0])
    writer.writerows([cell(value) for value in row.values()] for row in rows)
    return text.getvalue()
