"""HTML report of a run: one self-contained file generated from the results and figures in the run's folder.

Every number comes from a JSON file in ``results``, which the report names. Must not depend on how experiments run.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.console import format_value
from lmeraser.experiments.figures import draw
from lmeraser.experiments.measurements import write_measurements
from lmeraser.experiments.results import Figure, Result, Table
from lmeraser.experiments.summary import summary

_DARK = "-dark"  # end of the names of figures for dark pages
_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8886; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .5rem 0; }
figure { margin: 1rem 0; } img { max-width: 100%; }
td.best { font-weight: 700; background: #2a82; }
.quiet { opacity: .75; font-size: .9rem; }
.caution { border: 2px solid #b60; padding: .5rem 1rem; font-weight: 600; }
nav ul { columns: 2; } #summary li { margin: .3rem 0; }
"""


def write_result(out: Path, result: Result) -> None:
    """Write a result to the run's folder: one JSON file, a CSV for each table, PNG and SVG for each figure.

    Figures are drawn twice, as ``NAME.png`` for light and ``NAME-dark.png`` for dark pages.
    """
    for table in result.tables:
        write_atomic(out / "tables" / f"{result.name}-{table.name}.csv", table.to_csv().encode())
    for figure in result.figures:
        name = f"{result.name}-{figure.name}"
        if figure.kind == "images":
            write_atomic(out / "figures" / f"{name}.png", result.pictures[figure.name])
            continue
        for shown, dark in ((name, False), (f"{name}{_DARK}", True)):
            for kind, data in draw(figure, dark=dark).items():
                write_atomic(out / "figures" / f"{shown}.{kind}", data)
    values = json.dumps(result.to_json(), indent=1, sort_keys=True)
    write_atomic(out / "results" / f"{result.name}.json", values.encode())


def write_report(out: Path, names: Sequence[str]) -> Path:
    """Write ``report.html`` and the tidy tables from those results of these experiments that exist.

    Returns:
        The path of the report.
    """
    results = [out / "results" / f"{name}.json" for name in names]
    parts = [Result.of_json(json.loads(file.read_text())) for file in results if file.exists()]
    write_measurements(out, parts)
    environment = json.loads((out / "environment.json").read_text())
    body = "\n".join([*_introduction(out, environment, parts), *(_section(out, part) for part in parts)])
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>lmeraser: experiments</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
    path = out / "report.html"
    write_atomic(path, page.encode())
    return path


def _introduction(out: Path, environment: Mapping[str, Any], parts: Sequence[Result]) -> Iterable[str]:
    yield "<h1>Experiments</h1>"
    if caution := _caution(out):
        yield f'<p class="caution" role="note">{escape(caution)}</p>'
    if answers := summary(parts):
        sentences = "".join(f"<li>{escape(answer)}</li>" for answer in answers)
        yield f'<section id="summary"><h2>Summary</h2><ul>{sentences}</ul></section>'
    links = "".join(f'<li><a href="#{escape(part.name)}">{escape(part.title)}</a></li>' for part in parts)
    yield f'<nav aria-label="Contents"><h2>Contents</h2><ul>{links}</ul></nav>'
    facts = ", ".join(f"{escape(name)} {escape(format_value(value))}" for name, value in environment.items())
    yield f'<p class="quiet">{facts}</p>'
    yield (
        "<p>Every method runs on the same records, the same frozen backbone and the same number of passes over "
        "them. Every number is in <code>results/</code> beside this file, and the measurements behind it "
        "in <code>steps/</code>. All numbers are in <code>measurements.parquet</code> and <code>.csv</code>, too. "
        "The best values of a table are marked. The paper's numbers were measured on other machines and at other "
        "sizes.</p>"
    )


def _caution(out: Path) -> str:
    """What the run's profile cannot show."""
    try:
        return str(json.loads((out / "config.json").read_text()).get("caution", ""))
    except OSError:
        return ""


def _section(out: Path, result: Result) -> str:
    head = f"<h2>{escape(result.title)}</h2>"
    paper = f"{escape(result.paper)}; " if result.paper else ""
    source = f'<p class="quiet">{paper}results/{escape(result.name)}.json</p>'
    notes = "".join(f"<p>{escape(note)}</p>" for note in result.notes)
    figures = "".join(_figure(out, result.name, figure) for figure in result.figures)
    tables = "".join(map(_table, result.tables))
    return f'<section id="{escape(result.name)}">{head}{source}{notes}{figures}{tables}</section>'


def _figure(out: Path, name: str, figure: Figure) -> str:
    file = out / "figures" / f"{name}-{figure.name}.png"
    image = f'<img alt="{escape(figure.title)}" src="{_data_url(file)}">'
    dark = file.with_name(f"{file.stem}{_DARK}.png")
    if dark.exists():
        source = f'<source media="(prefers-color-scheme: dark)" srcset="{_data_url(dark)}">'
        image = f"<picture>{source}{image}</picture>"
    note = f"<figcaption>{escape(figure.note)}</figcaption>" if figure.note else ""
    return f"<figure>{image}{note}</figure>"


def _data_url(file: Path) -> str:
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"


def _table(table: Table) -> str:
    best = table.best_cells()
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(
        f"<tr>{''.join(_cell(value, best=(number, column) in best) for column, value in enumerate(row))}</tr>"
        for number, row in enumerate(table.rows)
    )
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note else ""
    return f"<table><caption>{escape(table.title)}</caption><tr>{header}</tr>{rows}</table>{note}"


def _cell(value: Any, *, best: bool = False) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    kinds = " ".join(kind for kind, is_so in (("number", number), ("best", best)) if is_so)
    shown = escape(format_value(value))
    return f'<td class="{kinds}">{shown}</td>' if kinds else f"<td>{shown}</td>"
