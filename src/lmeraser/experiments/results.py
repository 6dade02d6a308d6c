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
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""

    def to_csv(self) -> str:
        """The table as CSV."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


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
