"""The summary says what the tables say, and nothing where there is no table."""

from __future__ import annotations

from lmeraser.experiments.results import Result, Table
from lmeraser.experiments.summary import summary


def result(name: str, table: str, columns: list[str], *rows: list[object]) -> Result:
    return Result([Table(table, "", columns, rows)], name=name, title="", paper="")  # type: ignore[arg-type]


def test_answers_come_from_the_tables() -> None:
    removal = result(
        "removal",
        "models",
        ["method", "model", "digest of the retrained model", "average gap", "JS divergence"],
        ["ours", "nothing unlearned", False, 0.3, 0.2],
        ["ours", "unlearned", True, 0.0, 0.0],
        ["ours", "unlearned", True, 0.0, 0.0],
        ["theirs", "unlearned", False, 0.02, 0.01],
        ["theirs", "unlearned", True, 0.0, 0.0],
    )
    cost = result(
        "table2",
        "seconds-per-request",
        ["data", "method", "mean s", "accuracy"],
        ["X", "ours", 0.2, 0.5],
        ["X", "theirs", 13.1, 0.6],
        ["Y", "ours", 0.2, 0.5],
    )
    first, second, third, fourth = summary([removal, cost])
    assert first.startswith("Is it forgotten? With ours: yes. In 2 of 2 deletions")
    assert second.startswith("theirs: the model is the retrained one in 1 of 2 deletions.")
    assert "up to 0.0200" in second
    assert "X: from 0.2 s (ours) to 13.1 s (theirs)" in third
    assert fourth == "Which is most accurate? X: theirs 0.6000, ours 0.5000."


def test_accuracies_over_seeds_are_preferred() -> None:
    accuracy = result(
        "accuracy", "accuracies", ["data", "method", "accuracy, mean"], ["X", "a", 0.1], ["X", "b", 0.2]
    )
    assert summary([accuracy]) == ["Which is most accurate? X: b 0.2000, a 0.1000."]


def test_without_tables_there_is_nothing_to_say() -> None:
    assert summary([]) == []
