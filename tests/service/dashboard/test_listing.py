"""Pages of lists, and rows that a spreadsheet only shows."""

from __future__ import annotations

from typing import Any

from lmeraser.service.dashboard.listing import Page, as_csv


def test_pages_of_a_list() -> None:
    lines = list(range(5))
    assert Page.of(lines, 1, 2) == Page([0, 1], 1, 3, 5)
    assert Page.of(lines, 99, 2) == Page([4], 3, 3, 5)
    assert Page.of([], 1, 2) == Page([], 1, 1, 0)


def test_rows_are_no_formulas() -> None:
    assert as_csv([]) == ""
    rows: list[dict[str, Any]] = [{"a": "=1+1", "b": None, "c": ("x", "y")}, {"a": "-2", "b": 3, "c": ()}]
    assert as_csv(rows) == "a,b,c\r\n'=1+1,,x y\r\n'-2,3,\r\n"
