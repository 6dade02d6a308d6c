"""Correcting a label gives the model that training with the right one gives, and nothing of the old one stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import DIGIT_COLUMNS, NOW, Run, digits, examples
from fake import Fake
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.errors import InputError, UnknownRecordError
from lmeraser.models.manifest import Model
from lmeraser.pipeline.executors.provider import ExecutorProvider

CONFIG = parse({"partition": {"clusters": 4, "sample_size": 12}})


def labelled(numbers: Sequence[int], labels: Mapping[str, str]) -> Dataset:
    """Digits, some of them with another label."""
    return digits(numbers).map(
        lambda name, label: {"label": int(labels.get(name, label))}, input_columns=["id", "label"]
    )


def opened(root: Path, fake: Fake) -> Eraser:
    eraser = Eraser(root, clock=lambda: NOW)
    eraser.session.executors.use(fake)
    return eraser


def made(root: Path, numbers: Sequence[int], labels: Mapping[str, str]) -> Digest:
    """The model digest of a fresh workspace that had these labels from the start."""
    Eraser.create(root, CONFIG, clock=lambda: NOW).close()
    with opened(root, Fake()) as eraser:
        eraser.add(labelled(numbers, labels), columns=DIGIT_COLUMNS)
        eraser.train()
        return eraser.model_digest


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace of 40 digits; only copied by the tests."""
    root = tmp_path_factory.mktemp("relabel") / "w"
    made(root, range(40), {})
    return root


@pytest.fixture
def root(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "w"))


@pytest.fixture
def fake() -> Fake:
    return Fake()


@pytest.fixture
def eraser(root: Path, fake: Fake) -> Iterator[Eraser]:
    with opened(root, fake) as one:
        yield one


def label_of(eraser: Eraser, record_id: str) -> str:
    return eraser.classes[eraser.workspace.records.find([record_id])[record_id][1]]


def another(eraser: Eraser, record_id: str) -> str:
    """A label that is not the record's."""
    return str((int(label_of(eraser, record_id)) + 3) % 10)


def members(eraser: Eraser) -> dict[int, tuple[str, ...]]:
    model = eraser.workspace.generations.require()
    clusters = model.cluster_numbers(eraser.workspace.records.derived.trie_keys(model.partition.key))
    numbers = sorted(set(clusters.values()))
    return {n: tuple(sorted(i for i, number in clusters.items() if number == n)) for n in numbers}


def state(eraser: Eraser) -> tuple[Model, int, bytes, list[Any], list[str]]:
    """All that a rectification may change."""
    workspace = eraser.workspace
    files = sorted(path.name for folder in ("artifacts", "memo") for path in (workspace.root / folder).rglob("*"))
    ledger = (workspace.root / "ledger").read_bytes()
    return (
        workspace.generations.require(),
        workspace.records.changes.revision,
        ledger,
        workspace.records.index(),
        files,
    )


# --- exactness ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sampled", [True, False])
def test_the_model_is_the_one_that_training_with_the_right_label_gives(
    eraser: Eraser, tmp_path: Path, sampled: bool
) -> None:
    sample = eraser.sampled_ids()
    wrong = sample[0] if sampled else next(i for i in eraser.record_ids() if i not in sample)
    label, before = another(eraser, wrong), eraser.model_digest
    settled = eraser.relabel(label, ids=[wrong])
    assert label_of(eraser, wrong) == label
    assert settled.training is not None
    assert (settled.training.changed, settled.training.model.generation) == (True, 1)
    assert eraser.model_digest == made(tmp_path / "fresh", range(40), {wrong: label})
    assert eraser.model_digest != before
    assert eraser.status().up_to_date
    assert eraser.audit().identical


NAMES = [f"digit-{number:04d}" for number in range(14)]
STEPS = st.lists(
    st.tuples(st.lists(st.sampled_from(NAMES), min_size=1, max_size=4), st.integers(0, 9).map(str)), max_size=3
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace of 14 digits; only copied by the tests."""
    root = tmp_path_factory.mktemp("small") / "w"
    made(root, range(14), {})
    return root


@given(steps=STEPS)
@settings(examples(fast=4, explore=12))
def test_any_corrections_in_any_order_give_what_the_last_labels_give(
    small: Path, tmp_path_factory: pytest.TempPathFactory, steps: Sequence[tuple[list[str], str]]
) -> None:
    folder = tmp_path_factory.mktemp("law")
    shutil.copytree(small, folder / "w")
    labels: dict[str, str] = {}
    with opened(folder / "w", Fake()) as eraser:
        for ids, label in steps:
            eraser.relabel(label, ids=ids)
            labels |= dict.fromkeys(ids, label)
            assert eraser.check_ledger().sound
        ours = eraser.model_digest
    assert ours == made(folder / "fresh", range(14), labels)


def test_correcting_it_back_gives_the_first_model_again(eraser: Eraser) -> None:
    first, right = eraser.model_digest, label_of(eraser, "digit-0003")
    eraser.relabel(another(eraser, "digit-0003"), ids=["digit-0003"])
    assert eraser.model_digest != first
    eraser.relabel(right, ids=["digit-0003"])
    assert eraser.model_digest == first
    assert eraser.status().generation == 2
    assert eraser.check_ledger().sound


def test_before_the_first_training_only_the_label_changes(tmp_path: Path) -> None:
    Eraser.create(tmp_path / "w", CONFIG, clock=lambda: NOW).close()
    with opened(tmp_path / "w", Fake()) as eraser:
        eraser.add(digits(range(14)), columns=DIGIT_COLUMNS)
        label = another(eraser, "digit-0003")
        assert eraser.relabel(label, ids=["digit-0003"]).training is None
        assert eraser.workspace.generations.current() is None
        assert eraser.check_ledger().sound
        eraser.train()
        assert eraser.model_digest == made(tmp_path / "fresh", range(14), {"digit-0003": label})


# --- what is done ------------------------------------------------------------------------------------------


def test_only_the_clusters_of_the_records_are_tuned_again(eraser: Eraser, fake: Fake) -> None:
    clusters = members(eraser)
    assert len(clusters) == 4
    first, second = clusters[0], clusters[2]
    wrong = [next(i for i in ids if label_of(eraser, i) != "7") for ids in (first, second)]
    before = eraser.workspace.generations.require()
    training = eraser.relabel("7", ids=[*wrong, *wrong]).training
    assert training is not None
    after = eraser.workspace.generations.require()
    assert sorted(fake.tuned) == sorted([first, second])
    assert fake.embedded == []
    assert (training.stage_counts["tuned"], training.stage_counts["tuned_records"]) == (
        2,
        len(first) + len(second),
    )
    assert "fitted" not in training.stage_counts
    assert after.partition == before.partition
    assert [c.number for c in after.clusters if c not in before.clusters] == [0, 2]
    assert members(eraser) == clusters


def test_what_came_from_the_old_label_is_purged(eraser: Eraser) -> None:
    before = eraser.workspace.generations.require()
    number = next(n for n, ids in members(eraser).items() if "digit-0003" in ids)
    old = before.stages[f"cluster {number}"]
    root = eraser.workspace.root

    def files_with(digest: Digest) -> list[str]:
        files = (path for path in root.rglob("*") if path.is_file())
        return [path.name for path in files if digest.hex in path.name or digest.hex.encode() in path.read_bytes()]

    assert files_with(old.artifact)
    assert files_with(old.key)
    eraser.relabel(another(eraser, "digit-0003"), ids=["digit-0003"])
    eraser.close()
    assert files_with(old.artifact) == []
    assert files_with(old.key) == []
    assert sorted(path.name for path in (root / "generations").iterdir()) == ["00000001.json", "current"]


def test_the_ledger_tells_of_it_without_names_and_stays_sound(eraser: Eraser) -> None:
    wrong = ["digit-0003", "digit-0005"]
    old = eraser.workspace.records.commitments.by_entry()
    eraser.relabel("1", ids=["digit-0004", *wrong])  # digit-0004 is a 4
    new = eraser.workspace.records.commitments.by_entry()
    report = eraser.check_ledger()
    assert report.sound
    entry, generation = report.entries[-2:]
    assert (entry.kind, generation.kind) == ("relabelled", "generation")
    assert entry.body["records"] == 3
    (added,) = old
    assert entry.body["removed"] == {str(added): sorted(set(old[added]) - set(new[added]))}
    assert new.keys() == {added, entry.position}
    assert not set(new[entry.position]) & set(old[added]), "the new commitments are under new keys"
    ledger = (eraser.workspace.root / "ledger").read_bytes()
    assert b"digit" not in ledger


def test_records_may_be_deleted_and_added_after_it(eraser: Eraser) -> None:
    eraser.relabel("1", ids=["digit-0003", "digit-0004", "digit-0005"])
    eraser.unlearn(ids=["digit-0003", "digit-0009"])
    assert eraser.check_ledger().sound
    eraser.relabel("2", ids=["digit-0004", "digit-0010"])
    eraser.add(digits(range(40, 44)), columns=DIGIT_COLUMNS)
    eraser.relabel("3", ids=["digit-0041", "digit-0005"])
    eraser.unlearn(ids=["digit-0041", "digit-0004"])
    assert eraser.check_ledger().sound
    assert eraser.audit().identical
    assert [label_of(eraser, i) for i in ("digit-0005", "digit-0010")] == ["3", "2"]


# --- what is refused, and what changes nothing -------------------------------------------------------------


def test_unknown_records_are_all_listed_and_nothing_is_changed(eraser: Eraser, fake: Fake) -> None:
    before = state(eraser)
    eraser.unlearn(ids=["digit-0009"])
    assert state(eraser) != before, "the state tells of changes"
    before, tuned = state(eraser), list(fake.tuned)
    unknown = ["nobody", "no-one", "w1", "digit-0009", "", "a\nb", "\udcff"]
    with pytest.raises(UnknownRecordError) as caught:
        eraser.relabel("1", ids=["digit-0003", *unknown])
    assert all(repr(name) in str(caught.value) for name in unknown)
    assert "digit-0003" not in str(caught.value)
    assert state(eraser) == before
    assert fake.tuned == tuned
    assert eraser.check_ledger().sound


def test_a_class_is_named_in_any_spelling_of_its_accents(eraser: Eraser) -> None:
    eraser.extend_classes(["Lo\u0308we"])
    eraser.relabel("L\u00f6we", ids=["digit-0003"])
    assert eraser.workspace.records.find(["digit-0003"])["digit-0003"][1] == len(eraser.classes) - 1


@pytest.mark.parametrize("label", ["10", "", "zero", " 1", "-1", "\udcff"])
def test_an_unknown_label_is_refused_and_the_classes_are_listed(eraser: Eraser, label: str) -> None:
    before = state(eraser)
    with pytest.raises(InputError) as caught:
        eraser.relabel(label, ids=["digit-0003"])
    assert repr(label) in str(caught.value)
    assert "0, 1, 2, 3" in str(caught.value)
    assert state(eraser) == before


def test_a_correction_of_nothing_is_refused(eraser: Eraser) -> None:
    before = state(eraser)
    with pytest.raises(InputError, match="No record named"):
        eraser.relabel("1", ids=[])
    assert state(eraser) == before


def test_a_label_that_is_right_already_changes_nothing(eraser: Eraser, fake: Fake) -> None:
    same = [i for i in eraser.record_ids() if label_of(eraser, i) == "1"]
    before, entries = state(eraser), eraser.check_ledger().entries
    commitments = eraser.workspace.records.commitments.by_entry()
    settled = eraser.relabel("1", ids=same)
    assert settled.training is not None
    assert not settled.training.changed
    assert state(eraser) == before
    assert eraser.check_ledger().entries == entries
    assert eraser.workspace.records.commitments.by_entry() == commitments
    assert fake.tuned == []


def test_only_labels_that_differ_are_changed(eraser: Eraser) -> None:
    same = next(i for i in eraser.record_ids() if label_of(eraser, i) == "1")
    eraser.relabel("1", ids=[same, "digit-0003"])
    assert eraser.check_ledger().entries[-2].body["records"] == 1


def test_a_class_that_was_added_on_purpose_may_be_given(eraser: Eraser) -> None:
    eraser.extend_classes(["a letter"])
    eraser.relabel("a letter", ids=["digit-0003"])
    assert label_of(eraser, "digit-0003") == "a letter"
    assert eraser.audit().identical


# --- the command line --------------------------------------------------------------------------------------


@pytest.fixture
def run(run: Run, root: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The command line on the workspace, without torch."""
    fake = Fake()
    monkeypatch.setattr(ExecutorProvider, "local", lambda _: fake)
    return partial(run, "-w", root)


def test_the_command_corrects_labels_and_reports_the_training(run: Run, root: Path, tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_text("digit-0003\ndigit-0005\n")
    arguments = ("relabel", "--label", "1", "--ids-file", tmp_path / "ids.txt", "--id", "digit-0004")
    code, out, _ = run(*arguments, "--json")
    first = json.loads(out)
    assert (code, first["changed"], first["generation"]) == (0, True, 1)
    labels = dict.fromkeys(["digit-0003", "digit-0004", "digit-0005"], "1")
    assert first["model_digest"] == made(tmp_path / "fresh", range(40), labels)
    code, out, _ = run(*arguments)
    assert (code, "relabelled" in out) == (0, True)
    assert json.loads(run("status", "--json")[1])["generation"] == 1
    assert run("ledger")[0] == 0


def test_the_command_refuses_what_it_cannot_do(run: Run) -> None:
    for arguments, part in (
        (("--label", "1", "--id", "nobody", "--id", "digit-0003", "--id", "no-one"), "'no-one'"),
        (("--label", "eleven", "--id", "digit-0003"), "'eleven'"),
        (("--label", "1"), "--ids-file"),
        (("--id", "digit-0003"), "--label"),
    ):
        code, out, err = run("relabel", *arguments)
        assert (code, out) == (2, "")
        assert part in err
        assert "Traceback" not in err
    assert json.loads(run("status", "--json")[1])["generation"] == 0
