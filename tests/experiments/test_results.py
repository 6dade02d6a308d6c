"""Results survive their JSON; tables become CSV."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

from lmeraser.experiments.results import Result
from outcomes import FIGURE, TABLE

NAMES: Any = {"name": "r", "title": "Title", "paper": "Table I"}


def test_a_result_survives_its_json_but_for_pictures() -> None:
    result = Result([TABLE], [FIGURE], ["a note"], {"picture": b"png"}, **NAMES)
    again = Result.of_json(json.loads(json.dumps(result.to_json())))
    assert again == Result([TABLE], [FIGURE], ["a note"], **NAMES)


def test_a_table_as_csv() -> None:
    assert list(csv.reader(io.StringIO(TABLE.to_csv()))) == [
        ["name", "value", "known"],
        ["a, b", "1.5", "True"],
        ['say "c"', "", "False"],
    ]
