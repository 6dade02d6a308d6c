"""What is left after an unlearning, and what happens when it is stopped at any point."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from sqlalchemy import event

import lmeraser.pipeline.executors.local as local
from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, Template, digits, png, tiny_config
from fake import Fake
from faults import CLASSES, CONFIG, NOW, ORDINARY, name, opened, trained
from lmeraser import Columns, Eraser
from lmeraser.core.sufficient_statistics import SufficientStatistics
from lmeraser.errors import BackboneError, StorageError, UnknownRecordError
from lmeraser.evidence import certificate
from lmeraser.evidence.dsse import PublicKey
from lmeraser.pipeline.derive import feature_key
from lmeraser.pipeline.early_head import EarlyHead
from lmeraser.storage.database import Database
from lmeraser.storage.engines import SQLite
from lmeraser.unlearning import completion
from lmeraser.workspace.lock import WriterLock

_WINDOW = 16  # bytes


def windows(data: bytes) -> set[bytes]:
    """All 16-byte windows that are not mostly zeros or another filling, which any file may hold."""
    every = (data[start : start + _WINDOW] for start in range(len(data) - _WINDOW + 1))
    return {window for window in every if len(set(window)) > _WINDOW // 2}


def files(root: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}


def found(root: Path, needles: Iterable[bytes]) -> list[tuple[str, bytes]]:
    """Needles that occur in any byte of any file below the folder, in a file's name, or in what is sealed."""
    wanted = list(needles)
    searched = [(str(path), data) for path, data in files(root).items()]
    for path in root.rglob("records.db"):
        database = Database(path)
        searched += database.decrypted_values()
        database.close()
    return [
        (place, needle)
        for place, data in searched
        for needle in wanted
        if needle in data or needle in place.encode()
    ]


def sample_of(eraser: Eraser) -> list[str]:
    return eraser.sampled_ids()


@pytest.mark.parametrize("rewritten", [True, False])
@pytest.mark.parametrize("sampled", [True, False])
def test_nothing_of_the_record_is_left_in_any_byte(
    eraser: Eraser, monkeypatch: pytest.MonkeyPatch, sampled: bool, rewritten: bool
) -> None:
    if not rewritten:
        monkeypatch.setattr("lmeraser.storage.database._QUICK_TO_COMPACT", 0)
    records, root = eraser.workspace.records, eraser.workspace.root
    ids = [record.id for record in records.index()]
    sample = sample_of(eraser)
    gone = sample[0] if sampled else next(i for i in ids if i not in sample)
    others = [i for i in ids if i != gone]
    key = feature_key(eraser.workspace.config, eraser.executor().backbone, eraser.executor().fingerprint)
    shared = set().union(*(windows(data) for data in records.payloads(others)))
    image = windows(records.payloads([gone])[0]) - shared
    features = windows(records.derived.features([gone], key=key)[gone].tobytes())
    common = set().union(*(windows(v.tobytes()) for v in records.derived.features(others, key=key).values()))
    needles = [*image, *(features - common), gone.encode()]
    assert len(image) > 10
    assert found(root, needles), "the probes find the record while it is there"
    eraser.unlearn(ids=[gone])
    assert eraser.workspace.database.compaction_due is not rewritten
    eraser.close()
    assert not found(root, needles)
    eraser.purge()
    assert not eraser.workspace.database.compaction_due


def test_artifacts_of_the_old_clusters_and_partition_are_gone(eraser: Eraser) -> None:
    before = eraser.workspace.generations.require()
    eraser.unlearn(ids=sample_of(eraser)[:1])
    after = eraser.workspace.generations.require()
    names = " ".join(path.name for path in files(eraser.workspace.root))
    old = {result.artifact for result in before.stages.values()}
    kept = {result.artifact for result in after.stages.values()}
    assert before.partition.artifact not in kept
    assert not any(artifact.hex in names for artifact in old - kept)
    assert not any(r.key.hex in names for r in before.stages.values() if r.artifact not in kept)
    assert all(artifact.hex in names for artifact in kept)
    manifests = [p.name for p in files(eraser.workspace.root) if p.parent.name == "generations"]
    assert sorted(manifests) == ["00000001.json", "current"]


def _train_with_global_head(root: Path) -> None:
    Eraser.create(root, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(root) as eraser:
        trained(eraser)


def test_the_next_head_is_solved_for_before_the_transaction_and_few_others_follow(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each commit waits for the disk: deletion, erased keys, purge, completion, and what the ledger appended."""
    monkeypatch.setattr("lmeraser.storage.database._QUICK_TO_COMPACT", 0)
    order: list[str] = []
    monkeypatch.setattr(EarlyHead, "announce", lambda *_: order.append("announced"))
    with opened(Path(shutil.copytree(template("recovery", _train_with_global_head), tmp_path / "w"))) as eraser:
        event.listen(eraser.workspace.database._engine, "commit", lambda _: order.append("commit"))
        eraser.unlearn(ids=[name(ORDINARY)])
    recovered, *rest = order
    assert recovered == "commit", "of nothing"
    assert rest == ["announced"] * 2 + ["commit"] * 5


@pytest.mark.sqlite
def test_a_small_database_is_rewritten_before_the_next_head_is_waited_for(
    template: Template, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    rewrite, rewrite_table, solution = SQLite.rewrite, SQLite.rewrite_table, EarlyHead.solution

    def refused_once(backend: SQLite, tables: Iterable[str]) -> None:
        order.append("all")
        if order == ["all"]:
            raise StorageError("Disk full")
        rewrite(backend, tables)

    def noted_table(backend: SQLite, table: str) -> None:
        order.append(table)
        rewrite_table(backend, table)

    def noted_solution(early: EarlyHead, statistics: SufficientStatistics) -> Any:
        order.append("head")
        return solution(early, statistics)

    monkeypatch.setattr(SQLite, "rewrite", refused_once)
    monkeypatch.setattr(SQLite, "rewrite_table", noted_table)
    monkeypatch.setattr(EarlyHead, "solution", noted_solution)
    with opened(Path(shutil.copytree(template("recovery", _train_with_global_head), tmp_path / "w"))) as eraser:
        ordinary = sorted(set(eraser.record_ids()) - set(eraser.sampled_ids()))
        for gone, after in zip(ordinary[:2], ["all", "touched"], strict=True):
            report = eraser.unlearn(ids=[gone])
            assert order[-4:] == ["all", "head", after, "requests"], "again, if it was refused beside the solution"
            assert certificate.DATABASE_REWRITTEN in Path(report.certificates[0]).with_suffix(".txt").read_text()


def test_forgetting_all_of_a_subject_leaves_no_trace_of_the_name(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", tiny_config()) as eraser:
        renamed = digits(range(12)).map(lambda row: {"writer": "Ada-Lovelace" if row["writer"] == "w2" else "x"})
        eraser.add(renamed, columns=DIGIT_COLUMNS)
        eraser.train()
        report = eraser.unlearn(subjects=["Ada-Lovelace"])
        assert len(report.selection.ids) == 2
    assert not found(tmp_path, [b"Ada-Lovelace"])


def test_ids_subjects_and_repetitions_are_one_derivation(eraser: Eraser) -> None:
    report = eraser.unlearn(ids=["digit-0001", "digit-0001", "digit-0002"], subjects=["w2", "w2"])
    assert len(report.selection.ids) == 9  # eight digits of writer w2, one of which is digit-0002, and digit-0001
    assert eraser.status().generation == 1


def test_a_request_does_what_its_plan_said(eraser: Eraser) -> None:
    for ids in (["digit-0001"], sample_of(eraser)[:2]):
        plan = eraser.plan(ids=ids)
        report = eraser.unlearn(ids=ids)
        assert report.training is not None
        assert report.training.stage_counts["tuned"] == plan.clusters_to_tune
        assert report.training.stage_counts["tuned_records"] == plan.records_to_tune


@pytest.mark.parametrize("limit", [3, pytest.param(7, marks=pytest.mark.long), None])
def test_a_plan_is_right_while_clusters_shrink_merge_and_vanish(tmp_path: Path, limit: int | None) -> None:
    config = tiny_config(partition={"clusters": 2, "sample_size": 4, "max_records": limit})
    with Eraser.create(tmp_path / "w", config) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
        merged = 0
        while (left := [i for i in eraser.record_ids() if i not in sample_of(eraser)]) and len(left) > 4:
            gone = random.Random(len(left)).sample(left, min(len(left), 3))
            plan, before = eraser.plan(ids=gone), eraser.status().clusters
            report = eraser.unlearn(ids=gone)
            assert report.training is not None
            assert not plan.sample_hit
            assert report.training.stage_counts["tuned"] == plan.clusters_to_tune
            assert report.training.stage_counts["tuned_records"] == plan.records_to_tune
            changed = len(plan.affected) - plan.clusters_to_tune
            assert before - eraser.status().clusters == changed
            merged += changed > 0
        assert (merged > 0) == (limit is not None)


@pytest.mark.sqlite
def test_a_plan_changes_nothing(eraser: Eraser) -> None:
    eraser.close()
    before = files(eraser.workspace.root)
    eraser.plan(ids=sample_of(eraser)[:2])
    eraser.close()
    after = files(eraser.workspace.root)
    assert {path: data for path, data in after.items() if path.suffix != ".db-shm"} == {
        path: data for path, data in before.items() if path.suffix != ".db-shm"
    }


def test_unknown_names_are_all_listed_and_nothing_is_deleted(eraser: Eraser) -> None:
    with pytest.raises(UnknownRecordError) as caught:
        eraser.unlearn(ids=["digit-0001", "nobody", "no-one"], subjects=["w9"])
    assert all(name in str(caught.value) for name in ("nobody", "no-one", "w9"))
    assert eraser.status().records == 40
    assert eraser.status().up_to_date


def test_the_next_head_is_solved_for_while_the_deletion_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = np.random.default_rng(0).standard_normal((24, 8)).astype(np.float32).tolist()
    table = {"id": [f"r{n}" for n in range(24)], "vector": vectors, "label": [str(n % 3) for n in range(24)]}
    settings = {"data": {"modality": "vector", "length": 8}}
    with Eraser.create(tmp_path / "w", settings, classes=["0", "1", "2"]) as eraser:
        eraser.add(Dataset.from_dict(table), columns=Columns(id="id", label="label"))
        eraser.train()
        with monkeypatch.context() as patched:
            patched.setattr(
                "lmeraser.pipeline.derive.global_head", lambda *_: pytest.fail("it was solved for later")
            )
            report = eraser.unlearn(ids=["r3"])
        assert report.training is not None
        assert report.training.stage_counts["solved"] == 1
        assert eraser.audit().identical


def test_a_repeated_request_is_harmless(eraser: Eraser) -> None:
    eraser.unlearn(ids=["digit-0001"], subjects=["w2"])
    digest = eraser.model_digest
    report = eraser.unlearn(ids=["digit-0001"], subjects=["w2"])
    assert report.selection.ids == ()
    assert report.selection.already_deleted == ("digit-0001", "w2")
    assert eraser.model_digest == digest
    assert eraser.status().generation == 1


def test_a_backbone_that_cannot_be_loaded_deletes_nothing(
    tmp_path: Path, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(config: object) -> None:
        raise BackboneError("The weights are there.")

    monkeypatch.setattr(local, "load_backbone", refuse)
    with Eraser(eraser.workspace.root) as other:
        with pytest.raises(BackboneError):
            other.unlearn(ids=["digit-0001"])
        assert other.status().records == 40
        assert other.status().up_to_date


def test_before_the_first_training_the_record_just_goes(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", tiny_config()) as eraser:
        eraser.add(digits(range(12)), columns=DIGIT_COLUMNS)
        report = eraser.unlearn(ids=["digit-0003"])
        assert report.training is None
        assert eraser.status().records == 11
    assert not found(tmp_path, [b"digit-0003"])


def test_after_an_interrupted_first_training_nothing_derived_from_the_record_stays(tmp_path: Path) -> None:
    calls = 0

    def stop(step: str, done: int, total: int | None) -> None:
        nonlocal calls
        calls += step == "tuning clusters"
        if calls == 6:
            raise KeyboardInterrupt

    with Eraser.create(tmp_path / "w", tiny_config(compute={"workers": 1}), progress=stop) as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        with pytest.raises(KeyboardInterrupt):
            eraser.train()
        assert list((tmp_path / "w" / "artifacts").rglob("*.safetensors"))
        eraser.unlearn(ids=["digit-0003"])
        assert not list((tmp_path / "w" / "artifacts").rglob("*.safetensors"))
        eraser.train()
        assert eraser.audit().identical


_KILLED_UNLEARN = """
import os, sys
from pathlib import Path
from typing import Any
from sqlalchemy import event
from sqlalchemy.engine import Engine
from lmeraser import Eraser

left = int(sys.argv[2])

def count(*_):
    global left
    left -= 1
    if left == 0:
        os._exit(9)

real = Path.replace
def replace(self, target):
    count()
    result = real(self, target)
    count()
    return result
Path.replace = replace
event.listen(Engine, "commit", count)

eraser = Eraser(sys.argv[1])
eraser.unlearn(ids=sys.argv[3:])
"""


@pytest.mark.long  # the fast suite stops commands in test_faults.py
@pytest.mark.sqlite
@pytest.mark.parametrize("write", [2, 4, 7, 10, 13])
def test_killed_at_any_write_and_run_again_it_ends_in_the_same_model(
    eraser: Eraser, tmp_path: Path, write: int
) -> None:
    gone = sample_of(eraser)[:1]
    root = eraser.workspace.root
    eraser.close()
    command = [sys.executable, "-c", _KILLED_UNLEARN, str(root), str(write), *gone]
    assert subprocess.run(command, check=False).returncode == 9
    with Eraser(root) as again:
        again.unlearn(ids=gone)
        assert again.status().up_to_date
        survivor = again.model_digest
    with Eraser.create(tmp_path / "fresh", tiny_config()) as fresh:
        kept = [number for number in range(40) if f"digit-{number:04d}" not in gone]
        fresh.add(digits(kept), columns=DIGIT_COLUMNS)
        fresh.train()
        assert fresh.model_digest == survivor
    assert not found(root, [gone[0].encode()])
    assert not [path for path in files(root) if path.name.startswith(".tmp-")]


def test_what_the_model_says_of_a_forgotten_image_is_what_retraining_says(eraser: Eraser, tmp_path: Path) -> None:
    image = eraser.workspace.records.payloads(["digit-0004"])[0]
    eraser.unlearn(ids=["digit-0004"])
    with Eraser.create(tmp_path / "fresh", tiny_config()) as fresh:
        fresh.add(digits([n for n in range(40) if n != 4]), columns=DIGIT_COLUMNS)
        fresh.train()
        ours, theirs = eraser.predictor().batch([image]), fresh.predictor().batch([image])
    np.testing.assert_array_equal(ours.probabilities, theirs.probabilities)


def noise(number: int) -> bytes:
    """A PNG of 32 x 32 random pixels, some 3 kB that no other image shares."""
    return png(np.random.default_rng(number).integers(0, 256, (32, 32, 3)))


NOISE_IDS = [f"unmistakable-{number:06x}" for number in range(1000, 1024)]


def _train_noise(root: Path) -> None:
    rows = [
        {"id": i, "person": f"nobody-{n % 6}", "image": noise(n), "label": n % 3} for n, i in enumerate(NOISE_IDS)
    ]
    features = Features(
        {"id": Value("string"), "person": Value("string"), "image": Value("binary"), "label": ClassLabel(3)}
    )
    config = tiny_config(backbone={"image_size": 64})  # smaller ones leave random pixels hardly any features
    with Eraser.create(root, config) as eraser:
        eraser.add(Dataset.from_list(rows, features=features), columns=Columns(id="id", subject="person"))
        eraser.train()


@pytest.mark.parametrize(
    "which",
    [
        *("sampled", "subject"),
        *(pytest.param(which, marks=pytest.mark.long) for which in ("ordinary", "all but one")),
    ],
)
def test_no_window_of_a_random_image_nor_its_id_nor_its_features_are_left(
    template: Template, tmp_path: Path, which: str
) -> None:
    ids = NOISE_IDS
    with Eraser(shutil.copytree(template("noise", _train_noise), tmp_path / "w")) as eraser:
        sample = eraser.sampled_ids()
        gone = {
            "sampled": sample[:1],
            "ordinary": sorted(set(ids) - set(sample))[:1],
            "subject": ids[4::6],
            "all but one": ids[1:],
        }[which]
        probes = [tmp_path / record_id for record_id in gone]
        for path in probes:
            path.write_bytes(noise(ids.index(path.name)))
        before = eraser.residue(probes, ids=gone)
        assert {find.probe for find in before.finds} == {
            *gone, *map(str, probes), *(f"features of {path}" for path in probes)
        }  # fmt: skip
        eraser.unlearn(subjects=["nobody-4"]) if which == "subject" else eraser.unlearn(ids=gone)
        names = [*gone, "nobody-4"] if which == "subject" else gone
        after = eraser.residue(probes, ids=names)
        assert after.clean, after.finds
        assert after.windows > 2900 * len(gone)
        assert eraser.audit().identical


def test_with_slices_a_deletion_starts_from_a_checkpoint_and_is_as_exact(tmp_path: Path) -> None:
    config = tiny_config(
        partition={"method": "random", "clusters": 2}, tuning={"slices": 3, "epochs": 1, "batch_size": 8}
    )
    with Eraser.create(tmp_path / "w", config, classes=DIGIT_CLASSES) as eraser:
        eraser.add(digits(range(24)), columns=DIGIT_COLUMNS)
        assert eraser.train().stage_counts["tuned"] == 6
        stage_counts = [
            eraser.unlearn(ids=[record_id]).to_json()["stage_counts"] for record_id in eraser.record_ids()[:4]
        ]
        assert min(each["tuned"] for each in stage_counts if isinstance(each, dict)) < 3
        assert eraser.audit().identical


@pytest.mark.parametrize(
    "verb",
    [
        lambda eraser: eraser.train(),
        lambda eraser: eraser.unlearn(ids=["digit-0001"]),
        lambda eraser: eraser.relabel("7", ids=["digit-0001"]),
    ],
    ids=["train", "unlearn", "relabel"],
)
def test_a_verb_takes_the_writers_lock_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: Callable[[Eraser], object]
) -> None:
    with Eraser.create(tmp_path / "w", tiny_config()) as eraser:
        eraser.session.executors.use(Fake())
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
        real, commands = WriterLock.held, list[str]()

        def held(self: WriterLock, command: str, *, wait: float) -> Any:
            commands.append(command)
            return real(self, command, wait=wait)

        monkeypatch.setattr(WriterLock, "held", held)
        verb(eraser)
        assert len(commands) == 1


@pytest.mark.parametrize("together", [1, 2, 256])
def test_requests_carried_out_together_have_a_certificate_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    monkeypatch.setattr(completion, "_TOGETHER", together)
    eraser = Eraser.create(tmp_path / "w", tiny_config())
    eraser.session.executors.use(Fake())
    eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
    eraser.train()
    root, names = eraser.workspace.root, eraser.record_ids()[:5]
    accepted = [eraser.request(ids=[name]).id for name in names]
    before = len(eraser.workspace.ledger.entries())
    report = eraser.unlearn()
    assert [request.id for request in report.requests] == [request.id for request in eraser.requests()]
    assert {request.id: request.state for request in report.requests} == dict.fromkeys(accepted, "completed")
    public = PublicKey.read(root / "signing.pub")
    ledger = eraser.workspace.ledger.path.read_bytes()
    said = []
    for path in report.certificates:
        data = Path(path).read_bytes()
        facts = certificate.verify(data, public)
        certificate.verify_in_ledger(data, facts, ledger)
        assert Path(path).with_suffix(".txt").is_file()
        said.append({**facts, "request": None})
    assert said[0]["purged"]["database"] == certificate.DATABASE_REWRITTEN
    assert said == said[:1] * len(
        names
    )  # the first to be completed leave traces, but not of the records of others
    kinds = [entry.kind for entry in eraser.workspace.ledger.entries()[before:]]
    assert kinds.count("completed") == len(names)
    assert eraser.check_ledger().sound
    assert len(eraser.record_ids()) == 15
    eraser.close()
