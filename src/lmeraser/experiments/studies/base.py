"""Interface of a study (a name and a function from a trial runner to findings), and helpers that studies share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lmeraser.config.modalities import Modality
from lmeraser.experiments.datasets import available
from lmeraser.experiments.methods import DATA, backbone_location
from lmeraser.experiments.metrics.accuracies import accuracy
from lmeraser.experiments.results import Findings, Result
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.trials import StepResult, Trial


@dataclass(frozen=True)
class Study:
    """One experiment.

    Attributes:
        name: name on the command line.
        title: title of its section in the report.
        paper: the table or figure of the paper that it reproduces; empty: it has none.
        compute: computes its tables and figures.
    """

    name: str
    title: str
    paper: str
    compute: Callable[[TrialRunner], Findings]

    def run(self, runner: TrialRunner) -> Result:
        """Compute the findings and attach the study's name."""
        return Result(name=self.name, title=self.title, paper=self.paper, **vars(self.compute(runner)))


def available_data_sets(runner: TrialRunner) -> Iterator[str]:
    """Names of the profile's data sets that are available."""
    for name in runner.profile.data_sets:
        if available(runner.data_set(name), runner.root, hub=runner.hub):
            yield name


def available_backbones(runner: TrialRunner, kind: Modality = "image") -> Iterator[int]:
    """Indices of the backbones for this kind of records that are available, as far as can be known unloaded."""
    for position, backbone in enumerate(runner.profile.backbones[kind]):
        is_folder = str(backbone.settings["name"]).startswith(DATA)
        if not is_folder or (runner.root is not None and Path(backbone_location(backbone, runner.root)).exists()):
            yield position


def missing_notes(runner: TrialRunner) -> list[str]:
    """A note for each data set and backbone of the profile that is not available."""
    data_sets = set(available_data_sets(runner))
    kinds = dict.fromkeys(runner.data_set(name).modality for name in runner.profile.data_sets)
    data = [
        f"{runner.data_set(name).title} is not available ({name}/train.parquet and test.parquet): left out."
        for name in runner.profile.data_sets
        if name not in data_sets
    ]
    backbones = [
        f"The backbone {backbone.name} is not available ({str(backbone.settings['name']).removeprefix(DATA)}): "
        "left out."
        for kind in kinds
        for position, backbone in enumerate(runner.profile.backbones[kind])
        if position not in set(available_backbones(runner, kind))
    ]
    return [*data, *backbones]


def accuracy_on_test_records(runner: TrialRunner, trial: Trial, result: StepResult) -> float:
    """Accuracy on the test records of a trial's data set."""
    return accuracy(result.test, runner.data(trial.data, trial.backbone).test_labels)
