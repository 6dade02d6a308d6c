"""What a study is: a name and a function from a bench to a result; and what several studies share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.experiments.bench import Bench
from lmeraser.experiments.cells import Cell, Outcome
from lmeraser.experiments.datasets import DATA_SETS, available
from lmeraser.experiments.results import Result


@dataclass(frozen=True)
class Study:
    """One experiment.

    Attributes:
        name: on the command line.
        title: of its part of the report.
        paper: which table or figure of the paper it stands beside.
        run: makes its result.
    """

    name: str
    title: str
    paper: str
    run: Callable[[Bench], Result]


def data_of(bench: Bench) -> Iterator[str]:
    """Names of the profile's data sets that are at hand."""
    for name in bench.profile.data:
        if available(DATA_SETS[name], bench.root):
            yield name


def missing(bench: Bench) -> list[str]:
    """A sentence about each data set of the profile that is not at hand."""
    there = set(data_of(bench))
    return [
        f"{DATA_SETS[name].title} is not at hand ({name}/train.parquet and test.parquet): left out."
        for name in bench.profile.data
        if name not in there
    ]


def accuracy(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    """Share of rows whose most probable class is the label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def test_accuracy(bench: Bench, cell: Cell, outcome: Outcome) -> float:
    """Accuracy on the test images of a cell's data."""
    return accuracy(outcome.test, bench.data(cell.data, cell.backbone).test_labels)
