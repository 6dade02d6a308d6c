"""Records with the payload of a deleted one are counted, and deleted with it only if the request asks for it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value
from hypothesis import given
from hypothesis import strategies as st

from conftest import DIGIT_CLASSES, DIGIT_COLUMNS, Run, Template, digits, examples, forget, tiny_config
from fake import Fake
from lmeraser import Eraser
from lmeraser.config.schema import parse
from lmeraser.data.records import Record, Records
from lmeraser.evidence.certificate import CLAIM
from lmeraser.unlearning.duplicates import near_duplicates, near_held

SAME = ("copy-a", "copy-b")  # have the image of digit-0003


def _images(eraser: Eraser, *ids: str) -> list[bytes]:
    return eraser.workspace.records.payloads(ids)


def _others(image: bytes) -> Dataset:
    """The same picture under two other people."""
    columns = Features(
        image=Image(), label=ClassLabel(names=DIGIT_CLASSES), id=Value("string"), writer=Value("string")
    )
    rows = {
        "image": [{"bytes": image, "path": None}] * 2,
        "label": [3, 3],
        "id": list(SAME),
        "writer": ["x", "y"],
    }
    return Dataset.from_dict(rows, features=columns)


def _train(root: Path) -> None:
    with Eraser.create(root, tiny_config()) as eraser:
        eraser.session.executors.use(Fake())
        assert eraser.add(digits(range(20)), columns=DIGIT_COLUMNS).duplicates == 0
        report = eraser.add(_others(_images(eraser, "digit-0003")[0]), columns=DIGIT_COLUMNS)
        assert (report.added, report.duplicates) == (2, 2)
        eraser.train()


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    return Path(shutil.copytree(template("duplicates", _train), tmp_path / "w"))


@pytest.fixture
def eraser(root: Path) -> Iterator[Eraser]:
    with Eraser(root) as opened:
        opened.session.executors.use(Fake())
        yield opened


def test_a_plan_counts_what_would_be_left(eraser: Eraser) -> None:
    plan = eraser.plan(ids=["digit-0003"])
    assert (plan.records, plan.duplicates, plan.duplicates_selected) == (1, 2, 0)
    assert plan.near_duplicates is None
    assert eraser.plan(ids=["digit-0003", SAME[0]]).duplicates == 1
    assert eraser.plan(ids=["digit-0004"]).warnings == ()


def test_with_duplicates_a_plan_selects_them(eraser: Eraser) -> None:
    plan = eraser.plan(subjects=["x"], with_duplicates=True)
    assert (plan.records, plan.duplicates, plan.duplicates_selected) == (3, 0, 2)


def test_near_duplicates_are_counted_by_their_features_and_never_selected() -> None:
    records = _memory({"gone": b"1", "same": b"1", "scaled": b"2", "near": b"3", "far": b"4", "other key": b"5"})
    assert _store is not None
    vectors = {"gone": [1, 0], "same": [1, 0], "scaled": [9, 0], "near": [1, 0.3], "far": [1, 0.4]}
    features = {name: np.array(vector, np.float32) for name, vector in vectors.items()}
    records.derived.store_features(features, key="k")
    records.derived.store_features({"other key": np.array([1, 0], np.float32)}, key="other")
    together = {"one": ["gone"], "two": ["scaled", "near"], "none": [], "mixed": ["far", "other key"]}
    assert near_duplicates(_store.workspace, {"one": ["gone"]}) == {"one": 2}
    assert near_duplicates(_store.workspace, together) == {"one": 0, "two": 1}, "what goes together is not left"
    assert near_held(_store.workspace, np.array([[0, 1], [2, 0]], np.float32), key="k", duplicates=["same"]) == 3
    assert len(records.index()) == 6


def test_in_large_workspaces_near_duplicates_are_not_counted(tmp_path: Path) -> None:
    config = parse({"requests": {"near_duplicate_records": 1}})
    with Eraser.create(tmp_path / "w", config, classes=["a"]) as eraser:
        records = eraser.workspace.records
        for count, name in enumerate(("a", "b")):
            with records.database.transaction() as connection:
                records.insert(connection, [Record(name, None, 0, name.encode())], entry=1)
            records.derived.store_features({name: np.ones(2, np.float32)}, key="k")
            assert near_duplicates(eraser.workspace, {"one": ["a"]}) == ({} if count else {"one": 0})


def test_a_certificate_does_not_claim_what_duplicates_contradict(eraser: Eraser) -> None:
    report = eraser.unlearn(ids=["digit-0003"])
    (request,) = report.requests
    assert (request.records, request.duplicates) == (1, 2)
    assert report.to_json()["duplicates"] == 2
    text = Path(report.certificates[0]).with_suffix(".txt").read_text()
    assert "Their number: 2" in " ".join(text.split())
    report = eraser.unlearn(ids=[SAME[0]], with_duplicates=True)
    assert report.requests[0].duplicates == 0
    text = Path(report.certificates[0]).with_suffix(".txt").read_text()
    assert CLAIM in " ".join(text.split())
    assert not set(SAME) & set(eraser.record_ids())


def test_duplicates_go_even_if_another_request_deletes_the_named_record_first(eraser: Eraser) -> None:
    wide = eraser.request(ids=["digit-0003"], with_duplicates=True)
    plain = eraser.unlearn(ids=["digit-0003"])
    assert plain.requests[0].duplicates == 2
    eraser.unlearn(request=wide.id)
    assert not set(SAME) & set(eraser.record_ids())
    assert eraser.check_ledger().sound


def test_a_record_of_before_the_upgrade_is_found_too(eraser: Eraser) -> None:
    records = eraser.workspace.records
    with records.database.transaction() as connection:
        connection.exec_driver_sql("UPDATE records SET payload = NULL")
    assert records.duplicates(["digit-0003"]) == {"digit-0003": set(SAME)}
    records.bring_up_to_date()
    assert records.duplicates(["digit-0003"]) == {"digit-0003": set(SAME)}


@examples(fast=8, explore=200)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=6), st.data())
def test_duplicates_are_exactly_the_others_with_equal_payloads(payloads: list[int], data: st.DataObject) -> None:
    held = {f"r{number}": bytes([payload]) for number, payload in enumerate(payloads)}
    asked = data.draw(st.sets(st.sampled_from(sorted(held))))
    found = _memory(held).duplicates([*asked, "missing"])
    expected = {one: {other for other in held if other != one and held[other] == held[one]} for one in asked}
    assert found == {one: others for one, others in expected.items() if others}


_store: Eraser | None = None


@pytest.fixture(scope="module", autouse=True)
def _workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    global _store
    with Eraser.create(tmp_path_factory.mktemp("records") / "w", tiny_config(), classes=["a"]) as _store:
        yield


def _memory(held: dict[str, bytes]) -> Records:
    assert _store is not None
    records = _store.workspace.records
    forget(records, [record.id for record in records.index()])
    with records.database.transaction() as connection:
        records.insert(connection, [Record(i, None, 0, data) for i, data in held.items()], entry=1)
    return records


def test_the_residue_of_a_deleted_file_says_who_else_holds_it(eraser: Eraser, tmp_path: Path) -> None:
    (tmp_path / "probe.png").write_bytes(_images(eraser, "digit-0003")[0])
    eraser.unlearn(ids=["digit-0003"])
    assert eraser.residue([tmp_path / "probe.png"], features=False).held == 2


def test_the_commands_say_it_and_take_the_option(root: Path, run: Run) -> None:
    said = run("-w", root, "plan", "--id", "digit-0003").out
    assert "same payload" in said
    assert "--with-duplicates" in said
    accepted = run(
        "-w", root, "requests", "accept", "--id", "digit-0003", "--with-duplicates", "--asked-on", "2026-03-01"
    )
    assert accepted.code == 0, accepted.err
    with Eraser(root) as eraser:
        (request,) = eraser.requests()
        assert request.asked == "2026-03-01T00:00:00Z"
        assert set(eraser.workspace.requests.selection(request).ids) == {"digit-0003", *SAME}
    refused = run("-w", root, "unlearn", "--with-duplicates")
    assert refused.code == 2
    assert "no record or subject named" in refused.err


def test_requests_are_begun_in_short_transactions_and_certified_as_if_in_one(
    eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever accepts a request waits for a transaction; a duplicate that goes in a later one is not left."""
    monkeypatch.setattr("lmeraser.unlearning.unlearn._TOGETHER", 1)
    for record_id in ("digit-0003", *SAME, "digit-0003", "digit-0001"):
        eraser.request(ids=[record_id])
    report = eraser.unlearn()
    counts = [(request.records, request.already_deleted, request.duplicates) for request in report.requests]
    assert sorted(counts, key=str) == [(0, 1, None), *[(1, 0, 0)] * 4], "one of two that name the same came later"
    assert (len(report.selection.ids), report.selection.already_deleted) == (4, ())
    ledger = eraser.check_ledger()
    assert ledger.sound
    assert sum(entry.kind == "deleted" for entry in ledger.entries) == 5
