"""The answers of a run in a few sentences, from the tables that are there.

Reads results only, by the names of tables and columns; a sentence whose table is missing is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from lmeraser.core.console import format_value
from lmeraser.experiments.results import Result, Table

Row = Mapping[str, Any]

_SAME = "digest of the retrained model"


def summary(results: Sequence[Result]) -> list[str]:
    """Sentences that answer what a run was made for: forgotten or not, at what cost, with what accuracy."""
    tables = {(result.name, table.name): table for result in results for table in result.tables}
    return [
        *_forgotten(_rows(tables.get(("removal", "models")))),
        *_cost(_rows(tables.get(("table2", "seconds-per-request")))),
        *_accuracy(tables),
    ]


def _forgotten(rows: Sequence[Row]) -> Iterator[str]:
    unlearned = [row for row in rows if row["model"] == "unlearned"]
    methods = {name: [row for row in unlearned if row["method"] == name] for name in _names(unlearned, "method")}
    exact = [name for name, own in methods.items() if all(row[_SAME] for row in own)]
    if exact:
        count = sum(len(methods[name]) for name in exact)
        yield (
            f"Is it forgotten? With {', '.join(exact)}: yes. In {count} of {count} deletions the unlearned "
            "model is, byte for byte, the model that was trained without the records."
        )
    for name in (name for name in methods if name not in exact):
        own = methods[name]
        gaps = [row["average gap"] for row in own]
        divergences = [row["JS divergence"] for row in own]
        equal = sum(bool(row[_SAME]) for row in own)
        yield (
            f"{name}: the model is the retrained one in {equal} of {len(own)} deletions. Its accuracies are off "
            f"by up to {max(gaps):.4f} on average, its predictions on forgotten records diverge by up to "
            f"{max(divergences):.4f} (Jensen-Shannon)."
        )


def _cost(rows: Sequence[Row]) -> Iterator[str]:
    for data in _names(rows, "data"):
        own = sorted((row for row in rows if row["data"] == data), key=lambda row: float(row["mean s"]))
        if len(own) > 1:
            first, last = own[0], own[-1]
            yield (
                f"What does a deletion cost? {data}: from {format_value(first['mean s'])} s "
                f"({first['method']}) to {format_value(last['mean s'])} s ({last['method']}), means over requests "
                "that were carried out."
            )


def _accuracy(tables: Mapping[tuple[str, str], Table]) -> Iterator[str]:
    column = "accuracy, mean"
    rows = _rows(tables.get(("accuracy", "accuracies")))
    if not rows:
        column, rows = "accuracy", _rows(tables.get(("table2", "seconds-per-request")))
    for data in _names(rows, "data"):
        own = sorted((row for row in rows if row["data"] == data), key=lambda row: -float(row[column]))
        if len(own) > 1:
            best = ", ".join(f"{row['method']} {row[column]:.4f}" for row in own[:3])
            yield f"Which is most accurate? {data}: {best}."


def _rows(table: Table | None) -> list[Row]:
    return [] if table is None else [dict(zip(table.columns, row, strict=True)) for row in table.rows]


def _names(rows: Iterable[Row], column: str) -> list[str]:
    return list(dict.fromkeys(str(row[column]) for row in rows))
