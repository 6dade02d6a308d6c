"""Value types of the experiments: a training (`Trial`), its result (`StepResult`), the data of a study.

Plain values; must not depend on workspaces or on how models are derived.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.seeding import order
from lmeraser.experiments.forget_sets import StudyRecords


@dataclass(frozen=True)
class Trial:
    """One training: a method on a set of records. Field names are part of the keys of cached steps.

    Attributes:
        data: name of the data set.
        method: name of the method.
        seed: seed of all randomness.
        backbone: index into the profile's backbones.
        without: name of the forget set whose records are left out; None: train on all records.
        half: number of the random half of the records to train on; None: train on all records.
        settings: settings that differ from the method's.
    """

    data: str
    method: str
    seed: int = 0
    backbone: int = 0
    without: str | None = None
    half: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)

    def vary(self, **changes: Any) -> Trial:
        """Copy this trial with some attributes changed."""
        return replace(self, **changes)


@dataclass(frozen=True)
class StepResult:
    """What a step produced: facts about a model, and its predictions.

    Attributes:
        facts: digest, clusters, sizes, parameters and bytes of the model, and the resources that deriving it took.
        arrays: ``probabilities`` of the private records, float32 [n, classes], and ``test_probabilities`` of the
            test records, float32 [m, classes].
    """

    facts: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    @property
    def private(self) -> NDArray[np.float32]:
        """Probabilities of all private records of the data set, float32 [n, classes], ordered by record id."""
        return self.arrays["probabilities"]

    @property
    def test(self) -> NDArray[np.float32]:
        """Probabilities of the test records, float32 [m, classes]."""
        return self.arrays["test_probabilities"]


@dataclass(frozen=True)
class StudyData:
    """The data of a study: private records, test labels and forget sets.

    Attributes:
        records: private records with the attributes that forget sets are chosen by.
        test_labels: labels of the test records, int64 [m].
        test_features: features of the test records, float32 [m, d].
        sets: record ids of each forget set, by its name.
        classes: class names.
    """

    records: StudyRecords
    test_labels: NDArray[np.int64]
    test_features: NDArray[np.float32]
    sets: Mapping[str, list[str]]
    classes: tuple[str, ...]

    def in_forget_set(self, name: str) -> NDArray[np.bool_]:
        """Mask of the records in a forget set, bool [n]."""
        return np.isin(self.records.ids, self.sets[name])

    def in_half(self, half: int) -> NDArray[np.bool_]:
        """Mask of the records in a random half, bool [n]."""
        return np.isin(self.records.ids, half_of(self.records.ids, half))


def half_of(ids: Sequence[str], half: int) -> list[str]:
    """A random half of the ids; half 2 k + 1 is the complement of half 2 k."""
    ordered = order(0, "half", ids, half // 2)
    middle = len(ordered) // 2
    return ordered[:middle] if half % 2 == 0 else ordered[middle:]
