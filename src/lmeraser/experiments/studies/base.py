"""What a study is: a name and a function from a bench to a result; and what several studies share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from lmeraser.experiments.bench import Bench
from lmeraser.experiments.cells import Cell, Outcome
from lmeraser.experiments.datasets import DATA_SETS, available
from lmeraser.experiments.methods import DATA, located
from lmeraser.experiments.metrics.accuracies import accuracy
from lmeraser.experiments.results import Findings, Result


@dataclass(frozen=True)
class Study:
    """One experiment.

    Attributes:
        name: on the command line.
        title: of its part of the report.
        paper: which table or figure of the paper it stands beside.
        find: makes its tables and figures.
    """

    name: str
    title: str
    paper: str
    find: Callable[[Bench], Findings]

    def run(self, bench: Bench) -> Result:
        """What it finds, under its name."""
        return Result(name=self.name, title=self.title, paper=self.paper, **vars(self.find(bench)))


def data_of(bench: Bench) -> Iterator[str]:
    """Names of the profile's data sets that are at hand."""
    for name in bench.profile.data:
        if available(DATA_SETS[name], bench.root, hub=bench.hub):
            yield name


def backbones_of(bench: Bench) -> Iterator[int]:
    """Positions of the profile's backbones that are at hand, as far as that can be told without loading them."""
    for position, backbone in enumerate(bench.profile.backbones):
        beside = str(backbone.settings["name"]).startswith(DATA)
        if not beside or (bench.root is not None and Path(located(backbone, bench.root)).exists()):
            yield position


def missing(bench: Bench) -> list[str]:
    """A sentence about each data set and backbone of the profile that is not at hand."""
    there, usable = set(data_of(bench)), set(backbones_of(bench))
    data = [
        f"{DATA_SETS[name].title} is not at hand ({name}/train.parquet and test.parquet): left out."
        for name in bench.profile.data
        if name not in there
    ]
    backbones = [
        f"The backbone {backbone.name} is not at hand ({backbone.settings['name'].removeprefix(DATA)}): left out."
        for position, backbone in enumerate(bench.profile.backbones)
        if position not in usable
    ]
    return [*data, *backbones]


def test_accuracy(bench: Bench, cell: Cell, outcome: Outcome) -> float:
    """Accuracy on the test images of a cell's data."""
    return accuracy(outcome.test, bench.data(cell.data, cell.backbone).test_labels)
