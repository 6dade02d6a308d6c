"""The heart: after any history of adds and deletions, the model is the one that a single training gives.

The oracle is another process with another number of threads, which adds the retained records in another order to a
fresh workspace and trains once. Every model is a real one: EfficientNet-Lite0 or a transformer, on real digits.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, Template, digits, examples
from lmeraser import Eraser
from lmeraser.config.presets import PRESETS
from oracle import Oracle
from small import save_transformer

_COMMON: dict[str, Any] = {
    "backbone": {"image_size": 32, "micro_batch": 4},
    "tuning": {"epochs": 2, "batch_size": 8, "flip": True},
    "compute": {"workers": 2},
}
_VARIANTS: dict[str, dict[str, Any]] = {
    "default": {"partition": {"sample_size": 10, "clusters": 4}},
    "all sampled": {"partition": {"sample_size": 100, "clusters": 5}},
    "paper's clustering": {
        "partition": {"sample_size": 8, "linkage": "average", "metric": "euclidean", "threshold": 9.0},
        "prompt": {"init_scale": 1.0},
        "head": {"normalize": "none"},
        "tuning": {"epochs": 2, "batch_size": 8, "optimizer": "sgd"},
    },
    "class tree": {"partition": {"method": "class_tree", "max_records": 6}},
    "divided by hash": {"partition": {"sample_size": 10, "clusters": 2, "max_records": 7}},
    "public prototypes": {"partition": {"fitted": "public", "clusters": 6, "max_records": 9}},
    "balanced": {"partition": {"sample_size": 12, "expected_share": 0.3, "max_share": 0.4}},
    "random": {"partition": {"method": "random", "clusters": 3}, "prompt": {"kind": "random_patch"}},
    "single": {"partition": {"method": "single"}, "prompt": {"kind": "fixed_patch"}},
    "instant": PRESETS["instant"],
    "heads of a class tree and global head": {
        "partition": {"method": "class_tree", "max_records": 6},
        "embedding": {"views": ["mirror", "frame"]},
        "global_head": {"weight": 0.5},
        "constituent": {"kind": "head"},
        "head": {"init": "class_means"},
    },
    "heads from class means": {
        "partition": {"sample_size": 10, "clusters": 3},
        "head": {"init": "class_means"},
        "tuning": {"epochs": 2, "batch_size": 8, "slices": 2},
    },
    "SISA": {
        "partition": {"method": "random", "clusters": 2},
        "constituent": {"kind": "network"},
        "tuning": {"epochs": 2, "batch_size": 8, "slices": 2, "stop_after": 1},
        "aggregation": {"combine": "vote"},
    },
    "DAM-VP": {
        "partition": {"sample_size": 10, "clusters": 3},
        "constituent": {"kind": "mapping"},
        "mapping": {"assign": "activity", "noise_images": 6},
    },
    "mapped to public classes by members": {
        "partition": {"method": "class_tree", "max_records": 12},
        "constituent": {"kind": "mapping"},
        "mapping": {"outputs": "classes", "assign": "members"},
        "tuning": {"epochs": 2, "batch_size": 8, "slices": 2},
    },
    "shared head": {
        "partition": {"sample_size": 10, "clusters": 3},
        "constituent": {"kind": "shared_head"},
        "prompt": {"kind": "random_patch"},
    },
    "prompts and global head": {
        "partition": {"sample_size": 10, "clusters": 4},
        "embedding": {"views": ["clean", "whole"]},
        "global_head": {"weight": 0.5},
    },
}
_WITH_GLOBAL_HEAD = [variant for variant, values in _VARIANTS.items() if "global_head" in values]
_METHODS = ["SISA", "DAM-VP", "mapped to public classes by members", "shared head"]
# The first have histories of their own in the fast suite, below: with a global head, and of every method. The
# others divide records in ways with which `tests/pipeline/test_derive.py` tries any history, without a network.
_LONG = (*_WITH_GLOBAL_HEAD, *_METHODS, "all sampled", "random", "single")
_ANY_HISTORY = [
    pytest.param(variant, marks=pytest.mark.long) if variant in _LONG else variant for variant in _VARIANTS
]
_MOST = 30 if settings.get_current_profile_name() == "explore" else 20  # records of the first training

_numbers = st.lists(st.integers(0, 39), min_size=1, max_size=6, unique=True)
_step = st.tuples(st.sampled_from(["unlearn", "unlearn a writer", "add"]), _numbers)


@pytest.fixture(scope="module")
def oracle() -> Iterator[Oracle]:
    other = 2 if os.environ.get("OMP_NUM_THREADS") == "1" else 1  # than here
    with Oracle(threads=other) as started:
        yield started


def settings_of(variant: str) -> dict[str, Any]:
    return {**_COMMON, **_VARIANTS[variant]}


def name(number: int) -> str:
    return f"digit-{number:04d}"


def apply(eraser: Eraser, retained: set[int], verb: str, numbers: list[int]) -> None:
    """One step of a history, applied to the workspace and to the set of records that should be left."""
    if verb == "add":
        # Ids and writers that were deleted before come back on purpose here.
        eraser.add(digits(numbers), columns=DIGIT_COLUMNS, allow_deleted=True)
        retained |= set(numbers)
        eraser.train()
    elif verb == "unlearn":
        chosen = [number for number in numbers if number in retained]
        if chosen:
            eraser.unlearn(ids=[name(number) for number in chosen])
            retained -= set(chosen)
    else:
        writer = numbers[0] % 5
        if any(number % 5 == writer for number in retained):
            eraser.unlearn(subjects=[f"w{writer}"])
            retained -= {number for number in retained if number % 5 == writer}


@pytest.mark.parametrize("variant", _ANY_HISTORY)
@given(
    first=st.sets(st.integers(0, 39), min_size=1, max_size=_MOST),
    history=st.lists(_step, min_size=1, max_size=4),
    shuffle=st.randoms(use_true_random=False),
)
@settings(examples(fast=2, explore=8), suppress_health_check=list(HealthCheck))
def test_any_history_gives_the_model_of_training_once(
    oracle: Oracle,
    variant: str,
    first: set[int],
    history: list[tuple[str, list[int]]],
    shuffle: random.Random,
) -> None:
    chosen = settings_of(variant)
    with (
        tempfile.TemporaryDirectory() as folder,
        Eraser.create(Path(folder) / "workspace", chosen, classes=DIGIT_CLASSES, preset="prompts") as eraser,
    ):
        eraser.add(digits(sorted(first)), columns=DIGIT_COLUMNS)
        eraser.train()
        retained = set(first)
        for verb, numbers in history:
            apply(eraser, retained, verb, numbers)
        left = sorted(retained)
        shuffle.shuffle(left)
        other = {**chosen, "compute": {"workers": 3}}
        assert eraser.model_digest == oracle.digest(other, left)


def _train_default(root: Path, records: int) -> None:
    with Eraser.create(root, settings_of("default"), classes=DIGIT_CLASSES, preset="prompts") as eraser:
        eraser.add(digits(range(records)), columns=DIGIT_COLUMNS)
        eraser.train()


@pytest.fixture
def trained(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    made = template("exactness-40", lambda root: _train_default(root, 40))
    with Eraser(shutil.copytree(made, tmp_path / "w")) as eraser:
        yield eraser


@pytest.fixture
def twelve(template: Template) -> Path:
    """A trained workspace of 12 records, only to be copied."""
    return template("exactness-12", lambda root: _train_default(root, 12))


def sampled(eraser: Eraser) -> list[int]:
    return [int(record_id[-4:]) for record_id in eraser.sampled_ids()]


def test_a_sampled_record(trained: Eraser, oracle: Oracle) -> None:
    gone = sampled(trained)[3]
    assert trained.plan(ids=[name(gone)]).sample_hit
    trained.unlearn(ids=[name(gone)])
    assert trained.model_digest == oracle.digest(settings_of("default"), [n for n in range(40) if n != gone])


def test_the_whole_sample_at_once(trained: Eraser, oracle: Oracle) -> None:
    gone = set(sampled(trained))
    trained.unlearn(ids=[name(number) for number in gone])
    assert trained.model_digest == oracle.digest(settings_of("default"), sorted(set(range(40)) - gone))


def test_a_whole_cluster(trained: Eraser, oracle: Oracle) -> None:
    model = trained.workspace.generations.require()
    clusters = model.cluster_numbers(trained.workspace.records.derived.trie_keys(model.partition.key))
    smallest = min(model.clusters, key=lambda cluster: cluster.records).number
    gone = {int(record_id[-4:]) for record_id, number in clusters.items() if number == smallest}
    trained.unlearn(ids=[name(number) for number in gone])
    assert trained.model_digest == oracle.digest(settings_of("default"), sorted(set(range(40)) - gone))


def test_the_last_record_of_a_class_keeps_the_shape_of_every_head(trained: Eraser, oracle: Oracle) -> None:
    label_of = {int(record.id[-4:]): record.label for record in trained.workspace.records.index()}
    threes = {number for number, label in label_of.items() if label == 3}
    trained.unlearn(ids=[name(number) for number in threes])
    assert trained.classes == tuple(DIGIT_CLASSES)
    assert trained.model_digest == oracle.digest(settings_of("default"), sorted(set(range(40)) - threes))


def test_one_record_is_left_then_none(trained: Eraser, oracle: Oracle) -> None:
    trained.unlearn(ids=[name(number) for number in range(39)])
    assert trained.model_digest == oracle.digest(settings_of("default"), [39])
    trained.unlearn(ids=[name(39)])
    assert trained.model_digest == oracle.digest(settings_of("default"), [])
    assert trained.audit().identical


def test_requests_in_any_order_and_together_give_the_same_model(twelve: Path, tmp_path: Path) -> None:
    digests = set()
    for run, requests in enumerate([[[1], [2], [3]], [[3], [1, 2]], [[1, 2, 3]]]):
        with Eraser(shutil.copytree(twelve, tmp_path / str(run))) as eraser:
            for request in requests:
                eraser.unlearn(ids=[name(number) for number in request])
            digests.add(eraser.model_digest)
    assert len(digests) == 1


def test_forgetting_and_adding_again_gives_the_first_model(trained: Eraser) -> None:
    first = trained.model_digest
    trained.unlearn(ids=[name(5), name(6)])
    assert trained.model_digest != first
    trained.add(digits([6, 5]), columns=DIGIT_COLUMNS, allow_deleted=True)
    trained.train()
    assert trained.model_digest == first


def test_the_same_image_under_two_ids_is_two_records(twelve: Path, tmp_path: Path) -> None:
    twin = digits([7]).map(lambda row: {"id": "twin"})
    with Eraser(shutil.copytree(twelve, tmp_path / "w")) as eraser:
        alone = eraser.model_digest
        eraser.add(twin, columns=DIGIT_COLUMNS)
        eraser.train()
        assert eraser.model_digest != alone
        eraser.unlearn(ids=["twin"])
        assert eraser.model_digest == alone


@pytest.mark.parametrize("variant", _WITH_GLOBAL_HEAD)
def test_a_global_head_after_a_history(tmp_path: Path, oracle: Oracle, variant: str) -> None:
    chosen, retained = settings_of(variant), set(range(14))
    with Eraser.create(tmp_path / "w", chosen, classes=DIGIT_CLASSES, preset="prompts") as eraser:
        eraser.add(digits(range(14)), columns=DIGIT_COLUMNS)
        eraser.train()
        first = eraser.workspace.generations.require()
        apply(eraser, retained, "unlearn", [3, 4])
        apply(eraser, retained, "unlearn a writer", [1])
        apply(eraser, retained, "add", [3, 25])
        apply(eraser, retained, "unlearn", [25, 7])
        last = eraser.workspace.generations.require()
        assert first.global_head is not None
        assert last.global_head is not None
        assert first.global_head.artifact != last.global_head.artifact
        assert eraser.model_digest == oracle.digest(chosen, sorted(retained, reverse=True))
        report = eraser.audit()
        assert report.identical, report.differences
        assert report.records == len(retained)


_VPT: dict[str, dict[str, Any]] = {
    f"VPT {name}": {
        "partition": {"method": "random", "clusters": 2},
        "constituent": {"kind": "tokens"},
        "tokens": {"count": 3, "deep": name == "deep"},
    }
    for name in ("shallow", "deep")
}


_PROMISED_IN_LONG = [  # with a relative in the fast suite
    pytest.param(variant, marks=pytest.mark.long)
    for variant in ("mapped to public classes by members", "VPT shallow")
]


@pytest.mark.parametrize("variant", ["SISA", "DAM-VP", "shared head", "VPT deep", *_PROMISED_IN_LONG])
def test_a_method_keeps_every_promise(tmp_path: Path, oracle: Oracle, variant: str) -> None:
    """Interrupted deletions, other numbers of workers, plan, cost, quarantine, predictions, audit."""
    interrupted, chosen = False, {**_COMMON, **{**_VARIANTS, **_VPT}[variant]}
    if variant in _VPT:
        vit = save_transformer(tmp_path / "vit", "vit")
        chosen["backbone"] = {"name": str(vit), "image_size": 32, "micro_batch": 4}

    def progress(step: str, done: int, total: int | None) -> None:
        nonlocal interrupted
        if interrupted and step == "tuning clusters" and done:
            interrupted = False
            raise KeyboardInterrupt

    options: Any = {"classes": DIGIT_CLASSES, "preset": "prompts", "progress": progress}
    with Eraser.create(tmp_path / "w", chosen, **options) as eraser:
        eraser.add(digits(range(16)), columns=DIGIT_COLUMNS)
        eraser.train()
        assert eraser.model_digest == oracle.digest({**chosen, "compute": {"workers": 3}}, list(range(16)))
        images = eraser.workspace.records.payloads(eraser.record_ids()[:3])
        together = eraser.predictor().batch(images)
        for place, image in enumerate(images):
            alone = eraser.predictor().batch([image])
            assert alone.probabilities[0].tobytes() == together.probabilities[place].tobytes()
        plan, before = eraser.plan(ids=[name(3)]), eraser.workspace.generations.require()
        assert 0 < plan.records_to_tune <= 15
        assert eraser.cost(hits=1).expected_share == before.expected_share
        eraser.request(ids=[name(3)])
        held = eraser.quarantined()
        assert held
        interrupted = True
        with pytest.raises(KeyboardInterrupt):
            eraser.unlearn()
        assert eraser.quarantined() == held
        report = eraser.unlearn()
        assert report.training is not None
        left = [number for number in range(16) if number != 3]
        assert eraser.model_digest == oracle.digest(chosen, left[::-1])
        kept = [cluster.constituent for cluster in before.clusters]
        changed = [c for c in report.training.model.clusters if c.constituent not in kept]
        assert len(changed) == plan.clusters_to_tune
        assert eraser.evaluate(digits(range(40, 48))).images == 8
        found = eraser.audit()
        assert found.identical, found.differences


@pytest.mark.long  # the fast suite has tokens of a ViT, above
@pytest.mark.parametrize("family", ["vit", "swin"])
def test_on_a_transformer(tmp_path: Path, oracle: Oracle, family: str) -> None:
    chosen = settings_of("default")
    folder = save_transformer(tmp_path / family, family)
    chosen["backbone"] = {"name": str(folder), "image_size": 32, "micro_batch": 4}
    with Eraser.create(tmp_path / "w", chosen, preset="prompts") as eraser:
        eraser.add(digits(range(24)), columns=DIGIT_COLUMNS)
        eraser.train()
        gone = {4, *sampled(eraser)[:1]}
        eraser.unlearn(ids=[name(number) for number in gone])
        assert eraser.model_digest == oracle.digest(chosen, sorted(set(range(24)) - gone, reverse=True))
        assert eraser.audit().identical
