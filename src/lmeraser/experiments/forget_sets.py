"""Which records a study unlearns: a random tenth, and sets that are not random, which are harder.

Every set is a pure function of the records, their classes, subjects, features and of one partition, so that all
methods forget the same records. Average cases alone overestimate what an approximate method forgets (Hayes et al.,
SaTML 2025). Knows nothing about methods.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lmeraser.core.seeding import order

_SHARE = 0.1  # of the records, for sets whose size is a choice


@dataclass(frozen=True)
class Known:
    """What forget sets are chosen by.

    Attributes:
        ids: of the private records, sorted.
        labels: class of each, int64 [n].
        subjects: what each shows, where it is known.
        features: of each, float32 [n, d].
        sample: records that shape the reference partition.
        clusters: of the reference partition, for each record.
    """

    ids: Sequence[str]
    labels: NDArray[np.int64]
    subjects: Mapping[str, str]
    features: NDArray[np.float32]
    sample: Sequence[str]
    clusters: Mapping[str, int]


def forget_sets(known: Known, *, seed: int = 0) -> dict[str, list[str]]:
    """Record ids of each set, sorted, by its name.

    ``random``: a tenth of the records. ``class``: all records of one class. ``cluster``: all records of the
    cluster of median size. ``subject``: all of the subject with most records, where subjects are known.
    ``sampled``: a tenth of the records that shape the partition. ``outliers``: the tenth farthest, in angle, from
    their class mean.
    """
    some = max(1, round(_SHARE * len(known.ids)))
    classes = sorted({str(label) for label in known.labels.tolist()})
    sets = {
        "random": order(seed, "forget", known.ids)[:some],
        "class": _of_class(known, int(order(seed, "forget class", classes)[0])),
        "cluster": _of_cluster(known),
        "sampled": order(seed, "forget sampled", known.sample)[: max(1, round(_SHARE * len(known.sample)))],
        "outliers": _outliers(known)[:some],
    }
    if known.subjects:
        (subject, _), *_ = sorted(Counter(known.subjects.values()).items(), key=lambda item: (-item[1], item[0]))
        sets["subject"] = [i for i in known.ids if known.subjects.get(i) == subject]
    return {name: sorted(ids) for name, ids in sets.items() if ids}


def _of_class(known: Known, label: int) -> list[str]:
    return [i for i, own in zip(known.ids, known.labels, strict=True) if own == label]


def _of_cluster(known: Known) -> list[str]:
    sizes = sorted(Counter(known.clusters.values()).items(), key=lambda item: (item[1], item[0]))
    middle = sizes[len(sizes) // 2][0]
    return [i for i in known.ids if known.clusters[i] == middle]


def _outliers(known: Known) -> list[str]:
    """Ids by their angle to the mean of their class, the largest first."""
    unit = known.features / np.linalg.norm(known.features, axis=1, keepdims=True)
    cosine = np.ones(len(unit))
    for label in np.unique(known.labels):
        mine = known.labels == label
        mean = unit[mine].mean(axis=0)
        cosine[mine] = unit[mine] @ (mean / np.linalg.norm(mean))
    return [known.ids[index] for index in np.argsort(cosine, kind="stable")]
