"""Deletion requests: their rules, and any history of them, crashes included, against a plain model."""

from __future__ import annotations

import operator
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

import faults
from conftest import Template, examples
from faults import CLASSES, CONFIG, Crash, Fault, add, fresh_digest, name, opened
from lmeraser import Eraser
from lmeraser.core.time import to_text
from lmeraser.errors import (
    InputError,
    LmeraserError,
    NoModelError,
    RequestConflictError,
    UnknownRecordError,
)
from lmeraser.evidence.certificate import verify, verify_in_ledger
from lmeraser.inference.quarantine import current_scope
from lmeraser.unlearning.unlearn import unlearn
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.requests.state import Request, parse_regulation
from lmeraser.workspace.requests.table import table
from serving import fake_workspace

NOW = faults.NOW


@pytest.fixture
def trained(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    """Twelve records in three clusters."""
    with opened(fake_workspace(template, tmp_path)) as eraser:
        yield eraser


def only(eraser: Eraser) -> Request:
    (request,) = eraser.requests()
    return request


# --- accepting -----------------------------------------------------------------------------------------------


def test_an_accepted_request_is_pending_and_deletes_nothing(trained: Eraser) -> None:
    digest = trained.model_digest
    request = trained.request(ids=[name(1)], subjects=["person-2"], regulation="gdpr")
    assert (request.state, request.names, request.records) == ("pending", 2, None)
    assert uuid.UUID(request.id).version == 4
    assert only(trained) == request
    assert (len(trained.record_ids()), trained.model_digest) == (12, digest)
    assert (trained.status().open_requests, trained.status().next_due) == (1, request.due)
    assert (trained.workspace.root / "ledger").read_bytes().endswith(trained.check_ledger().entries[-1].line())


@pytest.mark.parametrize(
    ("regulation", "due"), [("gdpr", "2026-02-28T12:00:00Z"), ("ccpa", "2026-03-17T12:00:00Z"), ("other", None)]
)
def test_the_answer_is_due_when_the_law_says(trained: Eraser, regulation: Any, due: str | None) -> None:
    request = trained.request(ids=[name(1)], regulation=regulation)
    assert request.due == (due or to_text(NOW + timedelta(days=30)))
    values = request.to_json(NOW + timedelta(days=40))
    assert values["age_seconds"] == 40 * 86400
    assert values["seconds_left"] == (datetime.fromisoformat(request.due) - NOW).total_seconds() - 40 * 86400


def test_a_request_may_have_come_earlier_than_now(trained: Eraser) -> None:
    request = trained.request(ids=[name(1)], received=datetime(2026, 1, 1, tzinfo=UTC), regulation="ccpa")
    assert (request.received, request.due) == ("2026-01-01T00:00:00Z", "2026-02-15T00:00:00Z")


def test_what_can_be_carried_out_is_known_without_reading_each_request(trained: Eraser) -> None:
    requests = trained.workspace.requests

    def to_start(now: datetime) -> set[str]:
        open_requests = requests.all("pending", "in_progress")
        assert requests.states_to_start(now) == {
            one.state for one in open_requests if not one.seconds_to_start(now)
        }
        return set(requests.states_to_start(now))

    assert to_start(NOW) == set()
    for number, hours in enumerate((2, 1)):
        draft = RequestDraft(Selector.of([name(number)]), grace=timedelta(hours=hours))
        trained.workspace.request_changes.accept(draft, now=NOW)
    hour = timedelta(hours=1)
    soon = [NOW, NOW + hour - timedelta(seconds=1), NOW + hour, NOW + 2 * hour]
    assert [to_start(now) for now in soon] == [set(), set(), {"pending"}, {"pending"}]
    with trained.workspace.database.transaction() as connection:
        connection.execute(table.update().where(table.c.starts == to_text(NOW + hour)).values(starts=None))
    assert to_start(NOW) == {"pending"}, "accepted before there were grace periods"
    with trained.workspace.database.transaction() as connection:
        connection.execute(table.update().where(table.c.starts.is_(None)).values(state="in_progress"))
    assert to_start(NOW) == {"in_progress"}


def test_what_cannot_be_accepted(trained: Eraser) -> None:
    with pytest.raises(UnknownRecordError, match="nobody"):
        trained.request(ids=["nobody", name(1)])
    with pytest.raises(InputError, match="No record or subject named"):
        trained.request()
    with pytest.raises(InputError, match="UUID"):
        trained.request(ids=[name(1)], request="../../etc/passwd")
    with pytest.raises(InputError, match="gdpr, ccpa, other"):
        trained.request(ids=[name(1)], regulation="hipaa")  # type: ignore[arg-type]
    assert trained.requests() == []


def test_a_law_may_be_written_in_capitals() -> None:
    assert [parse_regulation(name) for name in ("GDPR", "ccpa", "Other")] == ["gdpr", "ccpa", "other"]


def test_repeating_an_id_with_the_same_names_is_harmless_and_with_others_an_error(trained: Eraser) -> None:
    first = trained.request(ids=[name(1), name(2)], request=faults.REQUEST)
    assert trained.request(ids=[name(2), name(1), name(1)], request=faults.REQUEST.upper()) == first
    with pytest.raises(InputError, match="other names"):
        trained.request(ids=[name(1)], request=faults.REQUEST)
    trained.unlearn()
    done = trained.unlearn(ids=[name(1), name(2)], request=faults.REQUEST)
    assert (done.requests[0].state, done.selection.ids) == ("completed", ())
    with pytest.raises(InputError, match="other names"):
        trained.unlearn(ids=[name(3)], request=faults.REQUEST)
    assert len(trained.record_ids()) == 10


# --- states --------------------------------------------------------------------------------------------------


def test_a_cancelled_request_stays_cancelled_and_forgets_its_names(trained: Eraser) -> None:
    trained.request(subjects=["person-2"], request=faults.REQUEST)
    assert trained.cancel(faults.REQUEST).state == "cancelled"
    for change in (trained.cancel, lambda request: trained.unlearn(request=request)):
        with pytest.raises(InputError):
            change(faults.REQUEST)
    with pytest.raises(InputError, match="cancelled"):
        trained.unlearn(subjects=["person-2"], request=faults.REQUEST)
    assert len(trained.record_ids()) == 12
    assert "requests" not in [table for table, _ in trained.workspace.database.decrypted_values()]


def test_a_cancellation_keeps_its_reason_and_whose_key_it_was(trained: Eraser) -> None:
    pending = trained.request(ids=[name(1)])
    with pytest.raises(InputError, match="reason"):
        trained.cancel(pending.id, reason="a whim")
    with trained.workspace.request_transaction("test") as connection:
        cancelled = trained.workspace.request_changes.cancel(
            connection, pending.id, now=faults.NOW, reason="unverified", by="0123456789ab"
        )
    assert (cancelled.state, cancelled.cancel_reason) == ("cancelled", "unverified")
    assert trained.workspace.ledger.entries()[-1].body == {
        "request": pending.id,
        "reason": "unverified",
        "by": "0123456789ab",
    }


def test_the_time_for_the_answer_is_extended_once_as_the_law_says(trained: Eraser) -> None:
    laws: list[tuple[Any, str, str]] = [
        ("gdpr", "complexity", "2026-04-30T12:00:00Z"),  # three months from the end of January
        ("ccpa", "other", "2026-05-01T12:00:00Z"),  # 90 days
        ("other", "other", "2026-04-01T12:00:00Z"),  # 60 days
    ]
    for number, (regulation, reason, due) in enumerate(laws):
        pending = trained.request(ids=[name(number)], regulation=regulation)
        extended = trained.extend(pending.id, reason=reason)
        assert (extended.due, extended.extension_reason, extended.state) == (due, reason, "pending")
        assert trained.workspace.requests.require(pending.id) == extended
        with pytest.raises(InputError, match="extended"):
            trained.extend(pending.id, reason=reason)
    report = trained.unlearn()
    assert trained.check_ledger().sound
    for path in map(Path, report.certificates):
        facts = verify(path.read_bytes(), trained.workspace.signing_key.public)
        assert facts["request"]["due"] == trained.workspace.requests.require(path.stem).due
        verify_in_ledger(path.read_bytes(), facts, trained.workspace.layout.ledger.read_bytes())
    with pytest.raises(InputError, match="extended"):
        trained.extend(report.requests[0].id, reason="other")  # it is closed


def test_neither_an_unlawful_reason_nor_a_late_request_extends_the_time(trained: Eraser) -> None:
    late = trained.request(ids=[name(1)], regulation="gdpr", received="2025-12-01")
    on_time = trained.request(ids=[name(2)], regulation="gdpr")
    for request, reason in ((late, "number"), (on_time, "other"), (on_time, "laziness")):
        with pytest.raises(InputError):
            trained.extend(request.id, reason=reason)
    assert {request.extended for request in trained.requests()} == {None}


def test_a_reference_is_encrypted_and_erased_when_the_request_is_closed(trained: Eraser) -> None:
    reference = "ticket 4711 of Jörg Müller"
    first = trained.request(ids=[name(1)], reference=reference)
    second = trained.request(ids=[name(2)], reference="other")
    requests = trained.workspace.requests
    assert requests.reference(first.id) == reference
    assert requests.references() == {first.id: reference, second.id: "other"}
    assert trained.request(ids=[name(1)], request=first.id, reference=reference) == first
    with pytest.raises(RequestConflictError, match="content"):
        trained.request(ids=[name(1)], request=first.id, reference="another")
    slots = {slot for table, _ in decrypted(trained) for slot in [table] if slot == "requests"}
    assert slots, "what is encrypted is found by the search for residue"
    trained.cancel(second.id)
    trained.unlearn()
    assert requests.references() == {}
    assert not any(reference.encode() in data for _, data in decrypted(trained))
    database = trained.workspace.layout.database.read_bytes()
    assert reference.encode() not in database


def test_a_reference_is_kept_after_the_end_for_as_long_as_the_settings_say(trained: Eraser) -> None:
    workspace = trained.workspace
    days = {"requests": workspace.config.requests.model_copy(update={"reference_days": 10})}
    workspace.config = workspace.config.model_copy(update=days)
    requests = workspace.requests
    first = trained.request(ids=[name(1)], reference="ticket 4711")
    second = trained.request(ids=[name(2)], reference="ticket 4712")
    trained.cancel(second.id)
    trained.unlearn()
    assert requests.references() == {first.id: "ticket 4711", second.id: "ticket 4712"}
    for later, kept in ((timedelta(days=9), 2), (timedelta(days=10), 0)):
        workspace.clock = partial(operator.add, NOW, later)
        trained.train()
        assert len(requests.references()) == kept
    assert not any(b"ticket" in data for _, data in decrypted(trained))


def decrypted(eraser: Eraser) -> list[tuple[str, bytes]]:
    return list(eraser.workspace.database.decrypted_values())


def test_what_is_no_reference(trained: Eraser) -> None:
    for reference in ("x" * 201, "two\nlines", "\ud800", "\x1b[31m"):
        with pytest.raises(InputError, match="Reference"):
            trained.request(ids=[name(1)], reference=reference)
    assert trained.requests() == []


def test_a_request_that_can_be_taken_back_is_left_pending(trained: Eraser) -> None:
    waits, soon = trained.request(ids=[name(1)]), trained.request(ids=[name(2)], now=True)
    assert waits.seconds_to_start(faults.NOW) == 3600
    assert waits.seconds_to_start(faults.NOW + timedelta(hours=1)) == 0
    assert soon.seconds_to_start(faults.NOW) == 0
    assert (
        clusters_of(trained, name(1), name(2))
        <= current_scope(trained.workspace, trained.workspace.generations.require()).clusters
    ), "both are in quarantine"
    report = unlearn(trained.session, after_grace=True)
    assert [request.id for request in report.requests] == [soon.id]
    with pytest.raises(InputError, match="Nothing to delete"):
        unlearn(trained.session, after_grace=True)
    assert trained.start(waits.id).seconds_to_start(faults.NOW) == 0
    assert [request.id for request in unlearn(trained.session, after_grace=True).requests] == [waits.id]
    with pytest.raises(InputError, match="not pending"):
        trained.start(waits.id)


@pytest.mark.parametrize(
    ("after", "days"), [(-86400, 0), (0, 0), (1, 1), (86400, 1), (86401, 2)], ids=lambda value: str(value)
)
def test_days_late_are_begun_days_after_the_due_time(after: int, days: int) -> None:
    due = faults.NOW + timedelta(seconds=after)
    at = to_text(faults.NOW)
    pending = Request(
        id=faults.REQUEST,
        regulation="gdpr",
        state="pending",
        received=at,
        due=at,
        changed=at,
        names=1,
        audit=False,
    )
    assert pending.days_late(due) == days
    assert (days > 0) == pending.late(due)
    closed = replace(pending, state="completed", changed=to_text(due))
    assert closed.days_late(due + timedelta(days=99)) == days
    assert replace(pending, state="cancelled").days_late(due + timedelta(days=99)) is None


def test_a_completed_request_cannot_be_cancelled(trained: Eraser) -> None:
    trained.unlearn(ids=[name(1)], request=faults.REQUEST)
    with pytest.raises(InputError, match="possible: none"):
        trained.cancel(faults.REQUEST)
    with pytest.raises(InputError, match="lmeraser requests"):
        trained.cancel(str(uuid.uuid4()))


def test_several_requests_are_one_derivation_with_a_certificate_each(trained: Eraser) -> None:
    trained.request(ids=[name(1)])
    trained.request(ids=[name(1), name(2)])
    trained.request(subjects=["person-3"])
    report = trained.unlearn()
    assert trained.status().generation == 1
    assert {request.state for request in report.requests} == {"completed"}
    assert sorted(request.records or 0 for request in report.requests) == [1, 2, 3]
    assert len(report.certificates) == len(report.selection.ids) - 2 == 3
    assert sum(entry.kind == "deleted" for entry in trained.check_ledger().entries) == 1


def test_carrying_out_needs_something_to_carry_out(trained: Eraser) -> None:
    with pytest.raises(InputError, match="no request is open"):
        trained.unlearn()


def test_one_of_several_requests_can_be_chosen(trained: Eraser) -> None:
    first, second = trained.request(ids=[name(1)]), trained.request(ids=[name(2)])
    trained.unlearn(request=second.id)
    states = {request.id: request.state for request in trained.requests()}
    assert states == {first.id: "pending", second.id: "completed"}
    assert name(1) in trained.record_ids()


def test_a_failed_audit_fails_the_request_and_it_can_be_carried_out_again(
    trained: Eraser, monkeypatch: pytest.MonkeyPatch
) -> None:
    import lmeraser.unlearning.audit

    real = lmeraser.unlearning.audit.audit
    different = lambda *a, **o: _replace(real(*a, **o), identical=False)  # noqa: E731
    monkeypatch.setattr(lmeraser.unlearning.audit, "audit", different)
    report = trained.unlearn(ids=[name(1)], audit=True)
    assert (report.requests[0].state, report.certificates) == ("failed", ())
    assert "audit" in (report.requests[0].reason or "")
    assert name(1) not in trained.record_ids()
    monkeypatch.setattr(lmeraser.unlearning.audit, "audit", real)
    (again,) = trained.unlearn().requests
    assert (again.state, again.records, again.reason) == ("completed", 1, None)
    assert [e.kind for e in trained.check_ledger().entries][-3:] == ["generation", "failed", "completed"]


def _replace(report: Any, **changes: Any) -> Any:
    from dataclasses import replace

    return replace(report, **changes)


def test_before_the_first_training_a_request_is_completed_without_a_model(tmp_path: Path) -> None:
    Eraser.create(tmp_path / "w", CONFIG, classes=CLASSES, clock=lambda: NOW).close()
    with opened(tmp_path / "w") as eraser:
        add(eraser, range(12))
        (request,) = eraser.unlearn(ids=[name(1)]).requests
        assert (request.state, request.records, request.before) == ("completed", 1, None)
        assert eraser.workspace.generations.current() is None


# --- quarantine ----------------------------------------------------------------------------------------------


def clusters_of(eraser: Eraser, *ids: str) -> set[int]:
    model = eraser.workspace.generations.require()
    return set(
        model.cluster_numbers(eraser.workspace.records.derived.trie_keys(model.partition.key, ids)).values()
    )


def test_the_clusters_of_accepted_records_are_quarantined_until_completion(trained: Eraser) -> None:
    assert trained.quarantined() == frozenset()
    request = trained.request(ids=[name(1), name(2)])
    assert trained.quarantined() == clusters_of(trained, name(1), name(2))
    trained.cancel(request.id)
    assert trained.quarantined() == frozenset()
    trained.request(ids=[name(1)])
    trained.unlearn()
    assert trained.quarantined() == frozenset()


def test_quarantine_lasts_while_a_request_is_in_progress(trained: Eraser) -> None:
    wanted, model = clusters_of(trained, name(1)), trained.workspace.generations.require()
    request = trained.request(ids=[name(1)])
    with trained.workspace.writing("test"), trained.workspace.write_transaction() as connection:
        trained.workspace.request_changes.begin(connection, [request], model, now=NOW)
    assert name(1) not in trained.record_ids()
    assert trained.quarantined() == wanted
    trained.train()
    assert trained.quarantined() == frozenset()
    assert only(trained).state == "completed"


def test_the_quarantine_may_take_in_everything(trained: Eraser) -> None:
    trained.request(ids=trained.record_ids())
    model = trained.workspace.generations.require()
    assert trained.quarantined() == {cluster.number for cluster in model.clusters}


def test_quarantine_can_be_switched_off(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"requests": CONFIG.requests.model_copy(update={"quarantine": False})})
    Eraser.create(tmp_path / "w", config, classes=CLASSES, clock=lambda: NOW).close()
    with opened(tmp_path / "w") as eraser:
        faults.trained(eraser)
        digest = eraser.model_digest
        eraser.request(ids=[name(1)])
        assert eraser.quarantined() == frozenset()
        assert eraser.model_digest == digest
        assert eraser.status().up_to_date


# --- any history ---------------------------------------------------------------------------------------------

_numbers = st.sets(st.integers(0, 9), min_size=1, max_size=3)
_people = st.sets(st.integers(0, 3), max_size=1)


class History(RuleBasedStateMachine):
    """Adds, requests, cancellations, repetitions, crashes and restarts, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        with mock.patch("secrets.token_hex", return_value="5e" * 32):  # a history runs the same way again
            Eraser.create(self.folder / "w", CONFIG, classes=CLASSES, clock=lambda: NOW).close()
        self.eraser = opened(self.folder / "w")
        add(self.eraser, range(6))
        self.held = set(range(6))
        self.gone: set[int] = set()
        self.gone_people: set[int] = set()
        self.requests: dict[str, tuple[str, frozenset[int], frozenset[int]]] = {}

    def teardown(self) -> None:
        self.eraser.close()
        shutil.rmtree(self.folder)

    def selected(self, numbers: frozenset[int], people: frozenset[int]) -> set[int]:
        return {n for n in self.held if n in numbers or n % 4 in people}

    def known(self, numbers: set[int], people: set[int]) -> tuple[frozenset[int], frozenset[int]]:
        """Those that may be named: held or deleted before."""
        owners = {n % 4 for n in self.held} | self.gone_people
        return frozenset(numbers & (self.held | self.gone)), frozenset(people & owners)

    def carried_out(self, *ids: str) -> None:
        """The model's side of carrying requests out."""
        chosen = {i: self.requests[i] for i in ids if self.requests[i][0] == "pending"}
        lost = set().union(*(self.selected(numbers, people) for _, numbers, people in chosen.values()))
        owners = {n % 4 for n in self.held}
        for request, (_, numbers, people) in chosen.items():
            self.gone_people |= people & owners
            self.requests[request] = ("completed", numbers, people)
        self.gone |= lost
        self.held -= lost

    @rule(numbers=_numbers)
    def add_records(self, numbers: set[int]) -> None:
        add(self.eraser, sorted(numbers))
        self.held |= {n for n in numbers if n not in self.gone and n % 4 not in self.gone_people}

    @rule()
    def train(self) -> None:
        self.eraser.train()
        assert self.eraser.model_digest == self.oracle()

    @rule(numbers=_numbers, people=_people)
    def ask(self, numbers: set[int], people: set[int]) -> None:
        ids, subjects = self.known(numbers, people)
        if not ids and not subjects:
            return
        persons = [f"person-{p}" for p in subjects]
        chosen = str(uuid.UUID(int=len(self.requests)))
        request = self.eraser.request(ids=map(name, ids), subjects=persons, request=chosen)
        self.requests[request.id] = ("pending", ids, subjects)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def repeat(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.requests)))
        state, ids, subjects = self.requests[request]
        people = [f"person-{p}" for p in subjects]
        assert self.eraser.request(ids=map(name, ids), subjects=people, request=request).state == state

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        request = data.draw(st.sampled_from(sorted(self.requests)))
        state, ids, subjects = self.requests[request]
        if state == "pending":
            assert self.eraser.cancel(request).state == "cancelled"
            self.requests[request] = ("cancelled", ids, subjects)
        else:
            with pytest.raises(InputError):
                self.eraser.cancel(request)

    @precondition(lambda self: any(state == "pending" for state, *_ in self.requests.values()))
    @rule()
    def unlearn(self) -> None:
        self.eraser.unlearn()
        self.carried_out(*self.requests)
        served = self.eraser.workspace.generations.current()
        assert served is None or served.model_digest == self.oracle()

    @precondition(lambda self: any(state == "pending" for state, *_ in self.requests.values()))
    @rule(at=st.integers(1, 90))
    def crash_while_unlearning(self, at: int) -> None:
        self.crash(lambda: self.eraser.unlearn(), at)
        held = {int(record_id[-4:]) for record_id in self.eraser.record_ids()}
        if held != self.held or any(r.state == "in_progress" for r in self.eraser.requests()):
            self.carried_out(*self.requests)
            self.eraser.train()
        elif all(r.state != "pending" for r in self.eraser.requests()):
            self.carried_out(*self.requests)

    @rule(at=st.integers(1, 40), numbers=_numbers)
    def crash_while_adding(self, at: int, numbers: set[int]) -> None:
        self.crash(lambda: add(self.eraser, sorted(numbers)), at)
        added = {n for n in numbers if n not in self.gone and n % 4 not in self.gone_people}
        held = {int(record_id[-4:]) for record_id in self.eraser.record_ids()}
        assert held in (self.held, self.held | added)
        self.held = held

    @rule()
    def restart(self) -> None:
        self.eraser.close()
        self.eraser = opened(self.folder / "w")

    def crash(self, command: Callable[[], object], at: int) -> None:
        try:
            with Fault("crash", at).installed():
                command()
        except (Crash, LmeraserError):
            pass
        self.eraser.workspace._lock._file_lock.release(force=True)
        self.restart()

    def oracle(self) -> str:
        digest = fresh_digest(self.folder / "oracle", sorted(self.held), {}, even_empty=True)
        assert digest
        return digest

    @invariant()
    def the_records_are_those_of_the_model(self) -> None:
        assert self.eraser.record_ids() == [name(n) for n in sorted(self.held)]

    @invariant()
    def the_requests_are_those_of_the_model(self) -> None:
        found = {request.id: request.state for request in self.eraser.requests()}
        assert found == {request: state for request, (state, *_) in self.requests.items()}

    @invariant()
    def ledger_and_records_tell_the_same_story(self) -> None:
        with self.eraser.workspace.writing("look"):  # what a crash left behind is appended first
            pass
        assert self.eraser.check_ledger().differences == ()

    @invariant()
    def quarantine_is_of_the_pending_requests(self) -> None:
        try:
            model = self.eraser.workspace.generations.require()
        except NoModelError:
            return
        pending = [
            self.selected(ids, people) for state, ids, people in self.requests.values() if state == "pending"
        ]
        ids = [name(n) for n in sorted(set().union(*pending))]
        wanted = model.cluster_numbers(
            self.eraser.workspace.records.derived.trie_keys(model.partition.key, ids)
        ).values()
        assert self.eraser.quarantined() == set(wanted)


TestAnyHistory = History.TestCase
TestAnyHistory.settings = settings(
    examples(fast=2, explore=12), stateful_step_count=14, suppress_health_check=list(HealthCheck)
)
