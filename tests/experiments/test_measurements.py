"""Measured numbers of a run as a tidy table, and two runs beside each other."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from conftest import Run
from lmeraser.errors import InputError
from lmeraser.experiments.measurements import compare, measurements, write_measurements
from lmeraser.experiments.results import Result, Table
from outcomes import TABLE


def result(accuracy: float, *more: list[object]) -> Result:
    columns = ["data", "method", "accuracy", "s"]
    rows = [["x", "a", accuracy, 2.0], ["x", "b", 0.25, 3.0], *more]
    table = Table("t", "T", columns, rows, keys=("data", "method"))  # type: ignore[arg-type]
    by_seed = Table("u", "U", ["method", "seed", "accuracy"], [["a", 0, 0.5]], keys=("method", "seed"))
    return Result([table, by_seed, TABLE], name="first", title="First", paper="")


def written(folder: Path, *results: Result, **environment: object) -> Path:
    folder.mkdir()
    (folder / "environment.json").write_text(json.dumps(environment))
    write_measurements(folder, results)
    return folder


def test_every_row_is_one_number_and_both_files_hold_the_same(tmp_path: Path) -> None:
    folder = written(tmp_path / "run", result(0.5))
    parquet = pd.read_parquet(folder / "measurements.parquet")
    assert parquet.to_dict("records") == measurements([result(0.5)])
    assert list(parquet) == ["experiment", "table", "data", "method", "seed", "metric", "value"]
    text = pd.read_csv(folder / "measurements.csv", dtype=str).fillna("").astype({"value": float})
    assert parquet.equals(text)


def test_a_run_without_numbers_has_the_columns(tmp_path: Path) -> None:
    folder = written(tmp_path / "run")
    assert list(pd.read_parquet(folder / "measurements.parquet")) == ["experiment", "table", "metric", "value"]


def test_two_runs_beside_each_other(tmp_path: Path, run: Run) -> None:
    first = written(tmp_path / "one", result(0.5), torch="2.9", cores=2, seeds=None)
    second = written(tmp_path / "two", result(0.75, ["y", "a", 0.1, 1.0]), torch="2.10", cores=2, seeds=3)
    found = compare(first, second)
    assert found.equal == 4
    (row,) = found.different.rows
    assert dict(zip(found.different.columns, row, strict=True)) == {
        "experiment": "first",
        "table": "t",
        "data": "x",
        "method": "a",
        "metric": "accuracy",
        "seed": "",
        "first": 0.5,
        "second": 0.75,
        "difference": 0.25,
    }
    assert found.only == (0, 2)
    assert found.environments == [["torch", "2.9", "2.10"], ["seeds", "not given", "3"]]
    shown = run("experiments", "compare", first, second).out
    assert "first · t · x · a   accuracy" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert compare(first, second, metrics=["s"]).different.rows == []
    assert compare(first, second, experiments=["first"]).equal == 4


def test_what_cannot_be_compared_is_refused(tmp_path: Path) -> None:
    first = written(tmp_path / "one", result(0.5))
    with pytest.raises(InputError, match="No measured number"):
        compare(first, first, metrics=["recall"])
    with pytest.raises(InputError, match="No finished run"):
        compare(first, tmp_path)
