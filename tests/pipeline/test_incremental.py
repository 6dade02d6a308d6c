"""Looking only at what a request touched gives the model of looking at everything."""

from __future__ import annotations

import functools
import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from conftest import examples
from fake import Fake
from lmeraser.config.schema import parse
from lmeraser.data.records import Record
from lmeraser.models import cluster_page, clusters
from lmeraser.models.cluster import Cluster
from lmeraser.models.clusters import ClusterList, arranged
from lmeraser.models.manifest import Model
from lmeraser.models.partitions.cost import cost_of
from lmeraser.pipeline.caches import InMemoryStatistics, ReadOnlyCache
from lmeraser.pipeline.derive import Derivation, Pipeline, PipelineContext
from lmeraser.pipeline.incremental import _resized
from lmeraser.storage.artifacts import BlobStore, MemoryStore
from lmeraser.unlearning import update
from lmeraser.unlearning.context import training_inputs
from lmeraser.unlearning.relabel import change_labels
from lmeraser.unlearning.update import update_model
from lmeraser.workspace.registry import Generations
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace

COUNT = 24
IDS = [f"r{number:02d}" for number in range(COUNT)]
KINDS: dict[str, dict[str, Any]] = {
    "sampled": {"partition": {"clusters": 4, "sample_size": 6}},
    "divided": {"partition": {"clusters": 2, "sample_size": 4, "max_records": 5}},
    "public": {"partition": {"method": "class_tree", "max_records": 4}},
    "random": {"partition": {"method": "random", "clusters": 5}},
    "sliced": {"partition": {"method": "random", "clusters": 3}, "tuning": {"slices": 3}},
    "together": {"partition": {"method": "random", "clusters": 3}, "constituent": {"kind": "shared_head"}},
    "together, sampled, sliced": {
        "partition": {"clusters": 3, "sample_size": 5},
        "constituent": {"kind": "shared_head"},
        "tuning": {"slices": 2},
    },
    "with a global head": {"partition": {"clusters": 3, "sample_size": 4}, "global_head": {"weight": 0.5}},
    "instant": {
        "partition": {"method": "single"},
        "constituent": {"kind": "none"},
        "global_head": {"weight": 1.0},
    },
    "instant, divided": {
        "partition": {"method": "single", "max_records": 7},
        "constituent": {"kind": "none"},
        "global_head": {"weight": 1.0},
    },
}


@pytest.mark.parametrize(
    ("left", "paths", "sizes"),
    [
        ({"0": 3, "1": 2}, ["1"], {"1": 2}),
        ({"0": 3}, ["1"], {}),
        ({"0": 1, "1": 2}, ["0", "1"], {"0": 1, "1": 2}),
        ({"0": 3, "1": 5}, [], {}),
    ],
)
def test_sizes_of_clusters_of_which_nothing_is_tuned(
    left: dict[str, int], paths: list[str], sizes: dict[str, int]
) -> None:
    before = ClusterList(
        Cluster(number=number, path=str(number), records=records, constituent=None)
        for number, records in enumerate([3, 5])
    )
    served: Any = SimpleNamespace(clusters=before, records=8, partition=SimpleNamespace(key="key"))
    derived = SimpleNamespace(
        count_under=lambda key, path: left.get(path, 0) if len(paths) > 1 else pytest.fail("counted")
    )
    records: Any = SimpleNamespace(count=lambda: sum(left.values()), derived=derived)
    assert {each.path: each.records for each in _resized(served, paths, records)} == sizes


@pytest.fixture(scope="module", autouse=True)
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A trained workspace of each kind, made when a test first wants it; only copied."""
    global _trained
    folder = tmp_path_factory.mktemp("trained")

    @functools.cache
    def make(kind: str) -> Path:
        root = folder / kind
        made = Workspace.create(root, parse(KINDS[kind]), classes=("a", "b", "c"))
        insert(made, *IDS)
        session = Session.of(made)
        session.executors.use(Fake())
        update_model(session)
        made.close()
        return root

    _trained = make
    yield
    del _trained


_trained: Callable[[str], Path]


@contextmanager
def workspace(kind: str) -> Iterator[tuple[Workspace, Session, Fake]]:
    """A trained workspace, a session on it, and its executor."""
    with tempfile.TemporaryDirectory() as folder:
        made = Workspace(shutil.copytree(_trained(kind), Path(folder) / "w"))
        session = Session.of(made)
        fake = Fake()
        session.executors.use(fake)
        yield made, session, fake
        made.close()


def insert(made: Workspace, *ids: str) -> None:
    with made.write_transaction() as connection:
        rows = [Record(i, None, int(i[1:]) % 3, f"image of {i}".encode()) for i in ids]
        made.records.insert(connection, rows, entry=0)
        made.records.changes.record(connection)


def delete(made: Workspace, *ids: str) -> None:
    with made.write_transaction() as connection:
        made.records.delete(connection, ids)


def from_nothing(made: Workspace) -> Derivation:
    """The model derived with empty caches, on another fake machine."""
    fake = Fake()
    fetch = made.records.payloads
    context = PipelineContext(
        MemoryStore(), ReadOnlyCache(), InMemoryStatistics(), lambda: fake, fetch, b"another secret"
    )
    return Pipeline(training_inputs(made, fake.backbone), context).derive()


def parts(found: Model | Derivation) -> Any:
    clusters = [(c.number, c.path, c.records, c.constituent and c.constituent.artifact) for c in found.clusters]
    return clusters, found.partition.artifact, found.global_head and found.global_head.artifact


@pytest.mark.parametrize("kind", ["divided", "public", "sliced"])
@pytest.mark.parametrize("stopped", [False, True])
def test_in_pages_a_request_leaves_what_a_sweep_of_everything_leaves(
    in_pages: None, kind: str, stopped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also after a derivation that was stopped half-way, whose leftovers no manifest names."""
    with workspace(kind) as (made, session, _):
        interrupted = 0
        if not stopped:
            monkeypatch.setattr(BlobStore, "sweep", None)
        for ids in (IDS[7:8], IDS[12:15], IDS[20:21]):
            before = made.generations.require()
            ordinary = [i for i in ids if not made.records.derived.any_sampled(before.partition.key, [i])]
            delete(made, *ordinary)
            if stopped:
                stopping = Session.of(made)
                stopping.executors.use(Fake(stop_after=1))
                try:
                    update_model(stopping, full=False)
                except KeyboardInterrupt:
                    interrupted += 1
                delete(made, made.records.index()[0].id)
            model = update_model(session, full=False).model
            assert parts(model) == parts(from_nothing(made))
            assert model.cost == cost_of(
                {one.path: one.records for one in model.clusters},
                made.config.partition.max_records,
                sampled=made.config.partition.sampled(model.records),
            )
            assert Generations(made.layout.generations).require() == model, "as another process reads it"
            assert files(made) == expected_files(model)
        assert (interrupted > 0) == stopped


@pytest.mark.parametrize(
    ("kind", "most"), [("divided", 4), ("public", 5), ("sliced", 0), ("with a global head", 2)]
)
@settings(examples(fast=1, explore=40))
@given(
    steps=st.lists(
        st.tuples(
            st.sampled_from(["delete", "correct", "add"]),
            st.lists(st.sampled_from(IDS), min_size=1, max_size=12, unique=True),
        ),
        max_size=5,
    )
)
@example(steps=[("delete", IDS[:10]), ("delete", IDS[10:22]), ("add", ["r90", "r91"]), ("add", IDS[:20])])
def test_any_history_gives_pages_of_what_is_left(kind: str, most: int, steps: list[tuple[str, list[str]]]) -> None:
    """Pages and lists are a function of the clusters that are there, also where these become many or few again."""
    with pytest.MonkeyPatch.context() as patch, workspace(kind) as (made, session, _):
        patch.setattr(clusters, "MOST_IN_A_LIST", most)
        patch.setattr(cluster_page, "_PAGE", 2)
        again = itertools.count(100)
        for step, names in steps:
            here = sorted(made.records.find(names))
            if step == "add":
                insert(made, *(f"r{next(again)}" for _ in names))
            elif step == "correct" and here:
                change_labels(made, here, "b")
            elif here and len(here) < made.records.count():
                delete(made, *here)
            model = update_model(session, full=False).model
            fresh = from_nothing(made)
            assert parts(model) == parts(fresh)
            assert model.clusters == arranged(ClusterList(model.clusters))
            assert (len(model.pages) > 0) == (len(fresh.clusters) > most)
            listed = model.model_copy(update={"clusters": ClusterList(fresh.clusters)})
            assert listed.model_digest == model.model_digest
            assert Generations(made.layout.generations).require() == model, "as another process reads it"
            assert files(made) == expected_files(model)


def files(made: Workspace) -> set[str]:
    folders = made.layout.artifacts, made.layout.memo, made.layout.generations
    return {path.name for folder in folders for path in folder.rglob("*") if path.is_file()}


def expected_files(model: Model) -> set[str]:
    results = model.stages.values()
    return {
        *(f"{one.artifact.hex}.safetensors" for one in results),
        *(f"{one.key.hex}.json" for one in results),
        *(f"page-{page.digest.hex}.json" for page in model.pages),
        *("current", f"{model.generation:08d}.json"),
    }


@pytest.mark.parametrize("kind", KINDS)
@settings(examples(fast=4, explore=12))
@given(
    steps=st.lists(
        st.tuples(st.booleans(), st.lists(st.sampled_from(IDS), min_size=1, max_size=4, unique=True)), max_size=5
    )
)
def test_any_deletions_and_corrections_give_what_training_on_the_rest_gives(
    kind: str, steps: list[tuple[bool, list[str]]]
) -> None:
    with workspace(kind) as (made, session, _):
        for corrects, names in steps:
            here = sorted(made.records.find(names))
            if corrects and here:
                change_labels(made, here, "b")
            elif here:
                delete(made, *here)
            model = update_model(session, full=False).model
            assert parts(model) == parts(from_nothing(made))
            assert files(made) == expected_files(model)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "together" not in kind])
def test_an_ordinary_request_looks_at_no_other_record(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with workspace(kind) as (made, session, fake):
        first = made.generations.require()
        ordinary = [i for i in IDS if not made.records.derived.any_sampled(first.partition.key, [i])]
        delete(made, ordinary[0])
        monkeypatch.setattr(Pipeline, "derive", None)
        monkeypatch.setattr(update, "training_inputs", None)
        fake.tuned.clear()
        fake.embedded.clear()
        model = update_model(session, full=False).model
        assert model.records == COUNT - 1
        assert fake.embedded == []
        assert len(fake.tuned) <= (0 if "instant" in kind else 5)
        unchanged = {c.constituent.artifact for c in first.clusters if c.constituent} & {
            c.constituent.artifact for c in model.clusters if c.constituent
        }
        assert not first.tuned or len(unchanged) >= len(first.clusters) - 3


@pytest.mark.parametrize("kind", ["sampled", "divided"])
def test_a_hit_of_the_sample_looks_at_everything(kind: str) -> None:
    with workspace(kind) as (made, session, _):
        first = made.generations.require()
        hit = next(i for i in IDS if made.records.derived.any_sampled(first.partition.key, [i]))
        delete(made, hit)
        assert made.records.changes.trie_keys(first.partition.key, since=first.revision) is None
        model = update_model(session, full=False).model
        assert parts(model) == parts(from_nothing(made))


def test_new_records_settings_and_classes_look_at_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    def touched(*_: object) -> None:
        raise AssertionError

    with workspace("random") as (made, session, _):
        monkeypatch.setattr(update, "derive_incremental", touched)
        with made.write_transaction() as connection:
            made.records.insert(connection, [Record("new", None, 0, b"new")], entry=0)
            made.records.changes.record(connection)
        assert update_model(session, full=False).model.records == COUNT + 1
        made.records.set_classes(["a", "b", "c", "d"])
        assert parts(update_model(session, full=False).model) == parts(from_nothing(made))
        made.config.__dict__["seed"] = 1
        assert parts(update_model(session, full=False).model) == parts(from_nothing(made))


def test_an_interrupted_update_goes_on(tmp_path: Path) -> None:
    with workspace("random") as (made, session, _):
        first = made.generations.require()
        delete(made, IDS[0], IDS[1], IDS[2])
        stopping = Session.of(made)
        stopping.executors.use(Fake(stop_after=0))
        with pytest.raises(KeyboardInterrupt):
            update_model(stopping, full=False)
        assert made.generations.current() == first
        assert parts(update_model(session, full=False).model) == parts(from_nothing(made))
        assert update_model(session, full=False).changed is False


def test_a_crash_after_publishing_leaves_no_place_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    with workspace("divided") as (made, session, _):
        delete(made, IDS[0])
        with monkeypatch.context() as patch:
            patch.setattr(update, "purge", crash)
            patch.setattr(update, "purge_replaced", crash)
            with pytest.raises(KeyboardInterrupt):
                update_model(session, full=False)
        assert update_model(session, full=False).changed is False
        changes = made.records.changes
        assert changes.trie_keys(made.generations.require().partition.key, since=changes.revision - 1) is None
