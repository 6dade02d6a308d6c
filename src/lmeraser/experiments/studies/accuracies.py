"""Accuracy: over epochs (Figures 3 and 4), over what was unlearned (5), by partition (7) and by heads (8)."""

from __future__ import annotations

from collections.abc import Sequence

from lmeraser.experiments.bench import Bench
from lmeraser.experiments.cells import Cell
from lmeraser.experiments.datasets import DATA_SETS
from lmeraser.experiments.methods import METHODS
from lmeraser.experiments.published import ACCURACY
from lmeraser.experiments.results import Figure, Findings, Table, Value
from lmeraser.experiments.studies.base import Study, backbones_of, data_of, missing, test_accuracy

_CURVES = ("lmeraser-paper", "lmeraser", "single-prompt", "dam-vp", "random-all", "sisa", "retrain", "linear")
_CURVES_OF_TRANSFORMERS = ("lmeraser-paper", "lmeraser", "single-prompt", "vpt-shallow", "vpt-deep", "linear")
_WITHOUT_EPOCHS = "instant"
_PARTITIONS = ("lmeraser-paper", "lmeraser", "lmeraser-tree", "random-one", "random-all", "single-prompt")
_HEADS = ("lmeraser", "shared-head", "single-prompt")


def figure3(bench: Bench) -> Findings:
    """Accuracy over epochs on the first backbone."""
    return _curves(bench, 0, list(data_of(bench)), _CURVES)


def figure4(bench: Bench) -> Findings:
    """Accuracy over epochs on the other backbones, with token prompts."""
    results = [
        _curves(bench, position, list(data_of(bench))[:1], _CURVES_OF_TRANSFORMERS)
        for position in backbones_of(bench)
        if position > 0
    ]
    tables = [table for result in results for table in result.tables]
    figures = [figure for result in results for figure in result.figures]
    notes = missing(bench) if len(bench.profile.backbones) > 1 else ["The profile has one backbone only."]
    return Findings(tables, figures, notes)


def figure5(bench: Bench) -> Findings:
    """Accuracy against the share of the records that was unlearned, for several numbers of prompts."""
    data = "cifar100" if "cifar100" in set(data_of(bench)) else next(data_of(bench))
    series: dict[str, list[list[float]]] = {}
    rows: list[list[Value]] = []
    for number in bench.profile.numbers:
        cell = Cell(data, "lmeraser", settings={"partition": {"clusters": number}})
        for share in bench.profile.shares:
            outcome = bench.trained(cell) if share == 0 else bench.forgotten(cell, share)
            found = test_accuracy(bench, cell, outcome)
            series.setdefault(f"{number} prompts", []).append([share, found])
            published = ACCURACY.get((data, share))
            rows.append([number, share, round(found, 4), outcome.facts["records"], published])
    title = f"{DATA_SETS[data].title}: accuracy against the share of the records that is unlearned"
    columns = ["prompts", "share unlearned", "accuracy", "records left", "paper (347 prompts, ViT-B-22K)"]
    figure = Figure("accuracy-unlearned", title, "lines", "share unlearned", "test accuracy", series)
    return Findings(
        [Table("accuracy-unlearned", title, columns, rows)],
        [figure],
    )


def figure7(bench: Bench) -> Findings:
    """Random against adaptive partitions."""
    return _compared(bench, _PARTITIONS, "partitions", "Random against adaptive partition")


def figure8(bench: Bench) -> Findings:
    """One head against one for each cluster."""
    return _compared(bench, _HEADS, "heads", "One head against many")


def _curves(bench: Bench, backbone: int, data: Sequence[str], methods: Sequence[str]) -> Findings:
    figures: list[Figure] = []
    rows: list[list[Value]] = []
    used = bench.profile.backbones[backbone]
    for name in data:
        series: dict[str, list[list[float]]] = {}
        for method in map(METHODS.__getitem__, (*methods, _WITHOUT_EPOCHS)):
            points = (
                [(1, None), (used.epochs, None)]
                if method.name == _WITHOUT_EPOCHS
                else [(e, e) for e in used.read_at]
            )
            for shown, stop in points:
                whole = stop is None or stop == used.epochs
                cell = Cell(name, method.name, backbone=backbone)
                if not whole:
                    cell = cell.but(settings={"tuning": {"stop_after": _scaled(bench, cell, stop)}})
                found = test_accuracy(bench, cell, bench.trained(cell))
                series.setdefault(method.title, []).append([shown, found])
                rows.append([used.name, DATA_SETS[name].title, method.title, shown, round(found, 4)])
        title = f"{DATA_SETS[name].title}, {used.name}: accuracy over epochs"
        figures.append(Figure(f"epochs-{name}-{backbone}", title, "lines", "epochs", "test accuracy", series))
    columns = ["backbone", "data", "method", "epochs", "accuracy"]
    table = Table(f"epochs-{backbone}", f"Test accuracy over epochs, {used.name}", columns, rows)
    return Findings([table], figures, missing(bench))


def _scaled(bench: Bench, cell: Cell, epochs: int | None) -> int:
    """So many epochs of a method whose slices have other numbers of epochs than the profile says."""
    whole = bench.config(cell).tuning.epochs
    return max(1, round((epochs or 1) * whole / bench.backbone(cell).epochs))


def _compared(bench: Bench, methods: Sequence[str], name: str, title: str) -> Findings:
    series: dict[str, dict[str, float]] = {}
    rows: list[list[Value]] = []
    for data in data_of(bench):
        for method in map(METHODS.__getitem__, methods):
            cell = Cell(data, method.name)
            outcome = bench.trained(cell)
            found = test_accuracy(bench, cell, outcome)
            series.setdefault(DATA_SETS[data].title, {})[method.title] = found
            largest, share = max(outcome.facts["sizes"], default=0), outcome.facts["expected_share"]
            rows.append(
                [DATA_SETS[data].title, method.title, round(found, 4), outcome.facts["clusters"], largest, share]
            )
    columns = ["data", "method", "accuracy", "clusters", "largest cluster", "expected share"]
    figure = Figure(name, title, "bars", y="test accuracy", series=series)
    return Findings([Table(name, title, columns, rows)], [figure], missing(bench))


STUDIES = (
    Study("figure3", "Accuracy over epochs", "Figure 3", figure3),
    Study("figure4", "Accuracy over epochs, other backbones", "Figure 4", figure4),
    Study("figure5", "Accuracy after unlearning", "Figure 5", figure5),
    Study("figure7", "Random against adaptive partition", "Figure 7", figure7),
    Study("figure8", "One head against many", "Figure 8", figure8),
)
