"""An older state and a newer ledger give the newer state: the oracle is the workspace that was never set back."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import examples
from faults import ALL, CLASSES, CONFIG, NOW, REQUEST, SAMPLED, add, name, opened, rows
from lmeraser import Eraser
from lmeraser.data.importing import import_records
from lmeraser.errors import VerificationError
from lmeraser.evidence.hash_chain import Entry, check
from lmeraser.workspace.replay import ReplayReport, replay

OTHER = "00000000-0000-4000-8000-000000000002"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained workspace of twelve records of four people; only copied."""
    root = tmp_path_factory.mktemp("base") / "w"
    Eraser.create(root, CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(root) as eraser:
        add(eraser, ALL)
        eraser.train()
    return root


@pytest.fixture
def lost(base: Path, tmp_path: Path) -> Path:
    """The workspace that goes on."""
    return copied(base, tmp_path / "lost")


@pytest.fixture
def old(base: Path, tmp_path: Path) -> Path:
    """A copy that stays as it was."""
    return copied(base, tmp_path / "old")


def copied(root: Path, target: Path) -> Path:
    """A copy of a workspace as it is now, its database included, wherever that is."""
    shutil.copytree(root, target)
    with opened(target) as eraser:
        eraser.workspace.database.get_metadata("ledger")
    return target


def again(root: Path, newest: bytes) -> ReplayReport:
    """Carry out again what a newer ledger tells, and derive."""
    with opened(root) as eraser:
        report = replay(eraser.workspace, newest)
        eraser.train()
    return report


def ledger(root: Path) -> bytes:
    return (root / "ledger").read_bytes()


def same(first: Path, second: Path) -> bool:
    """Whether two workspaces serve the same model of the same records, and their ledgers agree with them."""
    with opened(first) as one, opened(second) as two:
        assert one.check_ledger().sound
        assert two.check_ledger().sound, two.check_ledger().differences
        return one.record_ids() == two.record_ids() and one.model_digest == two.model_digest


@pytest.mark.parametrize("ids", [[10], [SAMPLED], [1, 2, 3, SAMPLED], list(ALL)])
def test_records_that_were_deleted_since_are_deleted_again(lost: Path, old: Path, ids: list[int]) -> None:
    with opened(lost) as eraser:
        eraser.unlearn(ids=[name(n) for n in ids])
    report = again(old, ledger(lost))
    assert (report.records_deleted, report.records_lost, report.requests_lost) == (len(ids), 0, ())
    assert same(lost, old)


@settings(examples(fast=4, explore=12), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sets(st.integers(0, 11), min_size=1, max_size=4), max_size=3), st.integers(0, 3))
def test_any_deletions_before_and_after_the_copy(
    base: Path, tmp_path_factory: pytest.TempPathFactory, batches: list[set[int]], copied_after: int
) -> None:
    folder = tmp_path_factory.mktemp("any")
    copied(base, folder / "lost")
    for number, batch in enumerate(batches):
        if number == copied_after:
            copied(folder / "lost", folder / "old")
        with opened(folder / "lost") as eraser:
            eraser.unlearn(ids=[name(n) for n in batch])
    if not (folder / "old").exists():
        copied(folder / "lost", folder / "old")
    again(folder / "old", ledger(folder / "lost"))
    assert same(folder / "lost", folder / "old")


def test_what_is_deleted_again_leaves_no_byte_and_does_not_come_back(lost: Path, old: Path) -> None:
    with opened(lost) as eraser:
        eraser.unlearn(subjects=["person-2"])
    again(old, ledger(lost))
    with opened(old) as eraser:
        workspace = eraser.workspace
        assert eraser.residue(ids=[name(2), "person-2"], features=False).clean
        with workspace.writing("add"):
            refused = import_records(workspace.records, rows([2, 6]), ledger=workspace.ledger, now=NOW)
        assert (refused.added, refused.suppressed) == (0, 2)
        assert workspace.records.suppression.find("subject", ["person-2", "person-1"]) == {"person-2"}


def test_the_ledger_goes_on_and_numbers_of_generations_as_well(lost: Path, old: Path) -> None:
    with opened(lost) as eraser:
        eraser.unlearn(ids=[name(1)])
        eraser.unlearn(ids=[name(2)])
        before = eraser.workspace.generations.require()
    newest = ledger(lost)
    again(old, newest)
    assert ledger(old).startswith(newest)
    kinds = [(e.kind, dict(e.body)) for e in check(ledger(old))[len(check(newest)) :]]
    assert kinds[0] == ("restored", {"entries": 3})
    assert [kind for kind, _ in kinds] == ["restored", "generation"]
    with opened(old) as eraser:
        after = eraser.workspace.generations.require()
    assert (before.generation, after.generation, after.previous) == (2, 3, before.public_digest)


def test_carrying_out_again_is_harmless_to_repeat(lost: Path, old: Path) -> None:
    with opened(lost) as eraser:
        eraser.unlearn(ids=[name(1)])
    newest = ledger(lost)
    again(old, newest)
    once = ledger(old)
    assert again(old, newest) == again(old, once) == ReplayReport()
    assert ledger(old) == once


def test_a_state_can_be_set_back_twice_to_any_earlier_one(
    base: Path, lost: Path, old: Path, tmp_path: Path
) -> None:
    with opened(lost) as eraser:
        eraser.unlearn(ids=[name(1)])
    again(old, ledger(lost))
    with opened(old) as eraser:
        add(eraser, range(12, 14))
        eraser.train()
        eraser.unlearn(ids=[name(2), name(13)])
    oldest = copied(base, tmp_path / "oldest")
    report = again(oldest, ledger(old))
    assert (report.records_deleted, report.records_lost) == (2, 2)
    with opened(oldest) as eraser:
        assert eraser.check_ledger().sound
        assert eraser.record_ids() == sorted(name(n) for n in ALL if n not in (1, 2))
        assert eraser.audit().identical


def test_what_was_added_and_relabelled_since_is_told(lost: Path, old: Path) -> None:
    with opened(lost) as eraser:
        add(eraser, range(12, 15))
        eraser.train()
        eraser.relabel("eel", ids=[name(4)])
        eraser.relabel("dog", ids=[name(12)])
        eraser.unlearn(ids=[name(3), name(13)])
    report = again(old, ledger(lost))
    assert (report.records_deleted, report.records_rectified, report.records_lost) == (2, 1, 3)
    with opened(old) as eraser:
        assert eraser.record_ids() == sorted(name(n) for n in ALL if n not in (3, 4))
        assert eraser.check_ledger().sound
        assert eraser.audit().identical


def test_a_lost_record_that_is_held_after_all_is_a_difference(lost: Path, old: Path) -> None:
    with opened(lost) as eraser:
        add(eraser, range(12, 14))
        eraser.unlearn(ids=[name(1)])
    again(old, ledger(lost))
    with opened(lost) as eraser:
        smuggled = check(ledger(old))
        from lmeraser.evidence.reconcile import differences

        found = differences(smuggled, eraser.workspace.records.commitments.by_entry())
    assert found == ["2 records of entry 3 are held; it came after a restored backup"]


# --- requests ----------------------------------------------------------------------------------------------


def pending(root: Path) -> None:
    with opened(root) as eraser:
        eraser.request(ids=[name(4)], subjects=["person-3"], request=REQUEST)


@pytest.fixture
def asked(base: Path, tmp_path: Path) -> tuple[Path, Path]:
    """Two copies with the same pending request: one that goes on, one that stays."""
    first = copied(base, tmp_path / "first")
    pending(first)
    return first, copied(first, tmp_path / "second")


def test_a_request_that_was_completed_since_is_completed(asked: tuple[Path, Path]) -> None:
    lost, old = asked
    with opened(lost) as eraser:
        eraser.unlearn(request=REQUEST)
        (done,) = eraser.requests()
    again(old, ledger(lost))
    assert same(lost, old)
    with opened(old) as eraser:
        (request,) = eraser.requests()
    assert (request.state, request.records, request.certificate) == ("completed", 4, done.certificate)
    assert request.changed == done.changed


def test_a_request_that_was_cancelled_since_is_cancelled(asked: tuple[Path, Path]) -> None:
    lost, old = asked
    with opened(lost) as eraser:
        eraser.cancel(REQUEST)
    assert again(old, ledger(lost)).records_deleted == 0
    with opened(old) as eraser:
        assert [request.state for request in eraser.requests()] == ["cancelled"]
        assert eraser.workspace.requests.pending_selection().ids == ()


def test_a_request_that_was_under_way_is_completed(asked: tuple[Path, Path]) -> None:
    lost, old = asked
    with opened(lost) as eraser:
        workspace = eraser.workspace
        with workspace.writing("unlearn"), workspace.write_transaction() as connection:
            workspace.request_changes.begin(connection, workspace.requests.all("pending"), None, now=NOW)
    report = again(old, ledger(lost))
    assert (report.records_deleted, report.requests_lost) == (4, ())
    with opened(old) as eraser:
        (request,) = eraser.requests()
        assert (request.state, request.records) == ("completed", 4)
        assert (eraser.workspace.certificates / f"{REQUEST}.json").exists()
        assert eraser.check_ledger().sound


def test_an_open_request_whose_names_are_lost_is_named_and_can_be_filed_again(lost: Path, old: Path) -> None:
    with opened(lost) as eraser:
        eraser.request(ids=[name(4)], request=REQUEST)
        eraser.request(ids=[name(5)], request=OTHER)
        eraser.cancel(OTHER)
        eraser.unlearn(ids=[name(6)])
    assert again(old, ledger(lost)).requests_lost == (REQUEST,)
    with opened(old) as eraser:
        assert eraser.requests() == []
        eraser.unlearn(ids=[name(4)], request=REQUEST)
        assert eraser.check_ledger().sound


# --- refused -----------------------------------------------------------------------------------------------


def shortened(entries: list[Entry], data: bytes) -> bytes:
    return b"".join(entry.line() for entry in entries[:2])


def cut(entries: list[Entry], data: bytes) -> bytes:
    return data[:-1]


def changed(entries: list[Entry], data: bytes) -> bytes:
    return data.replace(b"deleted", b"delayed", 1)


def without_one(entries: list[Entry], data: bytes) -> bytes:
    return b"".join(entry.line() for entry in entries if entry.kind != "deleted")


def forged(entries: list[Entry], data: bytes, body: Callable[[Entry], object]) -> bytes:
    """An unbroken chain with other bodies."""
    previous, lines = None, []
    for entry in entries:
        new = Entry(entry.position, previous, entry.time, entry.kind, body(entry))  # type: ignore[arg-type]
        previous = new.digest
        lines.append(new.line())
    return b"".join(lines)


def another_history(entries: list[Entry], data: bytes) -> bytes:
    return forged(entries, data, lambda e: {**e.body, "records": 1} if e.position == 1 else e.body)


def another_record(entries: list[Entry], data: bytes) -> bytes:
    unknown = {"removed": {"1": ["sha256:" + "0" * 64]}}
    return forged(entries, data, lambda e: {**e.body, **unknown} if e.kind == "deleted" else e.body)


def no_body(entries: list[Entry], data: bytes) -> bytes:
    return forged(entries, data, lambda e: {} if e.kind == "deleted" else e.body)


@pytest.mark.parametrize(
    ("attack", "told"),
    [
        (shortened, "it was shortened"),
        (cut, "no line end"),
        (changed, "does not cover it"),
        (without_one, "has position"),
        (another_history, "of another history"),
        (another_record, "are not held here"),
        (no_body, "has a malformed body: removed: "),
    ],
)
def test_a_ledger_that_does_not_hold_changes_nothing(
    lost: Path, old: Path, attack: Callable[[list[Entry], bytes], bytes], told: str
) -> None:
    with opened(lost) as eraser:
        eraser.unlearn(ids=[name(1)])
    before = ledger(old)
    with opened(old) as eraser:
        with pytest.raises(VerificationError, match=told):
            replay(eraser.workspace, attack(check(ledger(lost)), ledger(lost)))
        assert len(eraser.record_ids()) == 12
        assert eraser.workspace.generations.current() is not None
    assert ledger(old) == before


def test_a_ledger_without_its_end_is_found_by_a_head(lost: Path, old: Path) -> None:
    with opened(lost) as eraser:
        eraser.unlearn(ids=[name(1)])
        short = ledger(lost)
        eraser.unlearn(ids=[name(2)])
        head = eraser.workspace.ledger.head
    with opened(old) as eraser, pytest.raises(VerificationError, match="it was shortened"):
        replay(eraser.workspace, short, head=head)


def test_the_ledger_of_another_workspace_is_refused(old: Path, tmp_path: Path) -> None:
    Eraser.create(tmp_path / "other", CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(tmp_path / "other") as eraser:
        add(eraser, ALL)
        eraser.train()
        eraser.unlearn(ids=[name(1)])
    with opened(old) as eraser, pytest.raises(VerificationError, match="another workspace"):
        replay(eraser.workspace, ledger(tmp_path / "other"))


def test_a_crash_at_the_worst_moments_is_made_good(lost: Path, old: Path, tmp_path: Path) -> None:
    from faults import stopped

    with opened(lost) as eraser:
        eraser.unlearn(ids=[name(1), name(SAMPLED)])
    newest = ledger(lost)
    for at in itertools.count(1, 5):
        work = copied(old, tmp_path / f"at-{at}")
        code = stopped(work, lambda eraser: replay(eraser.workspace, newest), "kill", at)
        again(work, newest)
        assert same(lost, work), at
        if code == 0:
            break
        shutil.rmtree(work)
