"""Results survive their JSON; tables become CSV."""

from __future__ import annotations

import csv
import io
import json

from lmeraser.experiments.results import Figure, Result, Table

TABLE = Table(
    "numbers", "Some numbers", ["name", "value", "known"], [["a, b", 1.5, True], ['say "c"', None, False]]
)
FIGURE = Figure("curve", "A curve", "lines", "x", "y", {"one": [[0, 1.0], [1, 2.0]]}, published={"paper": 1.5})


def test_a_result_survives_its_json_but_for_pictures() -> None:
    result = Result("r", "Title", "Table I", [TABLE], [FIGURE], ["a note"], {"picture": b"png"})
    again = Result.of_json(json.loads(json.dumps(result.to_json())))
    assert again == Result("r", "Title", "Table I", [TABLE], [FIGURE], ["a note"])


def test_a_table_as_csv() -> None:
    assert list(csv.reader(io.StringIO(TABLE.to_csv()))) == [
        ["name", "value", "known"],
        ["a, b", "1.5", "True"],
        ['say "c"', "", "False"],
    ]
