"""The report holds every number and picture, and nothing from outside."""

from __future__ import annotations

import json
from pathlib import Path

from lmeraser.experiments.report import write_report, write_result
from lmeraser.experiments.results import Figure, Result, Table, Value
from outcomes import FIGURE, TABLE


def written(folder: Path, *results: Result) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "environment.json").write_text(json.dumps({"profile": "tiny", "torch": "<2>"}))
    for result in results:
        write_result(folder, result)
    return write_report(folder, ["first", "absent", "second"]).read_text()


def test_tables_figures_and_notes_are_in_it(tmp_path: Path) -> None:
    images = Figure("rows", "Rows of images", "images")
    first = Result([TABLE], [FIGURE], ["a <note>"], name="first", title="One & two", paper="Table I")
    second = Result(
        figures=[images], pictures={"rows": b"\x89PNG"}, name="second", title="Pictures", paper="Figure 9"
    )
    page = written(tmp_path, second, first)
    assert page.index("One &amp; two") < page.index("Pictures")  # in the order of the names
    assert "a &lt;note&gt;" in page
    assert "say &quot;c&quot;" in page
    assert page.count("data:image/png;base64,") == 3  # the curve also for dark pages
    assert page.count("(prefers-color-scheme: dark)") == 1
    assert "http" not in page
    assert "results/first.json" in page
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert {"measurements.parquet", "measurements.csv", "figures/first-curve-dark.png"} <= names
    assert {"tables/first-numbers.csv", "figures/first-curve.svg", "figures/second-rows.png"} <= names


def test_it_begins_with_a_caution_the_contents_and_marks_the_best(tmp_path: Path) -> None:
    tmp_path.mkdir(exist_ok=True)
    (tmp_path / "config.json").write_text(json.dumps({"caution": "Too <small>."}))
    rows: list[list[Value]] = [["one", "a", 0.5], ["one", "b", 0.7], ["two", "a", 0.1], ["two", "b", 0.1]]
    table = Table(
        "t", "T", ["data", "method", "accuracy"], rows, keys=("data", "method"), best={"accuracy": "high"}
    )
    page = written(tmp_path, Result([table], name="first", title="One", paper=""))
    assert "Too &lt;small&gt;." in page
    assert '<a href="#first">One</a>' in page
    assert '<section id="first">' in page
    assert page.count('class="number best"') == 1  # where all are equal, none is the best
    assert '<td class="number best">0.7</td>' in page


def test_what_programs_wrote_is_text_and_not_markup(tmp_path: Path) -> None:
    table = Table("t", "<b>", ["<i>"], [["<script>"]], "<note>")
    page = written(tmp_path, Result([table], name="first", title="T", paper=""))
    assert "<script>" not in page
    assert "<b>" not in page
    assert "&lt;2&gt;" in page
