"""Accuracy of all methods, over epochs (Figures 3 and 4), over the unlearned share (5), by partition and heads."""

from __future__ import annotations

from collections.abc import Sequence

from lmeraser.experiments.metrics.spread import spread
from lmeraser.experiments.published import ACCURACY
from lmeraser.experiments.results import Figure, Findings, Table, Value
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.studies.base import (
    Study,
    accuracy_on_test_records,
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
_COMPARED = (
    "instant",
    "linear",
    "lmeraser",
    "lmeraser-paper",
    "cluster-heads",
    "random-all",
    "dam-vp",
    "fine-tuning",
)


def accuracies(runner: TrialRunner) -> Findings:
    """Test accuracy of methods over seeds."""
    rows: list[list[Value]] = []
    single: list[list[Value]] = []
    series: dict[str, dict[str, float]] = {}
    for data in available_data_sets(runner):
        title = runner.data_set(data).title
        for method in runner.methods(_COMPARED, data):
            found = []
            for seed in range(runner.profile.seeds):
                trial = Trial(data, method.name, seed=seed)
                result = runner.trained(trial)
                found.append(accuracy_on_test_records(runner, trial, result))
                share, seconds = result.facts["expected_share"], round(result.facts["seconds"], 2)
                single.append([title, method.title, seed, round(found[-1], 4), share, seconds])
            over_seeds = spread(found)
            deviation = None if over_seeds.std is None else round(over_seeds.std, 4)
            series.setdefault(title, {})[method.title] = over_seeds.mean
            rows.append([title, method.title, round(over_seeds.mean, 4), deviation, over_seeds.seeds, share])
    table = Table(
        "accuracies",
        "Test accuracy over seeds",
        ["data", "method", "accuracy, mean", "standard deviation", "seeds", "expected share"],
        rows,
        "Expected share: of the records, tuned again by one uniform request ('-': not known). Seeds change the "
        "initial values, the order of records and the clustering sample.",
        keys=("data", "method"),
        best={"accuracy, mean": "high"},
    )
    by_seed = Table(
        "accuracies-by-seed",
        "Test accuracy for each seed",
        ["data", "method", "seed", "accuracy", "expected share", "training s"],
        single,
        keys=("data", "method", "seed"),
    )
    figure = Figure("accuracies", "Test accuracy, mean over seeds", "bars", y="test accuracy", series=series)
    return Findings([table, by_seed], [figure], missing_notes(runner))


def figure3(runner: TrialRunner) -> Findings:
    """Accuracy over epochs on the first backbone."""
    return _curves(runner, 0, list(available_data_sets(runner)), _CURVES)


def figure4(runner: TrialRunner) -> Findings:
    """Accuracy over epochs on the other backbones, with token prompts."""
    firsts = {runner.data_set(name).modality: name for name in reversed(list(available_data_sets(runner)))}
    results = [
        _curves(runner, position, [name], _CURVES_OF_TRANSFORMERS)
        for kind, name in firsts.items()
        for position in available_backbones(runner, kind)
        if position > 0
    ]
    tables = [table for result in results for table in result.tables]
    figures = [figure for result in results for figure in result.figures]
    several = any(len(backbones) > 1 for backbones in runner.profile.backbones.values())
    notes = missing_notes(runner) if several else ["The profile has one backbone only."]
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
            accuracy = accuracy_on_test_records(runner, trial, result)
            series.setdefault(f"{number} prompts", []).append([share, accuracy])
            published = ACCURACY.get((data, share))
            rows.append([number, share, round(accuracy, 4), result.facts["records"], published])
    title = f"{runner.data_set(data).title}: accuracy against the unlearned share of the records"
    columns = ["prompts", "share unlearned", "accuracy", "records left", "paper (347 prompts, ViT-B-22K)"]
    figure = Figure("accuracy-unlearned", title, "lines", "share unlearned", "test accuracy", series)
    return Findings(
        [Table("accuracy-unlearned", title, columns, rows, keys=("prompts", "share unlearned"))],
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
    used = None
    for name in data:
        series: dict[str, list[list[float]]] = {}
        used = runner.backbone(Trial(name, _WITHOUT_EPOCHS, backbone=backbone))
        title = runner.data_set(name).title
        for method in runner.methods((*methods, _WITHOUT_EPOCHS), name):
            if method.on_features is not None:
                continue  # its epochs are its own
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
                accuracy = accuracy_on_test_records(runner, trial, runner.trained(trial))
                series.setdefault(method.title, []).append([shown, accuracy])
                rows.append([used.name, title, method.title, shown, round(accuracy, 4)])
        heading = f"{title}, {used.name}: accuracy over epochs"
        figures.append(Figure(f"epochs-{name}-{backbone}", heading, "lines", "epochs", "test accuracy", series))
    columns = ["backbone", "data", "method", "epochs", "accuracy"]
    of = f", {used.name}" if used is not None and len({row[0] for row in rows}) == 1 else ""
    table = Table(f"epochs-{backbone}", f"Test accuracy over epochs{of}", columns, rows, keys=tuple(columns[:4]))
    return Findings([table], figures, missing_notes(runner))


def _epochs_per_slice(runner: TrialRunner, trial: Trial, epochs: int | None) -> int:
    """Convert epochs of the profile to epochs of a method whose slices have their own number of epochs."""
    own_epochs = runner.config(trial).tuning.epochs
    return max(1, round((epochs or 1) * own_epochs / runner.backbone(trial).epochs))


def _compared(runner: TrialRunner, methods: Sequence[str], name: str, title: str) -> Findings:
    series: dict[str, dict[str, float]] = {}
    rows: list[list[Value]] = []
    for data in available_data_sets(runner):
        data_title = runner.data_set(data).title
        for method in runner.methods(methods, data):
            trial = Trial(data, method.name)
            result = runner.trained(trial)
            accuracy = accuracy_on_test_records(runner, trial, result)
            series.setdefault(data_title, {})[method.title] = accuracy
            largest = max(result.facts["sizes"], default=0)
            share = result.facts["expected_share"]
            rows.append([data_title, method.title, round(accuracy, 4), result.facts["clusters"], largest, share])
    columns = ["data", "method", "accuracy", "clusters", "largest cluster", "expected share"]
    figure = Figure(name, title, "bars", y="test accuracy", series=series)
    table = Table(name, title, columns, rows, keys=("data", "method"), best={"accuracy": "high"})
    return Findings([table], [figure], missing_notes(runner))


STUDIES = (
    Study("accuracy", "Accuracy of the methods", "", accuracies),
    Study("figure3", "Accuracy over epochs", "Figure 3", figure3),
    Study("figure4", "Accuracy over epochs, other backbones", "Figure 4", figure4),
    Study("figure5", "Accuracy after unlearning", "Figure 5", figure5),
    Study("figure7", "Random against adaptive partition", "Figure 7", figure7),
    Study("figure8", "One head against many", "Figure 8", figure8),
)
