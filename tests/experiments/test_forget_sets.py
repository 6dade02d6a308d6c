"""Forget sets are functions of the records, and each is what its name says."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.experiments.forget_sets import StudyRecords, forget_sets


def known(count: int = 20, *, subjects: bool = True) -> StudyRecords:
    """Two classes by parity, clusters of 2, 8 and the rest; the last record points away from its class."""
    ids = [f"r{number:02d}" for number in range(count)]
    labels = np.arange(count) % 2
    features = np.stack([1.0 - labels, labels, np.zeros(count)], axis=1).astype(np.float32)
    features[-1] = (0.0, 0.2, 1.0)
    clusters = {i: 0 if number < 2 else 1 if number < 10 else 2 for number, i in enumerate(ids)}
    who = {i: f"person {number // 3 if number < 12 else 99}" for number, i in enumerate(ids)} if subjects else {}
    return StudyRecords(ids, labels.astype(np.int64), who, features, ids[:10], clusters)


def test_each_set_is_what_its_name_says() -> None:
    given, sets = known(), forget_sets(known())
    labels = dict(zip(given.ids, given.labels.tolist(), strict=True))
    assert len(sets["random"]) == 2
    assert len(sets["class"]) == 10
    assert len({labels[i] for i in sets["class"]}) == 1
    assert sets["cluster"] == given.ids[2:10]  # of median size: 2, 8, 10
    assert sets["subject"] == given.ids[12:]  # eight records of one subject, three of the others
    assert len(sets["sampled"]) == 1
    assert sets["sampled"][0] in given.sample
    assert "r19" in sets["outliers"]


def test_without_subjects_there_is_no_such_set() -> None:
    assert "subject" not in forget_sets(known(subjects=False))


@given(st.integers(min_value=3, max_value=40), st.integers(min_value=0, max_value=5))
def test_sets_are_sorted_parts_of_the_records_and_the_same_every_time(count: int, seed: int) -> None:
    records = known(count)
    sets = forget_sets(records, seed=seed)
    assert sets == forget_sets(records, seed=seed)
    for ids in sets.values():
        assert ids == sorted(set(ids))
        assert set(ids) <= set(records.ids)


def test_another_seed_gives_another_random_set() -> None:
    assert forget_sets(known(), seed=0)["random"] != forget_sets(known(), seed=1)["random"]


@pytest.mark.parametrize("name", ["random", "class", "cluster", "subject", "sampled", "outliers"])
def test_no_set_is_empty(name: str) -> None:
    assert forget_sets(known(3))[name]
