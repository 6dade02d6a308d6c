"""Results of an experiment: tables, figures and notes, as JSON, from which pictures and reports are generated.

A figure is stored as its numbers; `figures` draws it. Must not depend on how anything was measured.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Value = str | float | int | bool | None


@dataclass(frozen=True)
class Table:
    """Rows with a header.

    Attributes:
        name: name of its files.
        title: title above the table.
        columns: column names.
        rows: values of each row, in the order of the columns.
        note: how to read the table.
        keys: the columns that say what a row is about; the others are measured. None: nothing is measured.
        best: columns of which the highest or lowest value is the best, among the rows with one first key.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""
    keys: Sequence[str] | None = None
    best: Mapping[str, Literal["high", "low"]] = field(default_factory=dict)

    def to_csv(self) -> str:
        """The table as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def best_cells(self) -> set[tuple[int, int]]:
        """Row and column numbers of the best values; none where all are equal."""
        groups: dict[Value, list[int]] = {}
        for number, row in enumerate(self.rows):
            groups.setdefault(row[self.columns.index(self.keys[0])] if self.keys else None, []).append(number)
        found: set[tuple[int, int]] = set()
        for name, direction in self.best.items():
            column = self.columns.index(name)
            for rows in groups.values():
                cells = {row: _number(self.rows[row][column]) for row in rows}
                values = {row: value for row, value in cells.items() if value is not None}
                if len(set(values.values())) > 1:
                    best = (max if direction == "high" else min)(values.values())
                    found |= {(row, column) for row, value in values.items() if value == best}
        return found

    def tidy(self) -> list[dict[str, str | float]]:
        """One row for each measured number: the keys, ``metric`` and ``value``; true is 1, false is 0."""
        if self.keys is None:
            return []
        found: list[dict[str, str | float]] = []
        for row in self.rows:
            cells = dict(zip(self.columns, row, strict=True))
            about: dict[str, str | float] = {name: str(cells[name]) for name in self.keys}
            for name, cell in cells.items():
                value = float(cell) if isinstance(cell, bool) else _number(cell)
                if name not in self.keys and value is not None:
                    found.append({**about, "metric": name, "value": value})
        return found


def _number(value: Value) -> float | None:
    """A cell as a number; None if it is none."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


@dataclass(frozen=True)
class Figure:
    """A plot, stored as its numbers.

    Attributes:
        name: name of its files.
        title: title above the plot.
        kind: lines over x, grouped bars, or rows of images.
        x: label of the horizontal axis.
        y: label of the vertical axis.
        series: by name, the points [x, y] of each line, or the bars of each group as a mapping of names to values.
        log: whether the vertical axis is logarithmic.
        published: levels from the paper, drawn as dotted lines.
        note: caption below the plot.
    """

    name: str
    title: str
    kind: Literal["lines", "bars", "images"]
    x: str = ""
    y: str = ""
    series: Mapping[str, Any] | None = None
    log: bool = False
    published: Mapping[str, float] | None = None
    note: str = ""


@dataclass(frozen=True)
class Findings:
    """The tables, figures and notes of one experiment.

    Attributes:
        tables: the tables.
        figures: the figures.
        notes: remarks for the reader, in whole sentences.
        pictures: PNG bytes of the figures of kind ``images``, by figure name; not part of the JSON.
    """

    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result(Findings):
    """The findings of one experiment, with its name.

    Attributes:
        name: name of the experiment.
        title: title of its section in the report.
        paper: the table or figure of the paper that it reproduces.
    """

    name: str
    title: str
    paper: str

    def to_json(self) -> dict[str, Any]:
        """The result as JSON values, without pictures."""
        return {name: value for name, value in asdict(self).items() if name != "pictures"}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Result:
        """Parse the values that `to_json` returns."""
        tables = [Table(**table) for table in values["tables"]]
        figures = [Figure(**figure) for figure in values["figures"]]
        return cls(**{**values, "tables": tables, "figures": figures})
