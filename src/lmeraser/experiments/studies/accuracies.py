"""Accuracy over epochs (Figures 3 and 4), over the unlearned share (5), by partition (7) and by heads (8)."""

from __future__ import annotations

from collections.abc import Sequence

from lmeraser.experiments.datasets import DATA_SETS
from lmeraser.experiments.methods import METHODS
from lmeraser.experiments.published import ACCURACY
from lmeraser.experiments.results import Figure, Findings, Table, Value
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.studies.base import (
    Study,
    accuracy_on_test_images,
    available_backbones,
    available_data_sets,
    missing_notes,
)
from lmeraser.experiments.trials import Trial

_CURVES = ("lmeraser-paper", "lmeraser", "single-prompt", "dam-vp", "random-all", "sisa", "retrain", "linear")
_CURVES_OF_TRANSFORMERS = ("lmeraser-paper", "lmeraser", "single-prompt", "vpt-shallow", "vpt-deep", "linear")
_WITHOUT_EPOCHS = "instant"
_PARTITIONS = ("lmeraser-paper", "lmeraser", "lmeraser-tree", "random-one", "random-all", "single-prompt")
_HEADS = ("lmeraser", "shared-head", "single-prompt")


def figure3(runner: TrialRunner) -> Findings:
    """Accuracy over epochs on the first backbone."""
    return _curves(runner, 0, list(available_data_sets(runner)), _CURVES)


def figure4(runner: TrialRunner) -> Findings:
    """Accuracy over epochs on the other backbones, with token prompts."""
    results = [
        _curves(runner, position, list(available_data_sets(runner))[:1], _CURVES_OF_TRANSFORMERS)
        for position in available_backbones(runner)
        if position > 0
    ]
    tables = [table for result in results for table in result.tables]
    figures = [figure for result in results for figure in result.figures]
    notes = missing_notes(runner) if len(runner.profile.backbones) > 1 else ["The profile has one backbone only."]
    return Findings(tables, figures, notes)


def figure5(runner: TrialRunner) -> Findings:
    """Accuracy against the unlearned share of the records, for several numbers of prompts."""
    data = "cifar100" if "cifar100" in set(available_data_sets(runner)) else next(available_data_sets(runner))
    series: dict[str, list[list[float]]] = {}
    rows: list[list[Value]] = []
    for number in runner.profile.cluster_counts:
        trial = Trial(data, "lmeraser", settings={"partition": {"clusters": number}})
        for share in runner.profile.unlearned_shares:
            result = runner.trained(trial) if share == 0 else runner.unlearned(trial, share)
            accuracy = accuracy_on_test_images(runner, trial, result)
            series.setdefault(f"{number} prompts", []).append([share, accuracy])
            published = ACCURACY.get((data, share))
            rows.append([number, share, round(accuracy, 4), result.facts["records"], published])
    title = f"{DATA_SETS[data].title}: accuracy against the unlearned share of the records"
    columns = ["prompts", "share unlearned", "accuracy", "records left", "paper (347 prompts, ViT-B-22K)"]
    figure = Figure("accuracy-unlearned", title, "lines", "share unlearned", "test accuracy", series)
    return Findings(
        [Table("accuracy-unlearned", title, columns, rows)],
        [figure],
    )


def figure7(runner: TrialRunner) -> Findings:
    """Random partition against adaptive partitions."""
    return _compared(runner, _PARTITIONS, "partitions", "Random against adaptive partition")


def figure8(runner: TrialRunner) -> Findings:
    """One shared head against one head per cluster."""
    return _compared(runner, _HEADS, "heads", "One head against many")


def _curves(runner: TrialRunner, backbone: int, data: Sequence[str], methods: Sequence[str]) -> Findings:
    figures: list[Figure] = []
    rows: list[list[Value]] = []
    used = runner.profile.backbones[backbone]
    for name in data:
        series: dict[str, list[list[float]]] = {}
        for method in map(METHODS.__getitem__, (*methods, _WITHOUT_EPOCHS)):
            points = (
                [(1, None), (used.epochs, None)]
                if method.name == _WITHOUT_EPOCHS
                else [(e, e) for e in used.curve_epochs]
            )
            for shown, stop in points:
                complete = stop is None or stop == used.epochs
                trial = Trial(name, method.name, backbone=backbone)
                if not complete:
                    trial = trial.vary(settings={"tuning": {"stop_after": _epochs_per_slice(runner, trial, stop)}})
                accuracy = accuracy_on_test_images(runner, trial, runner.trained(trial))
                series.setdefault(method.title, []).append([shown, accuracy])
                rows.append([used.name, DATA_SETS[name].title, method.title, shown, round(accuracy, 4)])
        title = f"{DATA_SETS[name].title}, {used.name}: accuracy over epochs"
        figures.append(Figure(f"epochs-{name}-{backbone}", title, "lines", "epochs", "test accuracy", series))
    columns = ["backbone", "data", "method", "epochs", "accuracy"]
    table = Table(f"epochs-{backbone}", f"Test accuracy over epochs, {used.name}", columns, rows)
    return Findings([table], figures, missing_notes(runner))


def _epochs_per_slice(runner: TrialRunner, trial: Trial, epochs: int | None) -> int:
    """Convert epochs of the profile to epochs of a method whose slices have their own number of epochs."""
    own_epochs = runner.config(trial).tuning.epochs
    return max(1, round((epochs or 1) * own_epochs / runner.backbone(trial).epochs))


def _compared(runner: TrialRunner, methods: Sequence[str], name: str, title: str) -> Findings:
    series: dict[str, dict[str, float]] = {}
    rows: list[list[Value]] = []
    for data in available_data_sets(runner):
        for method in map(METHODS.__getitem__, methods):
            trial = Trial(data, method.name)
            result = runner.trained(trial)
            accuracy = accuracy_on_test_images(runner, trial, result)
            series.setdefault(DATA_SETS[data].title, {})[method.title] = accuracy
            largest = max(result.facts["sizes"], default=0)
            share = result.facts["expected_share"]
            rows.append(
                [DATA_SETS[data].title, method.title, round(accuracy, 4), result.facts["clusters"], largest, share]
            )
    columns = ["data", "method", "accuracy", "clusters", "largest cluster", "expected share"]
    figure = Figure(name, title, "bars", y="test accuracy", series=series)
    return Findings([Table(name, title, columns, rows)], [figure], missing_notes(runner))


STUDIES = (
    Study("figure3", "Accuracy over epochs", "Figure 3", figure3),
    Study("figure4", "Accuracy over epochs, other backbones", "Figure 4", figure4),
    Study("figure5", "Accuracy after unlearning", "Figure 5", figure5),
    Study("figure7", "Random against adaptive partition", "Figure 7", figure7),
    Study("figure8", "One head against many", "Figure 8", figure8),
)
