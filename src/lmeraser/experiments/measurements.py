"""All measured numbers of a run as one tidy table, in parquet and CSV, and two runs beside each other.

A row is one number: the experiment and table, what the row is about (``data``, ``method``, ``seed``...; empty
where a table does not have that column), the ``metric`` and its ``value``.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lmeraser.core.atomic_files import write_atomic
from lmeraser.errors import InputError
from lmeraser.experiments.results import Result, Table, Value

NAME = "measurements"  # of both files

_FIRST = ("experiment", "table")
_LAST = ("metric", "value")

Measurement = Mapping[str, str | float]


def measurements(results: Sequence[Result]) -> list[dict[str, str | float]]:
    """All measured numbers of some results; every row has the same keys."""
    found: list[dict[str, str | float]] = [
        {"experiment": result.name, "table": table.name, **row}
        for result in results
        for table in result.tables
        for row in table.tidy()
    ]
    about = dict.fromkeys(name for row in found for name in row if name not in (*_FIRST, *_LAST))
    columns = [*_FIRST, *about, *_LAST]
    return [{name: row.get(name, "") for name in columns} for row in found]


def write_measurements(out: Path, results: Sequence[Result]) -> None:
    """Write ``measurements.parquet`` and ``measurements.csv`` into a run's folder."""
    import pyarrow
    import pyarrow.parquet

    rows = measurements(results)
    columns = list(rows[0]) if rows else [*_FIRST, *_LAST]
    types = {"value": pyarrow.float64()}
    schema = pyarrow.schema([(name, types.get(name, pyarrow.string())) for name in columns])
    parquet = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows, schema=schema), parquet)
    write_atomic(out / f"{NAME}.parquet", parquet.getvalue())
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomic(out / f"{NAME}.csv", text.getvalue().encode())


@dataclass(frozen=True)
class Comparison:
    """Two runs beside each other.

    Attributes:
        equal: how many numbers are the same in both.
        different: the others, with both values and the second minus the first.
        only: how many numbers only the first and only the second run has.
        environments: what differs between the runs' environments: name, first, second.
    """

    equal: int
    different: Table
    only: tuple[int, int]
    environments: Sequence[Sequence[Value]]

    def to_json(self) -> dict[str, object]:
        """The comparison as JSON values."""
        return asdict(self)


def compare(
    first: Path, second: Path, *, metrics: Sequence[str] = (), experiments: Sequence[str] = ()
) -> Comparison:
    """Compare the measured numbers of two runs that have the same meaning in both.

    Args:
        first: folder of a run.
        second: folder of another run.
        metrics: compare these alone.
        experiments: compare those of these experiments alone.

    Raises:
        InputError: a folder holds no finished run, or no number has one of these names.
    """
    chosen = [
        {key: value for key, value in _read(folder).items() if _is_chosen(key, metrics, experiments)}
        for folder in (first, second)
    ]
    if not any(chosen):
        raise InputError(
            "No measured number to compare",
            got=f"metrics {', '.join(metrics) or 'all'}, experiments {', '.join(experiments) or 'all'}",
            next_step=f"see the columns experiment and metric of {NAME}.csv",
        )
    one, other = chosen
    shared = [key for key in one if key in other]
    names = list(dict.fromkeys(name for key in shared for name, _ in key))
    rows: list[list[Value]] = [
        [*(dict(key).get(name, "") for name in names), one[key], other[key], other[key] - one[key]]
        for key in shared
        if one[key] != other[key]
    ]
    table = Table(
        "differences",
        "Numbers that differ",
        [*names, "first", "second", "difference"],
        rows,
        "Seconds differ between any two runs.",
    )
    return Comparison(
        equal=len(shared) - len(rows),
        different=table,
        only=(len(one) - len(shared), len(other) - len(shared)),
        environments=_environments(first, second),
    )


Key = tuple[tuple[str, str], ...]  # names and values of all columns that are not empty, but the value's


def _read(folder: Path) -> dict[Key, float]:
    try:
        lines = (folder / f"{NAME}.csv").read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            "No finished run in this folder",
            got=f"{folder}: {NAME}.csv: {error.strerror}",
            next_step="pass the folder that 'experiments run' was given with --out",
        ) from error
    rows = csv.DictReader(lines)
    return {
        tuple((name, cell) for name, cell in row.items() if name != "value" and cell): float(row["value"])
        for row in rows
    }


def _is_chosen(key: Key, metrics: Sequence[str], experiments: Sequence[str]) -> bool:
    values = dict(key)
    of_metric = not metrics or values["metric"] in metrics
    return of_metric and (not experiments or values["experiment"] in experiments)


def _environments(first: Path, second: Path) -> list[list[Value]]:
    one, other = (_environment(folder) for folder in (first, second))
    names = dict.fromkeys((*one, *other))
    different = (name for name in names if one.get(name) != other.get(name))
    return [
        [name, *("not given" if (value := run.get(name)) is None else str(value) for run in (one, other))]
        for name in different
    ]


def _environment(folder: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    return values
