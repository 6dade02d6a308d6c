"""A stage that does not depend on a record is not run again: counted, with an executor that computes digests only.

The oracle here is exhaustive where the real backbone is slow: long random histories, every partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import examples
from fake import Fake
from lmeraser.config.schema import Config, parse
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.core.sufficient_statistics import stack_quantized
from lmeraser.core.tensors import from_bytes
from lmeraser.data.references import RecordRef
from lmeraser.errors import CorruptError
from lmeraser.models.partitions import partition_of
from lmeraser.pipeline import derive
from lmeraser.pipeline.caches import InMemoryStatistics
from lmeraser.pipeline.derive import Derivation, Inputs, Pipeline, PipelineContext, in_batches
from lmeraser.pipeline.executors.base import Executor, TuneResult, Vector
from lmeraser.storage.artifacts import MemoryStore


class FeatureCache:
    """Features and trie keys of single records, in dictionaries."""

    def __init__(self) -> None:
        self.vectors: dict[tuple[str, str], Vector] = {}
        self.known: dict[tuple[str, str], str] = {}

    def features(self, ids: Sequence[str], *, key: str) -> dict[str, Vector]:
        return {i: self.vectors[key, i] for i in ids if (key, i) in self.vectors}

    def store_features(self, vectors: Mapping[str, Vector], *, key: str) -> None:
        self.vectors |= {(key, i): vector for i, vector in vectors.items()}

    def trie_keys(self, partition: Digest, ids: Sequence[str] | None = None) -> dict[str, str]:
        return {i: trie_key for (key, i), trie_key in self.known.items() if key == partition}

    def store_trie_keys(self, trie_keys: Mapping[str, str], *, partition: Digest, sampled: bool = False) -> None:
        self.known |= {(partition, i): trie_key for i, trie_key in trie_keys.items()}

    def forget(self, record_id: str) -> None:
        self.vectors = {key: value for key, value in self.vectors.items() if key[1] != record_id}
        self.known = {key: value for key, value in self.known.items() if key[1] != record_id}


class Statistics(InMemoryStatistics):
    """Statistics that a record can be subtracted from, as the workspace's can."""

    def forget(self, record_id: str, label: int) -> None:
        if record_id in self._embeddings:
            assert self._statistics is not None
            self._statistics = self._statistics.plus(
                stack_quantized([self._embeddings.pop(record_id)]), [label], sign=-1
            )


@dataclass
class World:
    """Records that a test edits, and everything else that the pipeline needs."""

    config: Config
    labels: dict[str, int] = field(default_factory=dict)
    images: dict[str, bytes] = field(default_factory=dict)
    classes: int = 3
    secret: bytes = b"secret"

    def __post_init__(self) -> None:
        self.store = MemoryStore()
        self.cache = FeatureCache()
        self.executor = Fake()
        self.statistics = Statistics()

    def add(self, *ids: str) -> World:
        for record_id in ids:
            self.labels[record_id] = len(record_id) % self.classes
            self.images[record_id] = f"image of {record_id}".encode()
        return self

    def delete(self, *ids: str) -> World:
        for record_id in ids:
            self.statistics.forget(record_id, self.labels.pop(record_id))
            del self.images[record_id]
            self.cache.forget(record_id)
        return self

    def number(self, record_id: str) -> int:
        """A record's place in the store; that of another world is another one."""
        return int(Digest.of(self.secret, record_id.encode()).hex[:8], 16)

    def inputs(self) -> Inputs:
        records = [
            RecordRef(i, self.labels[i], Digest.of(self.images[i]), self.number(i)) for i in sorted(self.labels)
        ]
        return Inputs(records, self.config, self.classes, self.executor.backbone)

    def derive(self, **changes: Any) -> Derivation:
        def executor() -> Executor:
            return self.executor

        def fetch(ids: Sequence[str]) -> list[bytes]:
            return [self.images[record_id] for record_id in ids]

        context = PipelineContext(self.store, self.cache, self.statistics, executor, fetch, self.secret)
        return Pipeline(self.inputs(), replace(context, **changes)).derive()

    def sample(self) -> list[str]:
        return partition_of(self.config).sample(sorted(self.labels))

    def with_empty_caches(self) -> World:
        """The same records with empty caches, under another secret."""
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
    assert derivation.stage_counts == {
        "embedded": 30,
        "fitted": 1,
        "assigned": 20,
        "tuned": 4,
        "tuned_records": 30,
    }
    assert sorted(known.executor.embedded) == sorted(known.labels)
    assert sorted(i for ids in known.executor.tuned for i in ids) == sorted(known.labels)


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_records_are_read_in_the_order_in_which_they_are_stored(weight: float) -> None:
    settings = {"partition": {"sample_size": 2, "clusters": 1}, "global_head": {"weight": weight}}
    known = World(parse(settings)).add(*(f"r{number:02d}" for number in range(30)))
    known.derive()
    sample = known.sample() if weight == 0 else []  # it is read before all others, in the order of its draw
    embedded = [record_id for record_id in known.executor.embedded if record_id not in sample]
    assert embedded == sorted(known.labels.keys() - set(sample), key=known.number)


def test_deriving_again_runs_nothing() -> None:
    known = world()
    first = known.derive()
    known.executor = Fake()
    again = known.derive()
    assert again.stage_counts == {"assigned": 0, "tuned": 0, "tuned_records": 0}
    assert (known.executor.embedded, known.executor.tuned) == ([], [])
    assert artifacts(again) == artifacts(first)


def test_an_unsampled_record_touches_its_cluster_and_nothing_else() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    gone = outside_sample(known)
    derivation = known.delete(gone).derive()
    assert derivation.stage_counts["tuned"] == 1
    assert derivation.stage_counts["assigned"] == 0
    assert "embedded" not in derivation.stage_counts
    assert "fitted" not in derivation.stage_counts
    assert len(known.executor.tuned) == 1
    assert artifacts(derivation) == artifacts(known.with_empty_caches().derive())


def test_a_sampled_record_tunes_exactly_the_clusters_whose_members_changed() -> None:
    known = world()
    known.derive()
    before = {frozenset(ids) for ids in known.executor.tuned}
    for gone in known.sample()[:4]:
        known.executor = Fake()
        derivation = known.delete(gone).derive()
        other = known.with_empty_caches()
        assert artifacts(derivation) == artifacts(other.derive())
        after = {frozenset(ids) for ids in other.executor.tuned}
        assert {frozenset(ids) for ids in known.executor.tuned} == after - before
        assert derivation.stage_counts["fitted"] == 1
        assert "embedded" not in derivation.stage_counts
        before |= after


def test_an_added_record_is_the_only_one_that_is_embedded() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    derivation = known.add("new").derive()
    assert known.executor.embedded == ["new"]
    assert artifacts(derivation) == artifacts(known.with_empty_caches().derive())


def test_a_corrected_label_tunes_one_cluster() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    known.labels["r07"] = (known.labels["r07"] + 1) % 3
    derivation = known.derive()
    assert derivation.stage_counts == {
        "assigned": 0,
        "tuned": 1,
        "tuned_records": derivation.stage_counts["tuned_records"],
    }
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
    stage_counts = known.derive().stage_counts
    assert reruns <= {stage for stage, count in stage_counts.items() if count}
    if "embedded" not in reruns:
        assert "embedded" not in stage_counts
    if "fitted" not in reruns:
        assert "fitted" not in stage_counts


def test_another_number_of_classes_tunes_every_cluster() -> None:
    known = world()
    first = known.derive()
    known.classes = 4
    assert known.derive().stage_counts["tuned"] == len(first.clusters)


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
    assert artifacts(derivation) == artifacts(known.with_empty_caches().derive())


def test_results_of_another_environment_are_kept_unless_asked() -> None:
    known = world()
    known.derive()
    known.executor = Fake()
    known.executor.fingerprint = Digest.of(b"upgraded")
    assert known.derive().stage_counts["tuned"] == 0
    again = known.derive(rederive=True)
    assert again.stage_counts["tuned"] == 4
    assert again.stage_counts["fitted"] == 1
    assert {c.constituent.fingerprint for c in again.clusters if c.constituent} == {Digest.of(b"upgraded")}


def test_keys_depend_on_the_secret_and_artifacts_do_not() -> None:
    known = world()
    ours, theirs = known.derive(), known.with_empty_caches().derive()
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
@settings(examples(fast=50, explore=150))
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
        assert artifacts(known.derive()) == artifacts(known.with_empty_caches().derive())


# --- statistics and the global head -------------------------------------------------------------------------


class KeyedCounts(Statistics):
    """Counts that start anew under another key, as the workspace's do."""

    def __init__(self) -> None:
        super().__init__()
        self._key = ""

    def ids(self, *, key: str) -> set[str]:
        return super().ids(key=key) if key == self._key else set()

    def include(self, embeddings: Mapping[str, Any], labels: Sequence[int], classes: int, *, key: str) -> None:
        if key != self._key:
            self._embeddings, self._statistics, self._key = {}, None, key
        super().include(embeddings, labels, classes, key=key)


class Mixed(World):
    """A world whose records are of every class, and whose labels may be corrected."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.statistics = KeyedCounts()

    def add(self, *ids: str) -> World:
        super().add(*ids)
        self.labels |= {record_id: int(record_id[1:]) % 3 for record_id in ids}
        return self

    def correct(self, *ids: str) -> World:
        for record_id in ids:
            self.statistics.forget(record_id, self.labels[record_id])
            self.labels[record_id] = (self.labels[record_id] + 1) % 3
        return self


_MODES: dict[str, dict[str, Any]] = {
    "prompts and global head": {"global_head": {"weight": 0.5}, "embedding": {"views": ["clean", "far"]}},
    "heads": {"constituent": {"kind": "head"}, "embedding": {"views": ["clean", "far"]}},
    "heads and global head": {
        "constituent": {"kind": "head"},
        "embedding": {"views": ["far", "mirror"]},
        "global_head": {"weight": 0.25, "penalty": 3.0},
    },
    "instant": {"global_head": {"weight": 1.0}, "constituent": {"kind": "none"}},
}
_NOTHING = {"assigned": 0, "tuned": 0, "tuned_records": 0}


def settings_of(mode: str, **changes: dict[str, Any]) -> Config:
    partition = {"method": "single"} if mode == "instant" else {"sample_size": 10, "clusters": 4}
    base: dict[str, Any] = {"partition": partition, **_MODES[mode]}
    return parse({**base, **{section: {**base.get(section, {}), **new} for section, new in changes.items()}})


def mixed(mode: str, count: int = 30, **changes: dict[str, Any]) -> Mixed:
    known = Mixed(settings_of(mode, **changes))
    known.add(*(f"r{number:02d}" for number in range(count)))
    return known


def everything(derivation: Derivation) -> tuple[Any, ...]:
    checkpoints = tuple(result.artifact for cluster in derivation.clusters for result in cluster.checkpoints)
    return derivation.global_head and derivation.global_head.artifact, *artifacts(derivation), checkpoints


_modes = pytest.mark.parametrize("mode", _MODES)
_global_modes = pytest.mark.parametrize("mode", [mode for mode in _MODES if "global_head" in _MODES[mode]])


@_modes
def test_the_first_derivation_counts_every_record_and_solves_once(mode: str) -> None:
    known = mixed(mode)
    derivation = known.derive()
    assert derivation.stage_counts["counted"] == 30
    assert derivation.stage_counts.get("solved", 0) == (1 if "global_head" in _MODES[mode] else 0)
    assert (derivation.global_head is not None) == ("global_head" in _MODES[mode])
    if "clean" in known.config.embedding.views:
        assert sorted(known.executor.embedded) == sorted(known.labels), "each image is embedded once, for both"
    known.executor = Fake()
    again = known.derive()
    assert again.stage_counts == _NOTHING
    assert (known.executor.embedded, known.executor.tuned) == ([], [])
    assert everything(again) == everything(derivation)


def test_without_a_part_that_needs_codes_nothing_is_counted() -> None:
    known = world()
    assert known.derive().global_head is None
    assert known.statistics.current() is None


def test_the_global_head_is_the_linear_discriminant_analysis_of_the_records_codes() -> None:
    known = mixed("prompts and global head", global_head={"penalty": 5.0})
    head, by_class = known.derive().global_head, [np.zeros((0, 6))] * 3
    assert head is not None
    for record_id, label in known.labels.items():
        by_class[label] = np.vstack([by_class[label], code_of(known, record_id)])
    means = [embeddings.mean(axis=0) for embeddings in by_class]
    scatter = sum(
        (embeddings - mean).T @ (embeddings - mean) for embeddings, mean in zip(by_class, means, strict=True)
    )
    inverse = 30 * np.linalg.inv(scatter + (5 * np.trace(scatter) / 30 + 1) * np.eye(6))
    shares = [len(embeddings) / 30 for embeddings in by_class]
    expected = [
        [*(inverse @ mean), np.log(share) - mean @ inverse @ mean / 2]
        for mean, share in zip(means, shares, strict=True)
    ]
    found = from_bytes(known.store.read(head.artifact))["weight"]
    trust = 10 / (10 + 50)  # ten records per class
    np.testing.assert_allclose(found, np.array(expected) * trust, rtol=1e-4, atol=1e-4)


def code_of(known: World, record_id: str) -> Any:
    """What heads see of a record under the views clean and far, without the constant: by hand, in float64."""
    stream = Fake().embed([record_id], lambda ids: [known.images[i] for i in ids], silent, ["clean", "far"])
    views = dict(stream)[record_id].reshape(2, 6).astype(np.float64)
    mean = (views / np.sqrt(np.square(views).mean(axis=1, keepdims=True))).mean(axis=0)
    return np.rint(mean / np.sqrt(np.square(mean).mean()) * 1024) / 1024


@_modes
def test_an_ordinary_deletion_embeds_and_counts_nothing(mode: str) -> None:
    known = mixed(mode)
    first = known.derive()
    known.executor = Fake()
    derivation = known.delete(outside_sample(known)).derive()
    assert known.executor.embedded == []
    assert "counted" not in derivation.stage_counts
    assert "embedded" not in derivation.stage_counts
    assert "fitted" not in derivation.stage_counts
    assert derivation.stage_counts["assigned"] == 0
    assert derivation.stage_counts.get("solved", 0) == (1 if "global_head" in _MODES[mode] else 0)
    assert derivation.stage_counts["tuned"] == len(known.executor.tuned) == (0 if mode == "instant" else 1)
    assert everything(derivation) == everything(known.with_empty_caches().derive())
    assert everything(derivation) != everything(first)


@_modes
def test_a_deletion_from_the_sample_embeds_and_counts_nothing(mode: str) -> None:
    known = mixed(mode)
    known.derive()
    known.executor = Fake()
    gone = known.sample()[:2] or ["r03", "r04"]
    derivation = known.delete(*gone).derive()
    assert known.executor.embedded == []
    assert "counted" not in derivation.stage_counts
    assert everything(derivation) == everything(known.with_empty_caches().derive())


@_modes
def test_an_added_record_is_the_only_one_that_is_counted(mode: str) -> None:
    known = mixed(mode)
    known.derive()
    known.executor = Fake()
    derivation = known.add("r77").derive()
    assert derivation.stage_counts["counted"] == 1
    assert set(known.executor.embedded) == {"r77"}
    assert everything(derivation) == everything(known.with_empty_caches().derive())


@_modes
def test_a_corrected_label_is_counted_anew(mode: str) -> None:
    known = mixed(mode)
    known.derive()
    known.executor = Fake()
    derivation = known.correct("r07").derive()
    assert derivation.stage_counts["counted"] == 1
    assert known.executor.embedded == ["r07"]
    assert everything(derivation) == everything(known.with_empty_caches().derive())


@pytest.mark.parametrize("change", [{"penalty": 77.0}, {"score": "cosine"}, {"score": "blend"}])
@_global_modes
def test_another_penalty_or_score_solves_again_and_tunes_nothing(mode: str, change: dict[str, Any]) -> None:
    known = mixed(mode)
    first = known.derive()
    known.executor, known.config = Fake(), settings_of(mode, global_head=change)
    derivation = known.derive()
    assert derivation.stage_counts == {**_NOTHING, "solved": 1}
    assert (known.executor.embedded, known.executor.tuned) == ([], [])
    assert artifacts(derivation) == artifacts(first)
    assert everything(derivation) != everything(first)
    assert everything(derivation) == everything(known.with_empty_caches().derive())


@pytest.mark.parametrize(
    ("mode", "change"),
    [
        ("prompts and global head", {"weight": 0.75}),
        ("heads and global head", {"weight": 0.75}),
        *((mode, {"sharpness": 2.0}) for mode in _MODES if "global_head" in _MODES[mode]),
    ],
)
def test_another_weight_or_sharpness_runs_nothing(mode: str, change: dict[str, Any]) -> None:
    known = mixed(mode)
    first = known.derive()
    known.executor, known.config = Fake(), settings_of(mode, global_head=change)
    derivation = known.derive()
    assert derivation.stage_counts == _NOTHING
    assert (known.executor.embedded, known.executor.tuned) == ([], [])
    assert everything(derivation) == everything(first)


@_modes
def test_other_views_count_anew_and_tune_what_is_tuned_on_codes(mode: str) -> None:
    known = mixed(mode)
    first = known.derive()
    known.executor, known.config = Fake(), settings_of(mode, embedding={"views": ["near", "clean"]})
    derivation = known.derive()
    assert derivation.stage_counts["counted"] == 30
    assert "fitted" not in derivation.stage_counts
    assert "embedded" not in derivation.stage_counts
    assert derivation.stage_counts["assigned"] == 0
    heads = known.config.constituent.kind == "head"
    assert derivation.stage_counts["tuned"] == len(known.executor.tuned) == (len(first.clusters) if heads else 0)
    assert derivation.stage_counts.get("solved", 0) == (1 if "global_head" in _MODES[mode] else 0)
    assert everything(derivation) == everything(known.with_empty_caches().derive())
    assert everything(derivation) != everything(first)


def test_a_global_head_may_come_and_go_and_leaves_the_constituents_alone() -> None:
    known = world()
    known.statistics = KeyedCounts()
    without = known.derive()
    known.executor, known.config = Fake(), settings_of("prompts and global head")
    both = known.derive()
    assert both.stage_counts == {**_NOTHING, "counted": 30, "solved": 1}
    assert artifacts(both) == artifacts(without)
    known.config = settings_of("prompts and global head", global_head={"weight": 0.0})
    assert everything(known.derive()) == everything(without)


@_modes
def test_no_records_have_no_global_head(mode: str) -> None:
    derivation = mixed(mode, count=0).derive()
    assert derivation.global_head is None
    assert derivation.clusters == ()
    assert derivation.stage_counts == {**_NOTHING, "fitted": 1}


@_modes
def test_all_records_may_go_and_come_back(mode: str) -> None:
    known = mixed(mode)
    first, names = known.derive(), sorted(known.labels)
    assert everything(known.delete(*names).derive()) == everything(known.with_empty_caches().derive())
    assert known.derive().global_head is None
    known.executor = Fake()
    again = known.add(*reversed(names)).derive()
    assert again.stage_counts["counted"] == 30
    assert "solved" not in again.stage_counts, "the statistics are the first ones, to the bit"
    assert everything(again) == everything(first)


@_modes
def test_one_record_is_enough(mode: str) -> None:
    known = mixed(mode, count=3)
    known.derive()
    derivation = known.delete("r00", "r02").derive()
    assert [cluster.records for cluster in derivation.clusters] == [1]
    assert everything(derivation) == everything(known.with_empty_caches().derive())


@_global_modes
def test_a_class_added_to_the_list_counts_nothing_again(mode: str) -> None:
    known = mixed(mode)
    known.derive()
    known.executor, known.classes = Fake(), 4
    derivation = known.derive()
    assert "counted" not in derivation.stage_counts
    assert derivation.stage_counts["solved"] == 1
    assert everything(derivation) == everything(known.with_empty_caches().derive())


@_global_modes
@pytest.mark.parametrize("damage", ["a record too many", "a record too few", "another class"])
def test_sums_that_are_not_those_of_the_records_are_refused(mode: str, damage: str) -> None:
    known = mixed(mode)
    known.derive()
    if damage == "a record too many":
        del known.labels["r05"], known.images["r05"]
    elif damage == "another class":
        known.labels["r05"] = (known.labels["r05"] + 1) % 3
    else:
        statistics = known.statistics.current()
        assert statistics is not None
        known.statistics._statistics = statistics.plus(
            stack_quantized(known.statistics.quantized_embeddings(["r05"])), [known.labels["r05"]], sign=-1
        )
    with pytest.raises(CorruptError, match="--rederive"):
        known.derive()


def test_in_another_environment_codes_are_counted_anew_and_the_same_sums_keep_their_head_unless_asked() -> None:
    known = mixed("instant")
    first = known.derive()
    known.executor = Fake()
    known.executor.fingerprint = Digest.of(b"upgraded")
    kept, again = known.derive(), known.derive(rederive=True)
    assert kept.stage_counts == {**_NOTHING, "counted": 30}
    assert again.stage_counts == {**_NOTHING, "fitted": 1, "solved": 1}
    assert kept.global_head == first.global_head
    assert again.global_head is not None
    assert again.global_head.fingerprint == Digest.of(b"upgraded")


def test_the_key_of_a_global_head_depends_on_the_secret() -> None:
    known = mixed("instant")
    ours, theirs = known.derive().global_head, known.with_empty_caches().derive().global_head
    assert ours is not None
    assert theirs is not None
    assert ours.artifact == theirs.artifact
    assert ours.key != theirs.key


def test_an_interrupted_derivation_with_heads_counts_nothing_twice() -> None:
    known = mixed("heads and global head")
    known.executor = Fake(stop_after=2)
    with pytest.raises(KeyboardInterrupt):
        known.derive()
    done = known.executor.tuned
    known.executor = Fake()
    derivation = known.derive()
    assert known.executor.embedded == []
    assert not set(done) & set(known.executor.tuned)
    assert everything(derivation) == everything(known.with_empty_caches().derive())


_CHANGES = st.sampled_from(["add", "delete", "correct"])
_SLICED = {f"{mode}, in slices": {**_MODES[mode], "tuning": {"slices": 3}} for mode in _MODES if mode != "instant"}


@given(
    mode=st.sampled_from([*_MODES, *_SLICED]),
    partition=st.sampled_from(_PARTITIONS),
    history=st.lists(st.tuples(_CHANGES, st.sets(_IDS, min_size=1, max_size=8)), min_size=1, max_size=8),
)
@settings(examples(fast=20, explore=60))
def test_any_history_gives_the_codes_and_the_global_head_of_deriving_once(
    mode: str, partition: dict[str, Any], history: list[tuple[str, set[str]]]
) -> None:
    chosen = {"method": "single"} if mode == "instant" else partition
    known = Mixed(parse({"partition": chosen, **{**_MODES, **_SLICED}[mode]}))
    known.add(*(f"r{number:02d}" for number in range(12)))
    known.derive()
    for verb, ids in history:
        if verb == "add":
            known.add(*(ids - known.labels.keys()))
        elif verb == "delete":
            known.delete(*(ids & known.labels.keys()))
        else:
            known.correct(*(ids & known.labels.keys()))
        assert everything(known.derive()) == everything(known.with_empty_caches().derive())


def test_results_that_took_little_to_tune_are_stored_together() -> None:
    """Those that took long are stored at once, and those that came before an exception are not lost."""

    def tuned(*seconds: float, size: int = 1, error: bool = False) -> Iterator[TuneResult]:
        for number, each in enumerate(seconds):
            yield TuneResult(Digest.of(bytes([number])), bytes([number]) * size, each)
        if error:
            raise KeyboardInterrupt

    def batches(results: Iterator[TuneResult]) -> list[list[int]]:
        found = []
        try:
            for batch in in_batches(results):
                found.append([one.data[0] for one in batch])
        except KeyboardInterrupt:
            found.append([])
        return found

    assert batches(tuned()) == []
    assert batches(tuned(5, 5, 5)) == [[0], [1], [2]]
    assert batches(tuned(0.5, 0.25, 0.5, 0.5, 0.25)) == [[0, 1, 2], [3, 4]]
    assert batches(tuned(0.1, 0.1, error=True)) == [[0, 1], []]
    assert batches(tuned(*[0.0] * 255, size=derive._BATCH_BYTES // 100))[0] == list(range(100 + 1))
    assert [len(batch) for batch in batches(tuned(*[0.0] * 256))] == [256]
    stopped = in_batches(tuned(5, 5))
    assert next(stopped)
    stopped.close()  # as after an exception of the store
