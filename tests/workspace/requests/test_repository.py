"""Requests are accepted and cancelled while a model is derived, and nothing of either is lost."""

from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import faults
import lmeraser.unlearning.unlearn as unlearn_module
from conftest import Template
from fake import Fake
from faults import name, opened
from lmeraser import Eraser
from lmeraser.errors import InputError, StorageError, UnknownRecordError
from lmeraser.workspace.workspace import Workspace
from serving import fake_workspace

FIRST, SECOND = (str(uuid.UUID(int=number)) for number in (1, 2))


@pytest.fixture
def root(template: Template, tmp_path: Path) -> Path:
    """Twelve records in three clusters, trained."""
    return fake_workspace(template, tmp_path)


@pytest.fixture
def eraser(root: Path) -> Iterator[Eraser]:
    with opened(root) as one:
        yield one


class Meanwhile(Fake):
    """An executor in the midst of whose work something else happens, once."""

    def __init__(self, happens: Callable[[], object]) -> None:
        super().__init__()
        self._happens: Callable[[], object] | None = happens

    def tune(self, *arguments: Any) -> Any:
        happens, self._happens = self._happens, None
        if happens:
            happens()
        yield from super().tune(*arguments)


def elsewhere(root: Path, do: Callable[[Eraser], object]) -> Callable[[], None]:
    """Something that is done as another process does it: with a workspace and a lock of its own."""

    def done() -> None:
        with ThreadPoolExecutor(1) as pool, opened(root) as other:
            pool.submit(do, other).result()

    return done


def states(eraser: Eraser) -> dict[str, str]:
    return {request.id: request.state for request in eraser.requests()}


def digest_without(folder: Path, *numbers: int) -> str:
    return faults.fresh_digest(folder / "fresh", [n for n in faults.ALL if n not in numbers], {})


# --- while somebody writes -----------------------------------------------------------------------------------


@pytest.mark.sqlite
def test_a_request_is_accepted_while_another_process_writes(root: Path, eraser: Eraser) -> None:
    code = (
        "import sys; from lmeraser.workspace.workspace import Workspace\n"
        "with Workspace(sys.argv[1]).writing('train'): print(flush=True); sys.stdin.read()"
    )
    pipe, ledger = subprocess.PIPE, root / "ledger"
    with subprocess.Popen([sys.executable, "-c", code, str(root)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        before = ledger.read_bytes()
        eraser.request(ids=[name(4)], request=FIRST)
        assert ledger.read_bytes() == before, "only one process appends to the ledger"
        assert eraser.check_ledger().entries[-1].kind == "request"
        assert eraser.cancel(FIRST).state == "cancelled"
        eraser.request(ids=[name(4)], request=SECOND)
        process.communicate()
    assert states(eraser) == {FIRST: "cancelled", SECOND: "pending"}
    kinds = [entry.kind for entry in eraser.check_ledger().entries]
    assert kinds[-3:] == ["request", "cancelled", "request"]
    assert ledger.read_bytes().count(b"\n") == len(kinds)


def test_what_is_accepted_during_a_derivation_waits_and_is_quarantined_in_the_next_generation(
    root: Path, eraser: Eraser, tmp_path: Path
) -> None:
    eraser.request(ids=[name(1)], request=FIRST)
    ask = elsewhere(root, lambda other: other.request(ids=[name(10)], request=SECOND))
    eraser.session.executors.use(Meanwhile(ask))
    report = eraser.unlearn()
    assert report.selection.ids == (name(1),)
    assert states(eraser) == {FIRST: "completed", SECOND: "pending"}
    model = eraser.workspace.generations.require()
    assert eraser.model_digest == digest_without(tmp_path, 1)
    places = eraser.workspace.records.derived.trie_keys(model.partition.key, [name(10)])
    assert eraser.quarantined() == set(model.cluster_numbers(places).values()) != set()
    eraser.unlearn()
    assert eraser.model_digest == digest_without(tmp_path, 1, 10)
    assert states(eraser) == {FIRST: "completed", SECOND: "completed"}
    assert eraser.check_ledger().sound


def test_a_request_that_has_begun_cannot_be_cancelled(root: Path, eraser: Eraser) -> None:
    eraser.request(ids=[name(1)], request=FIRST)
    refused: list[InputError] = []

    def cancel(other: Eraser) -> None:
        with pytest.raises(InputError, match="completed or failed") as caught:
            other.cancel(FIRST)
        refused.append(caught.value)

    eraser.session.executors.use(Meanwhile(elsewhere(root, cancel)))
    eraser.unlearn()
    assert len(refused) == 1
    assert states(eraser) == {FIRST: "completed"}


def before_beginning(eraser: Eraser, monkeypatch: pytest.MonkeyPatch, happens: Callable[[], None]) -> None:
    """Let something happen after `unlearn` looked at the requests and before it begins them."""
    real = Workspace.write_transaction

    def changing(workspace: Workspace) -> Any:
        monkeypatch.setattr(Workspace, "write_transaction", real)
        happens()
        return real(workspace)

    monkeypatch.setattr(Workspace, "write_transaction", changing)


def test_what_is_accepted_before_the_others_begin_is_carried_out_with_them(
    root: Path, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    eraser.request(ids=[name(1)], request=FIRST)
    ask = elsewhere(root, lambda other: other.request(ids=[name(2)], request=SECOND))
    before_beginning(eraser, monkeypatch, ask)
    assert eraser.unlearn().selection.ids == (name(1), name(2))
    assert states(eraser) == {FIRST: "completed", SECOND: "completed"}


def test_what_is_cancelled_before_it_begins_is_not_carried_out(
    root: Path, eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    eraser.request(ids=[name(1)], request=FIRST)
    before_beginning(eraser, monkeypatch, elsewhere(root, lambda other: other.cancel(FIRST)))
    with pytest.raises(InputError, match="no request is open"):
        eraser.unlearn()
    assert states(eraser) == {FIRST: "cancelled"}
    assert len(eraser.record_ids()) == 12
    assert eraser.check_ledger().sound


@pytest.mark.parametrize("done", [1, 2], ids=["excluded from the statistics", "one has begun"])
def test_stopped_between_transactions_that_begin_requests_the_next_command_carries_out_all(
    root: Path, eraser: Eraser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, done: int
) -> None:
    for number, request in ((1, FIRST), (2, SECOND)):
        eraser.request(ids=[name(number)], request=request)
    both = eraser.quarantined()
    real = Workspace.write_transaction
    begun = list[int]()

    def stopped(workspace: Workspace) -> Any:
        begun.append(1)
        if len(begun) > done:
            raise KeyboardInterrupt
        return real(workspace)

    with monkeypatch.context() as patch:
        patch.setattr("lmeraser.unlearning.unlearn._TOGETHER", 1)
        patch.setattr(Workspace, "write_transaction", stopped)
        with pytest.raises(KeyboardInterrupt):
            eraser.unlearn()
    assert sorted(states(eraser).values()) == [["pending", "pending"], ["in_progress", "pending"]][done - 1]
    assert len(eraser.record_ids()) == 13 - done
    assert eraser.quarantined() == both, "both are still left out of predictions"
    eraser.unlearn()
    assert set(states(eraser).values()) == {"completed"}
    assert eraser.model_digest == digest_without(tmp_path, 1, 2)
    assert eraser.check_ledger().sound


def test_what_is_excluded_and_then_taken_back_is_included_again(
    root: Path, eraser: Eraser, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number, request in ((1, FIRST), (2, SECOND)):
        eraser.request(ids=[name(number)], request=request)
    monkeypatch.setattr("lmeraser.unlearning.unlearn._TOGETHER", 1)
    real = unlearn_module._exclude_together

    def then_cancelled(workspace: Workspace, selections: Any) -> None:
        real(workspace, selections)
        elsewhere(root, lambda other: other.cancel(SECOND))()

    monkeypatch.setattr(unlearn_module, "_exclude_together", then_cancelled)
    eraser.unlearn()
    assert states(eraser) == {FIRST: "completed", SECOND: "cancelled"}
    assert eraser.model_digest == digest_without(tmp_path, 1)


def test_many_requests_at_once_while_models_are_derived(root: Path, eraser: Eraser) -> None:
    stop, numbers = threading.Event(), [n for n in faults.ALL if n % 4 != 3]

    def derive() -> None:
        with opened(root) as other:
            while not stop.is_set():
                other.request(subjects=["person-3"])
                other.unlearn()

    def ask(number: int) -> str:
        with opened(root) as other:
            return other.request(ids=[name(number)]).id

    with ThreadPoolExecutor(5) as pool:
        deriving = pool.submit(derive)
        accepted = list(pool.map(ask, numbers))
        stop.set()
        deriving.result()
    eraser.workspace._wait = 30
    if any(request.open for request in eraser.requests()):
        eraser.unlearn()
    assert {states(eraser)[request] for request in accepted} == {"completed"}
    assert eraser.record_ids() == []
    report = eraser.check_ledger()
    assert report.sound
    assert sum(entry.kind == "request" for entry in report.entries) == len(eraser.requests())


# --- names ---------------------------------------------------------------------------------------------------


def test_a_subject_whose_records_were_deleted_by_their_ids_holds_up_nobody(eraser: Eraser) -> None:
    mine = [name(n) for n in faults.ALL if n % 4 == 2]
    eraser.request(ids=mine, request=FIRST)
    eraser.request(subjects=["person-2"], request=SECOND)
    eraser.unlearn(request=FIRST)
    assert eraser.quarantined() == frozenset()
    report = eraser.unlearn()
    assert (report.selection.ids, report.selection.already_deleted) == ((), ("person-2",))
    assert states(eraser) == {FIRST: "completed", SECOND: "completed"}
    with pytest.raises(UnknownRecordError):
        eraser.request(subjects=["person-9"])


def test_failed_requests_are_left_alone_if_that_is_asked_for(
    eraser: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmeraser.unlearning.completion
    from lmeraser.unlearning.unlearn import unlearn

    with monkeypatch.context() as patch:
        patch.setattr(lmeraser.unlearning.completion, "_audit", lambda *_: {"identical": False})
        eraser.unlearn(ids=[name(1)], request=FIRST, audit=True)
    assert states(eraser) == {FIRST: "failed"}
    with pytest.raises(InputError, match="no request is open"):
        unlearn(eraser.session, retry_failed=False)
    eraser.unlearn()
    assert states(eraser) == {FIRST: "completed"}


def test_a_request_is_accepted_whole_or_not_at_all(eraser: Eraser, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise StorageError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(eraser.workspace.ledger, "note", full)
        with pytest.raises(StorageError):
            eraser.request(ids=[name(1)])
    assert eraser.requests() == []
    assert eraser.check_ledger().sound
