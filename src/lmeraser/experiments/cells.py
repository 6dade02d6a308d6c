"""What experiments speak of: a training (`Cell`), the model it gave (`Outcome`), the records (`Data`).

Plain values. Knows nothing about workspaces or how models are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.seeding import order
from lmeraser.experiments.forget_sets import Known


@dataclass(frozen=True)
class Cell:
    """A training: which method on which records.

    Attributes:
        data: name of the data set.
        method: its name.
        seed: of all coins.
        backbone: position among the profile's.
        without: name of a forget set, whose records are left out; None: all records.
        half: number of a random half of the records that is used; None: all.
        settings: differences from the method's settings.
    """

    data: str
    method: str
    seed: int = 0
    backbone: int = 0
    without: str | None = None
    half: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def but(self, **changes: Any) -> Cell:
        """The same with differences."""
        return replace(self, **changes)


@dataclass(frozen=True)
class Outcome:
    """A model that was made, and how it answers.

    Attributes:
        facts: of the model: digest, clusters, sizes, parameters, bytes; and what making it took.
        arrays: ``probabilities`` of the private records, float32 [n, classes], and ``test_probabilities``.
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @property
    def private(self) -> NDArray[np.float32]:
        """Probabilities of all private records of the data set, float32 [n, classes], by their ids' order."""
        return self.arrays["probabilities"]

    @property
    def test(self) -> NDArray[np.float32]:
        """Probabilities of the test images, float32 [m, classes]."""
        return self.arrays["test_probabilities"]


@dataclass(frozen=True)
class Data:
    """The records of a data set as a study uses them.

    Attributes:
        known: ids, labels, and what forget sets are chosen by.
        test_labels: of the test images, int64 [m].
        sets: record ids of each forget set.
        classes: names.
    """

    known: Known
    test_labels: NDArray[np.int64]
    sets: Mapping[str, list[str]]
    classes: tuple[str, ...]

    def chosen(self, name: str) -> NDArray[np.bool_]:
        """Which of the records are in a forget set, bool [n]."""
        return np.isin(self.known.ids, self.sets[name])

    def half(self, half: int) -> NDArray[np.bool_]:
        """Which of the records are in one of their random halves, bool [n]."""
        return np.isin(self.known.ids, half_of(self.known.ids, half))


def half_of(ids: Sequence[str], half: int) -> list[str]:
    """A random half of the ids; 2 k + 1 is the complement of 2 k."""
    ordered = order(0, "half", ids, half // 2)
    middle = len(ordered) // 2
    return ordered[:middle] if half % 2 == 0 else ordered[middle:]
