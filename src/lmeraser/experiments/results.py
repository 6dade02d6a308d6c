"""What an experiment gives: tables, figures and notes, as JSON, from which every picture and report is made.

Figures are kept as their numbers; `figures` draws them. Knows nothing about how anything was measured.
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
        name: of its files.
        title: above it.
        columns: their names.
        rows: values in their order.
        note: how to read it.
    """

    name: str
    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Value]]
    note: str = ""

    def to_csv(self) -> str:
        """The table for spreadsheets."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()


@dataclass(frozen=True)
class Figure:
    """Numbers that are better looked at than read.

    Attributes:
        name: of its files.
        title: above it.
        kind: lines over x, bars with names, or rows of images.
        x: what the horizontal axis shows.
        y: what the vertical axis shows.
        series: points [x, y] of each line, or a value for each name of each group of bars, by their names.
        log: whether the vertical axis is logarithmic.
        published: levels from the paper, drawn as dotted lines.
        note: below it.
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
    """What one experiment found.

    Attributes:
        tables: its tables.
        figures: its figures.
        notes: what is to be known, in sentences.
        pictures: PNG bytes of figures that consist of images, by their names; not part of the JSON.
    """

    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    notes: Sequence[str] = ()
    pictures: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Result(Findings):
    """The findings of one experiment, with its name.

    Attributes:
        name: of the experiment.
        title: above its part of the report.
        paper: which table or figure of the paper it stands beside.
    """

    name: str
    title: str
    paper: str

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {name: value for name, value in asdict(self).items() if name != "pictures"}

    @classmethod
    def of_json(cls, values: Mapping[str, Any]) -> Result:
        """What `to_json` gave."""
        tables = [Table(**table) for table in values["tables"]]
        figures = [Figure(**figure) for figure in values["figures"]]
        return cls(**{**values, "tables": tables, "figures": figures})
