"""Forget sets of a study: a random tenth of the records, and structured sets, which are harder to forget.

Every set is a pure function of the records, their classes, subjects, features and one partition, so that all
methods forget the same records. Random sets alone overestimate how much an approximate method forgets (Hayes et
al., SaTML 2025).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.seeding import order

_SHARE = 0.1  # of the records, for sets whose size is free to choose


@dataclass(frozen=True)
class StudyRecords:
    """The private records of a study, with the attributes that forget sets are chosen by.

    Attributes:
        ids: record ids, sorted.
        labels: class of each record, int64 [n].
        subjects: subject of each record, where it is known.
        features: features of each record, float32 [n, d].
        sample: ids of the records that the reference partition was fitted on.
        clusters: cluster of each record in the reference partition.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    subjects: Mapping[str, str]
    features: NDArray[np.float32]
    sample: Sequence[str]
    clusters: Mapping[str, int]


def forget_sets(records: StudyRecords, *, seed: int = 0) -> dict[str, list[str]]:
    """The record ids of each forget set, sorted, by the name of the set.

    ``random``: a tenth of the records. ``class``: all records of one class. ``cluster``: all records of the
    cluster of median size. ``subject``: all records of the subject with the most records, where subjects are
    known. ``sampled``: a tenth of the records that the partition was fitted on. ``outliers``: the tenth
    farthest, in angle, from their class mean.
    """
    tenth = max(1, round(_SHARE * len(records.ids)))
    classes = sorted({str(label) for label in records.labels.tolist()})
    sets = {
        "random": order(seed, "forget", records.ids)[:tenth],
        "class": _of_class(records, int(order(seed, "forget class", classes)[0])),
        "cluster": _of_cluster(records),
        "sampled": order(seed, "forget sampled", records.sample)[: max(1, round(_SHARE * len(records.sample)))],
        "outliers": _outliers(records)[:tenth],
    }
    if records.subjects:
        (subject, _), *_ = sorted(Counter(records.subjects.values()).items(), key=lambda item: (-item[1], item[0]))
        sets["subject"] = [i for i in records.ids if records.subjects.get(i) == subject]
    return {name: sorted(ids) for name, ids in sets.items() if ids}


def _of_class(records: StudyRecords, label: int) -> list[str]:
    return [i for i, record_label in zip(records.ids, records.labels, strict=True) if record_label == label]


def _of_cluster(records: StudyRecords) -> list[str]:
    sizes = sorted(Counter(records.clusters.values()).items(), key=lambda item: (item[1], item[0]))
    middle = sizes[len(sizes) // 2][0]
    return [i for i in records.ids if records.clusters[i] == middle]


def _outliers(records: StudyRecords) -> list[str]:
    """Record ids sorted by the angle to their class mean, largest first."""
    unit = records.features / np.linalg.norm(records.features, axis=1, keepdims=True)
    cosine = np.ones(len(unit))
    for label in np.unique(records.labels):
        of_class = records.labels == label
        mean = unit[of_class].mean(axis=0)
        cosine[of_class] = unit[of_class] @ (mean / np.linalg.norm(mean))
    return [records.ids[index] for index in np.argsort(cosine, kind="stable")]
