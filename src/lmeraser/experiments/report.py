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
from lmeraser.experiments.results import Figure, Result, Table

_STYLE = """
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; display: block; overflow-x: auto; font-size: .9rem; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #8886; text-align: left; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding: .5rem 0; }
figure { margin: 1rem 0; } img { max-width: 100%; background: white; }
.quiet { opacity: .75; font-size: .9rem; }
"""


def write_result(out: Path, result: Result) -> None:
    """Write a result to the run's folder: one JSON file, a CSV for each table, PNG and SVG for each figure."""
    for table in result.tables:
        write_atomic(out / "tables" / f"{result.name}-{table.name}.csv", table.to_csv().encode())
    for figure in result.figures:
        drawn = {"png": result.pictures[figure.name]} if figure.kind == "images" else draw(figure)
        for kind, data in drawn.items():
            write_atomic(out / "figures" / f"{result.name}-{figure.name}.{kind}", data)
    values = json.dumps(result.to_json(), indent=1, sort_keys=True)
    write_atomic(out / "results" / f"{result.name}.json", values.encode())


def write_report(out: Path, names: Sequence[str]) -> Path:
    """Write ``report.html`` from those results of these experiments that exist, and return its path."""
    results = [out / "results" / f"{name}.json" for name in names]
    parts = [Result.of_json(json.loads(file.read_text())) for file in results if file.exists()]
    environment = json.loads((out / "environment.json").read_text())
    body = "\n".join([*_introduction(environment), *(_section(out, part) for part in parts)])
    page = (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f"<title>lmeraser: experiments</title><style>{_STYLE}</style></head><body>{body}</body></html>\n"
    )
    path = out / "report.html"
    write_atomic(path, page.encode())
    return path


def _introduction(environment: Mapping[str, Any]) -> Iterable[str]:
    yield "<h1>Experiments</h1>"
    facts = ", ".join(f"{escape(name)} {escape(format_value(value))}" for name, value in environment.items())
    yield f'<p class="quiet">{facts}</p>'
    yield (
        "<p>Every method runs on the same records, the same frozen backbone and the same number of passes over "
        "them. Every number is in <code>results/</code> beside this file, and the measurements behind it "
        "in <code>steps/</code>. The paper's numbers were measured on other machines and at other sizes.</p>"
    )


def _section(out: Path, result: Result) -> str:
    head = f"<h2>{escape(result.title)}</h2>"
    source = f'<p class="quiet">{escape(result.paper)}; results/{escape(result.name)}.json</p>'
    notes = "".join(f"<p>{escape(note)}</p>" for note in result.notes)
    figures = "".join(_figure(out, result.name, figure) for figure in result.figures)
    return f"<section>{head}{source}{notes}{figures}{''.join(map(_table, result.tables))}</section>"


def _figure(out: Path, name: str, figure: Figure) -> str:
    data = (out / "figures" / f"{name}-{figure.name}.png").read_bytes()
    image = f'<img alt="{escape(figure.title)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'
    note = f"<figcaption>{escape(figure.note)}</figcaption>" if figure.note else ""
    return f"<figure>{image}{note}</figure>"


def _table(table: Table) -> str:
    header = "".join(f'<th scope="col">{escape(name)}</th>' for name in table.columns)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note else ""
    return f"<table><caption>{escape(table.title)}</caption><tr>{header}</tr>{rows}</table>{note}"


def _cell(value: Any) -> str:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return (
        f'<td class="number">{format_value(value)}</td>' if number else f"<td>{escape(format_value(value))}</td>"
    )
