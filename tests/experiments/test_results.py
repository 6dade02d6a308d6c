"""Results survive their JSON; tables become CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from lmeraser.experiments.results import Result, Table, Value
from outcomes import FIGURE, TABLE

NAMES: Any = {"name": "r", "title": "Title", "paper": "Table I"}


def test_a_result_survives_its_json_but_for_pictures() -> None:
    result = Result([TABLE], [FIGURE], ["a note"], {"picture": b"png"}, **NAMES)
    again = Result.of_json(json.loads(json.dumps(result.to_json())))
    assert again == Result([TABLE], [FIGURE], ["a note"], **NAMES)


def test_the_numbers_of_a_table_one_by_one() -> None:
    columns = ["data", "method", "accuracy", "same", "paper"]
    table = Table(
        "t", "T", columns, [["x", "a", 0.5, True, "days"], ["x", "b", None, False, 7]], keys=("data", "method")
    )
    assert table.tidy() == [
        {"data": "x", "method": "a", "metric": "accuracy", "value": 0.5},
        {"data": "x", "method": "a", "metric": "same", "value": 1.0},
        {"data": "x", "method": "b", "metric": "same", "value": 0.0},
        {"data": "x", "method": "b", "metric": "paper", "value": 7.0},
    ]
    assert TABLE.tidy() == []  # of definitions and the like nothing is measured


def test_the_best_is_looked_for_among_the_rows_of_one_data_set() -> None:
    rows: list[list[Value]] = [["x", 0.5, None], ["x", 0.7, 2.0], ["y", 0.1, 1.0], ["y", 0.1, 3.0]]
    table = Table("t", "T", ["data", "acc", "s"], rows, keys=("data",), best={"acc": "high", "s": "low"})
    assert table.best_cells() == {(1, 1), (2, 2)}


def test_a_table_as_csv() -> None:
    assert list(csv.reader(io.StringIO(TABLE.to_csv()))) == [
        ["name", "value", "known"],
        ["a, b", "1.5", "True"],
        ['say "c"', "", "False"],
    ]
