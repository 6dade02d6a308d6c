"""What requests take: the paper's Table II, and the records and parameters they affect (Figure 6).

Every number comes from deletions that were carried out: uniformly drawn records, one after the other, hits of the
clustering sample included. Uniform records fall into large clusters more often, so the mean is weighted by size as
it is for users; a training's seconds divided by the number of clusters stand beside it, because the paper's
numbers look like that.
"""

from __future__ import annotations

import numpy as np

from lmeraser.experiments.bench import Bench
from lmeraser.experiments.cells import Cell
from lmeraser.experiments.datasets import DATA_SETS
from lmeraser.experiments.methods import METHODS, Method
from lmeraser.experiments.published import NOT_MEASURED, SECONDS_PER_REQUEST
from lmeraser.experiments.results import Figure, Findings, Table, Value
from lmeraser.experiments.studies.base import Study, data_of, missing, test_accuracy

_COMPARED = (
    "lmeraser-paper",
    "lmeraser",
    "lmeraser-tree",
    "instant",
    "dam-vp",
    "sisa",
    "single-prompt",
    "linear",
    "retrain",
)
_COLUMNS = (
    *("data", "method", "requests", "mean s", "p95 s", "max s", "hits of the sample"),
    *("records tuned again, mean", "training s", "training s / clusters", "paper s", "accuracy"),
)


def table2(bench: Bench) -> Findings:
    """Seconds per request."""
    rows = [_row(bench, data, METHODS[name]) for data in data_of(bench) for name in _COMPARED]
    table = Table(
        "seconds-per-request",
        "Seconds for one deletion request, from the request to the new generation",
        _COLUMNS,
        rows,
        "Requests are uniform over the records and were carried out one after the other; the paper's seconds are "
        "of another machine and another size. Training includes embedding.",
    )
    tables = [table, _resources(bench)]
    return Findings(tables, notes=missing(bench))


def figure6(bench: Bench) -> Findings:
    """Affected records and parameters."""
    records: dict[str, dict[str, float]] = {}
    parameters: dict[str, dict[str, float]] = {}
    for name in data_of(bench):
        title = DATA_SETS[name].title
        for method in map(METHODS.__getitem__, _COMPARED):
            cell = Cell(name, method.name)
            made, found = bench.trained(cell), bench.requests(cell, _count(bench, method))
            records.setdefault(title, {})[method.title] = float(np.mean([each["records"] for each in found]))
            tuned = float(np.mean([each["clusters"] for each in found]))
            parameters.setdefault(title, {})[method.title] = tuned * made.facts["parameters_of_one"]
    drawn = [
        Figure("affected-records", "Records tuned again by a request, mean", "bars", y="records", series=records),
        Figure("affected-parameters", "Parameters tuned again by a request, mean", "bars", series=parameters),
    ]
    figures = [Figure(**{**figure.__dict__, "log": True, "y": figure.y or "parameters"}) for figure in drawn]
    rows: list[list[Value]] = [
        [title, method, records[title][method], parameters[title][method]]
        for title in records
        for method in records[title]
    ]
    columns = ["data", "method", "records", "parameters"]
    table = Table("affected", "Tuned again by one request, mean over those of Table II", columns, rows)
    return Findings([table], figures, missing(bench))


def _resources(bench: Bench) -> Table:
    """What each method takes of the machine, on the first data set."""
    data = next(data_of(bench))
    rows: list[list[Value]] = []
    for method in map(METHODS.__getitem__, _COMPARED):
        facts = bench.trained(Cell(data, method.name)).facts
        found = bench.requests(Cell(data, method.name), _count(bench, method))
        tuned = float(np.mean([each["clusters"] for each in found]))
        measured = [
            round(facts["seconds"], 2),
            round(facts["seconds"] / facts["records"] * 1000, 2),
            None if facts["peak_mb"] is None else round(facts["peak_mb"]),
            facts["joules"],
            round(facts["bytes"] / 2**20, 3),
            facts["parameters"],
            round(tuned * facts["parameters_of_one"]),
        ]
        rows.append([method.title, *measured])
    columns = [
        *("method", "training s", "ms per record", "peak MiB", "joules", "stored MiB", "parameters"),
        "parameters tuned again by a request, mean",
    ]
    note = (
        "Peak: resident memory of the whole process, with the network and what earlier trainings left. Joules: "
        "of the processor packages, '-' where the machine does not tell. Stored: the model's artifacts."
    )
    return Table("resources", f"Resources, {DATA_SETS[data].title}", columns, rows, note)


def _count(bench: Bench, method: Method) -> int:
    return bench.profile.dear_requests if method.dear else bench.profile.requests


def _row(bench: Bench, data: str, method: Method) -> list[Value]:
    cell = Cell(data, method.name)
    made, found = bench.trained(cell), bench.requests(cell, _count(bench, method))
    seconds = np.array([each["seconds"] for each in found])
    paper = SECONDS_PER_REQUEST.get(method.paper or "", {}).get(data, NOT_MEASURED.get(method.paper or ""))
    return [
        DATA_SETS[data].title,
        method.title,
        len(found),
        round(float(seconds.mean()), 3),
        round(float(np.quantile(seconds, 0.95, method="higher")), 3),
        round(float(seconds.max()), 3),
        sum(each["sample_hit"] for each in found),
        round(float(np.mean([each["records"] for each in found])), 1),
        round(made.facts["seconds"], 2),
        round(made.facts["seconds"] / made.facts["clusters"], 3),
        paper,
        round(test_accuracy(bench, cell, made), 4),
    ]


STUDIES = (
    Study("table2", "Seconds per request", "Table II", table2),
    Study("figure6", "Affected records and parameters", "Figure 6", figure6),
)
