"""A stage that does not depend on a record is not run again: counted, with an executor that computes digests only.

The oracle here is exhaustive where the real backbone is slow: long random histories, every partition.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fake import Fake
from lmeraser.config import Config, parse
from lmeraser.derive import Derivation, Inputs, Tools, derive
from lmeraser.executors.base import Executor, Vector
from lmeraser.hashing import Digest
from lmeraser.memory import CountsAnew
from lmeraser.partitions import partition_of
from lmeraser.records import RecordRef
from lmeraser.store import MemoryStore
from lmeraser.sums import stack


class Memory:
    """What is remembered of single records, in dictionaries."""

    def __init__(self) -> None:
        self.vectors: dict[tuple[str, str], Vector] = {}
        self.known: dict[tuple[str, str], str] = {}

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, Vector]:
        return {i: self.vectors[key, i] for i in ids if (key, i) in self.vectors}

    def store_features(self, vectors: Mapping[str, Vector], *, key: str) -> None:
        self.vectors |= {(key, i): vector for i, vector in vectors.items()}

    def places(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        return {i: place for (key, i), place in self.known.items() if key == partition}

    def store_places(self, places: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        self.known |= {(partition, i): place for i, place in places.items()}

    def forget(self, record_id: str) -> None:
        self.vectors = {key: value for key, value in self.vectors.items() if key[1] != record_id}
        self.known = {key: value for key, value in self.known.items() if key[1] != record_id}


class Counts(CountsAnew):
    """Sums that a record can be subtracted from, as the workspace's can."""

    def forget(self, record_id: str, label: int) -> None:
        if record_id in self._codes:
            assert self._sums is not None
            self._sums = self._sums.plus(stack([self._codes.pop(record_id)]), [label], sign=-1)


@dataclass
class World:
    """Records that a test edits, and everything F needs beside them."""

    config: Config
    labels: dict[str, int] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    classes: int = 3
    secret: bytes = b"secret"

    def __post_init__(self) -> None:
        self.store, self.memory, self.executor = MemoryStore(), Memory(), Fake()
        self.counts = Counts()

    def add(self, *ids: str) -> World:
        for record_id in ids:
            self.labels[record_id] = len(record_id) % self.classes
            self.images[record_id] = f"image of {record_id}".encode()
        return self

    def delete(self, *ids: str) -> World:
        for record_id in ids:
            self.counts.forget(record_id, self.labels.pop(record_id))
            del self.images[record_id]
            self.memory.forget(record_id)
        return self

    def inputs(self) -> Inputs:
        records = [RecordRef(i, self.labels[i], Digest.of(self.images[i])) for i in sorted(self.labels)]
        return Inputs(records, self.config, self.classes, self.executor.backbone)

    def derive(self, **changes: Any) -> Derivation:
        def executor() -> Executor:
            return self.executor

        def fetch(ids: Sequence[str]) -> list[bytes]:
            return [self.images[record_id] for record_id in ids]

        tools = Tools(self.store, self.memory, self.counts, executor, fetch, self.secret)
        return derive(self.inputs(), replace(tools, **changes))

    def sample(self) -> list[str]:
        return partition_of(self.config).sample(sorted(self.labels))

    def fresh(self) -> World:
        """The same records with nothing remembered, under another secret."""
        other = World(self.config, dict(self.labels), dict(self.images), self.classes, b"another secret")
        assert other.store is not self.store
        return other


def world(count: int = 30, **partition: Any) -> World:
    chosen = partition or {"sample_size": 10, "clusters": 4}
    return World(parse({"partition": chosen})).add(*(f"r{number:02d}" for number in range(count)))


def artifacts(derivation: Derivation) -> tuple[Any, ...]:
    clusters = [
        (cluster.number, cluster.records, cluster.constituent and cluster.constituent.artifact)
        for cluster in derivation.clusters
    ]
    return derivation.partition.artifact, tuple(clusters)


def outside_sample(known: World) -> str:
    return next(i for i in sorted(known.labels) if i not in known.sample())


def test_the_first_derivation_runs_every_stage_once() -> None:
    known = world()
    derivation = known.derive()
    assert derivation.ran == {"embedded": 30, "fitted": 1, "assigned": 20, "tuned": 4, "tuned_records": 30}
    assert sorted(known.executor.embedded) == sorted(known.labels)
    assert sorted(i for ids in known.executor.tuned for i in ids) == sorted(known.labels)


def test_deriving_again_runs_nothing() -> None:
    known = world()
    first = known.derive()
    known.executor = Fake()
    again = known.derive()
    assert again.ran == {"assigned": 0, "tuned": 0, "tuned_records": 0}
    assert (known.executor.embedded, known.executor.tuned) == ([], [])
    assert artifacts(again) == artifacts(first)


def test_an_unsampled_record_touches_its_cluster_and_nothing_else() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    gone = outside_sample(known)
    derivation = known.delete(gone).derive()
    assert derivation.ran["tuned"] == 1
    assert derivation.ran["assigned"] == 0
    assert "embedded" not in derivation.ran
    assert "fitted" not in derivation.ran
    assert len(known.executor.tuned) == 1
    assert artifacts(derivation) == artifacts(known.fresh().derive())


def test_a_sampled_record_tunes_exactly_the_clusters_whose_members_changed() -> None:
    known = world()
    known.derive()
    before = {frozenset(ids) for ids in known.executor.tuned}
    for gone in known.sample()[:4]:
        known.executor = Fake()
        derivation = known.delete(gone).derive()
        fresh = known.fresh()
        assert artifacts(derivation) == artifacts(fresh.derive())
        after = {frozenset(ids) for ids in fresh.executor.tuned}
        assert {frozenset(ids) for ids in known.executor.tuned} == after - before
        assert derivation.ran["fitted"] == 1
        assert "embedded" not in derivation.ran
        before |= after


def test_an_added_record_is_the_only_one_that_is_embedded() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    derivation = known.add("new").derive()
    assert known.executor.embedded == ["new"]
    assert artifacts(derivation) == artifacts(known.fresh().derive())


def test_a_corrected_label_tunes_one_cluster() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    known.labels["r07"] = (known.labels["r07"] + 1) % 3
    derivation = known.derive()
    assert derivation.ran == {"assigned": 0, "tuned": 1, "tuned_records": derivation.ran["tuned_records"]}
    assert any("r07" in ids for ids in known.executor.tuned)


@pytest.mark.parametrize(
    ("change", "reruns"),
    [
        ({"tuning": {"epochs": 3}}, {"tuned"}),
        ({"prompt": {"width": 2}}, {"tuned"}),
        ({"head": {"normalize": "none"}}, {"tuned"}),
        ({"partition": {"sample_size": 10, "clusters": 3}}, {"fitted", "assigned", "tuned"}),
        ({"partition": {"sample_size": 10, "clusters": 4, "linkage": "average"}}, {"fitted", "assigned"}),
        ({"backbone": {"image_size": 64}}, {"embedded", "fitted", "assigned", "tuned"}),
        ({"seed": 1}, {"fitted", "assigned", "tuned"}),
        ({"compute": {"workers": 5}}, set()),
    ],
)
def test_a_setting_reruns_the_stages_that_read_it(change: dict[str, Any], reruns: set[str]) -> None:
    known = world()
    known.derive()
    known.config = parse({"partition": {"sample_size": 10, "clusters": 4}, **change})
    ran = known.derive().ran
    assert reruns <= {stage for stage, count in ran.items() if count}
    if "embedded" not in reruns:
        assert "embedded" not in ran
    if "fitted" not in reruns:
        assert "fitted" not in ran


def test_another_number_of_classes_tunes_every_cluster() -> None:
    known = world()
    first = known.derive()
    known.classes = 4
    assert known.derive().ran["tuned"] == len(first.clusters)


def test_an_interrupted_derivation_continues_with_the_rest() -> None:
    known = world()
    known.executor = Fake(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        known.derive()
    done = known.executor.tuned
    known.executor = Fake()
    derivation = known.derive()
    assert known.executor.embedded == []
    assert not set(done) & set(known.executor.tuned)
    assert artifacts(derivation) == artifacts(known.fresh().derive())


def test_results_of_another_environment_are_kept_unless_asked() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    known.executor.fingerprint = Digest.of(b"upgraded")
    assert known.derive().ran["tuned"] == 0
    again = known.derive(rederive=True)
    assert again.ran["tuned"] == 4
    assert again.ran["fitted"] == 1
    assert {c.constituent.fingerprint for c in again.clusters if c.constituent} == {Digest.of(b"upgraded")}


def test_keys_depend_on_the_secret_and_artifacts_do_not() -> None:
    known = world()
    ours, theirs = known.derive(), known.fresh().derive()
    assert artifacts(ours) == artifacts(theirs)
    assert ours.partition.key != theirs.partition.key
    mine, others = ({c.constituent.key for c in d.clusters if c.constituent} for d in (ours, theirs))
    assert len(mine) == len(ours.clusters)
    assert mine.isdisjoint(others)


def test_no_records_are_an_empty_model() -> None:
    derivation = World(parse({})).derive()
    assert derivation.clusters == ()


_PARTITIONS: list[dict[str, Any]] = [
    {"sample_size": 5, "clusters": 3},
    {"sample_size": 50, "clusters": 4, "linkage": "complete"},
    {"sample_size": 6, "threshold": 3.0, "metric": "euclidean", "linkage": "average"},
    {"method": "random", "clusters": 4},
    {"method": "single"},
    {"method": "class_tree", "max_records": 4},
    {"sample_size": 8, "clusters": 3, "max_records": 5},
    {"fitted": "public", "clusters": 4},
]
_IDS = st.integers(0, 24).map(lambda number: f"r{number:02d}")


@given(
    partition=st.sampled_from(_PARTITIONS),
    history=st.lists(st.tuples(st.booleans(), st.sets(_IDS, min_size=1, max_size=8)), min_size=1, max_size=8),
)
@settings(max_examples=150, deadline=None)
def test_any_history_gives_what_deriving_once_gives(
    partition: dict[str, Any], history: list[tuple[bool, set[str]]]
) -> None:
    known = world(12, **partition)
    known.derive()
    for adding, ids in history:
        if adding:
            known.add(*(ids - known.labels.keys()))
        else:
            known.delete(*(ids & known.labels.keys()))
        assert artifacts(known.derive()) == artifacts(known.fresh().derive())
