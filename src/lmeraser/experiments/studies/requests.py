"""Cost of requests: seconds per request (Table II), and affected records and parameters (Figure 6).

Every number is measured on deletions that were carried out: uniformly drawn records, one after the other,
including hits of the clustering sample. Uniform records fall into large clusters more often, so the mean is
weighted by cluster size, as it is for users. The training time divided by the number of clusters is shown as well,
because the paper's numbers appear to be computed that way.
"""

from __future__ import annotations

import numpy as np

from lmeraser.experiments.methods import Method
from lmeraser.experiments.published import NOT_MEASURED, SECONDS_PER_REQUEST
from lmeraser.experiments.results import Figure, Findings, Table, Value
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.studies.base import Study, accuracy_on_test_records, available_data_sets, missing_notes
from lmeraser.experiments.trials import Trial

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


def table2(runner: TrialRunner) -> Findings:
    """Seconds per request."""
    rows = [
        _row(runner, data, method)
        for data in available_data_sets(runner)
        for method in runner.methods(_COMPARED, data)
    ]
    table = Table(
        "seconds-per-request",
        "Seconds for one deletion request, from the request to the new generation",
        _COLUMNS,
        rows,
        "Requests are uniform over the records and were carried out one after the other; the paper's seconds were "
        "measured on another machine and at another size. Training includes embedding, except for methods on "
        "features, which are given.",
        keys=("data", "method"),
        best={"mean s": "low", "p95 s": "low", "accuracy": "high"},
    )
    tables = [table, _resources(runner)]
    return Findings(tables, notes=missing_notes(runner))


def figure6(runner: TrialRunner) -> Findings:
    """Records and parameters that a request affects."""
    records: dict[str, dict[str, float]] = {}
    parameters: dict[str, dict[str, float]] = {}
    for name in available_data_sets(runner):
        title = runner.data_set(name).title
        for method in runner.methods(_COMPARED, name):
            if method.on_features is not None:
                continue  # what it tunes again is not known
            trial = Trial(name, method.name)
            trained = runner.trained(trial)
            deletions = runner.requests(trial, _request_count(runner, method))
            records.setdefault(title, {})[method.title] = float(np.mean([each["records"] for each in deletions]))
            tuned = float(np.mean([each["clusters"] for each in deletions]))
            parameters.setdefault(title, {})[method.title] = tuned * trained.facts["parameters_of_one"]
    linear_figures = [
        Figure("affected-records", "Records tuned again by a request, mean", "bars", y="records", series=records),
        Figure("affected-parameters", "Parameters tuned again by a request, mean", "bars", series=parameters),
    ]
    figures = [
        Figure(**{**figure.__dict__, "log": True, "y": figure.y or "parameters"}) for figure in linear_figures
    ]
    rows: list[list[Value]] = [
        [title, method, records[title][method], parameters[title][method]]
        for title in records
        for method in records[title]
    ]
    columns = ["data", "method", "records", "parameters"]
    title = "Tuned again by one request, mean over those of Table II"
    table = Table("affected", title, columns, rows, keys=("data", "method"))
    return Findings([table], figures, missing_notes(runner))


def _resources(runner: TrialRunner) -> Table:
    """Resource usage of each method on the first data set."""
    data = next(available_data_sets(runner))
    rows: list[list[Value]] = []
    for method in runner.methods(_COMPARED, data):
        facts = runner.trained(Trial(data, method.name)).facts
        deletions = runner.requests(Trial(data, method.name), _request_count(runner, method))
        tuned = float(np.mean([each["clusters"] for each in deletions]))
        usage = [
            round(facts["seconds"], 2),
            round(facts["seconds"] / facts["records"] * 1000, 2),
            None if facts["peak_mb"] is None else round(facts["peak_mb"]),
            facts["joules"],
            round(facts["bytes"] / 2**20, 3),
            facts["parameters"],
            round(tuned * facts["parameters_of_one"]),
        ]
        rows.append([method.title, *usage])
    columns = [
        *("method", "training s", "ms per record", "peak MiB", "joules", "stored MiB", "parameters"),
        "parameters tuned again by a request, mean",
    ]
    note = (
        "Peak: resident memory of the whole process, including the network and memory of earlier trainings. "
        "Joules: energy of the processor packages, '-' where it cannot be read. Stored: the model's artifacts."
    )
    title = f"Resources, {runner.data_set(data).title}"
    return Table("resources", title, columns, rows, note, keys=("method",))


def _request_count(runner: TrialRunner, method: Method) -> int:
    """Number of deletions that are timed for a method."""
    return runner.profile.expensive_requests if method.expensive else runner.profile.requests


def _row(runner: TrialRunner, data: str, method: Method) -> list[Value]:
    trial = Trial(data, method.name)
    trained = runner.trained(trial)
    deletions = runner.requests(trial, _request_count(runner, method))
    seconds = np.array([each["seconds"] for each in deletions])
    known = [each["records"] for each in deletions if each["records"] is not None]
    tuned = float(np.mean(known)) if known else None
    paper = SECONDS_PER_REQUEST.get(method.paper or "", {}).get(data, NOT_MEASURED.get(method.paper or ""))
    return [
        runner.data_set(data).title,
        method.title,
        len(deletions),
        round(float(seconds.mean()), 3),
        round(float(np.quantile(seconds, 0.95, method="higher")), 3),
        round(float(seconds.max()), 3),
        sum(each["sample_hit"] for each in deletions),
        None if tuned is None else round(tuned, 1),
        round(trained.facts["seconds"], 2),
        round(trained.facts["seconds"] / trained.facts["clusters"], 3),
        paper,
        round(accuracy_on_test_records(runner, trial, trained), 4),
    ]


STUDIES = (
    Study("table2", "Seconds per request", "Table II", table2),
    Study("figure6", "Affected records and parameters", "Figure 6", figure6),
)
