"""A lawful history has no differences; whatever is put back, lost, swapped or smuggled in is one."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmeraser.core.digests import Digest
from lmeraser.errors import VerificationError
from lmeraser.evidence.entries import (
    Event,
    GenerationPublished,
    RecordsAdded,
    RecordsDeleted,
    RecordsRelabelled,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    RequestExtended,
    RequestFailed,
    WorkspaceRestored,
)
from lmeraser.evidence.hash_chain import Entry, LedgerHead
from lmeraser.evidence.reconcile import (
    LedgerReport,
    RequestOnRecord,
    by_entry,
    differences,
    digest_of,
    request_differences,
)

Held = dict[int, list[Digest]]


class History:
    """The model: records come with one entry each and go with another; nobody looks at the code under test."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.entries: list[Entry] = []
        self.held: Held = {}
        self.gone: list[tuple[int, Digest]] = []

    def note(self, event: Event) -> None:
        self.write(event.kind, event.body())

    def write(self, kind: str, body: Mapping[str, Any]) -> None:
        previous = self.entries[-1].digest if self.entries else None
        self.entries.append(Entry(len(self.entries), previous, "2026-01-31T12:00:00Z", kind, body))

    def fresh(self, count: int) -> list[Digest]:
        return [Digest.of(self.random.randbytes(16)) for _ in range(count)]

    def take(self, count: int) -> dict[str, tuple[Digest, ...]]:
        every = [(position, digest) for position, digests in self.held.items() for digest in digests]
        taken = self.random.sample(every, min(count, len(every)))
        for position, digest in taken:
            self.held[position].remove(digest)
        self.gone += taken
        return {str(p): tuple(sorted(d for q, d in taken if q == p)) for p in sorted({p for p, _ in taken})}

    def add(self, count: int) -> None:
        new = self.fresh(count)
        self.held[len(self.entries)] = new
        self.note(RecordsAdded(records=count, deleted_before=0, commitments=Digest.of_json(sorted(new))))

    def delete(self, count: int) -> None:
        self.note(RecordsDeleted(requests=("r",), removed=self.take(count)))

    def relabel(self, count: int) -> None:
        removed = self.take(count)
        new = self.fresh(sum(map(len, removed.values())))
        self.held[len(self.entries)] = new
        commitments = Digest.of_json(sorted(new))
        self.note(RecordsRelabelled(records=len(new), removed=removed, commitments=commitments))

    def train(self, _: int) -> None:
        held = sum(map(len, self.held.values()))
        self.note(GenerationPublished(generation=0, model=self.fresh(1)[0], records=held))

    @property
    def served(self) -> Digest | None:
        models = [entry.body["model"] for entry in self.entries if entry.kind == "generation"]
        return Digest(models[-1]) if models else None

    def differences(self) -> list[str]:
        return differences(self.entries, self.held, self.served)


@st.composite
def _histories(draw: st.DrawFn) -> History:
    """Any sequence of additions, deletions, corrections and trainings that begins with an addition."""
    history = History(draw(st.integers(0, 2**32)))
    history.add(draw(st.integers(1, 4)))
    verbs = st.sampled_from([history.add, history.delete, history.relabel, history.train])
    for verb, count in draw(st.lists(st.tuples(verbs, st.integers(0, 4)), max_size=10)):
        verb(count)
    return history


def a_history() -> History:
    """Entry 0 adds three records, 1 adds two, 2 deletes one, 3 is a model, 4 corrects one."""
    history = History(0)
    for verb, count in [
        (history.add, 3),
        (history.add, 2),
        (history.delete, 1),
        (history.train, 0),
        (history.relabel, 1),
    ]:
        verb(count)
    assert history.differences() == []
    return history


# --- lawful ------------------------------------------------------------------------------------------------


@given(_histories())
def test_a_lawful_history_has_no_differences(history: History) -> None:
    assert history.differences() == []


@given(_histories())
def test_neither_the_order_of_records_nor_entries_without_any_matter(history: History) -> None:
    for digests in history.held.values():
        history.random.shuffle(digests)
    held = {position: digests for position, digests in history.held.items() if digests}
    assert differences(history.entries, held, history.served) == []


def test_an_empty_workspace_has_no_differences() -> None:
    assert differences([], {}) == []


def test_the_digest_over_commitments_is_that_of_the_sorted_list() -> None:
    first, second = sorted([Digest.of(b"a"), Digest.of(b"b")])
    expected = Digest.of(f'["{first}","{second}"]'.encode())
    assert digest_of([first, second]) == digest_of(iter([second, first])) == expected
    assert digest_of([]) == Digest.of(b"[]")


def test_commitments_are_listed_by_position_and_sorted() -> None:
    low, high = sorted([Digest.of(b"a"), Digest.of(b"b")])
    listed = by_entry({10: [high, low], 2: [low]})
    assert listed == {"2": (low,), "10": (low, high)}
    assert list(listed) == ["2", "10"]


# --- faults ------------------------------------------------------------------------------------------------


@given(_histories(), st.data())
def test_a_deleted_record_that_is_back_is_a_difference(history: History, data: st.DataObject) -> None:
    if not history.gone:
        history.delete(1)
    position, digest = data.draw(st.sampled_from(history.gone))
    history.held[position].append(digest)
    (found,) = history.differences()
    assert found.startswith(f"entry {position} added")


@given(_histories(), st.data())
def test_a_record_that_is_missing_is_a_difference(history: History, data: st.DataObject) -> None:
    history.add(2)
    position = data.draw(st.sampled_from([position for position, digests in history.held.items() if digests]))
    history.held[position].pop(data.draw(st.integers(0, len(history.held[position]) - 1)))
    (found,) = history.differences()
    assert found.startswith(f"entry {position} added")


@given(_histories(), st.data())
def test_one_record_more_than_was_added_is_a_difference(history: History, data: st.DataObject) -> None:
    position = data.draw(st.sampled_from(sorted(history.held)))
    copies = [[digest] for digest in history.held[position]]
    history.held[position] += data.draw(st.sampled_from([history.fresh(1), *copies]))
    (found,) = history.differences()
    assert found.startswith(f"entry {position} added")


@given(_histories(), st.data())
def test_a_record_of_an_entry_that_tells_of_none_is_a_difference(history: History, data: st.DataObject) -> None:
    silent = [entry.position for entry in history.entries if entry.position not in history.held]
    position = data.draw(st.sampled_from([*silent, len(history.entries), 10**6]))
    history.held[position] = history.fresh(2)
    assert history.differences() == [f"2 records refer to entry {position}, which added none"]


def test_a_record_exchanged_for_another_is_a_difference() -> None:
    history = a_history()
    history.held[0][0] = history.fresh(1)[0]
    (found,) = history.differences()
    assert "entry 0 added 3 records" in found
    assert "not the same ones" in found


def test_records_exchanged_between_entries_are_a_difference_in_both() -> None:
    history = a_history()
    first, second = history.held[0], history.held[1]
    first[0], second[0] = second[0], first[0]
    assert [found.split(" added")[0] for found in history.differences()] == ["entry 0", "entry 1"]


def test_a_deletion_that_names_what_is_still_held_is_a_difference() -> None:
    history = a_history()
    history.note(RecordsDeleted(requests=("r",), removed={"0": (history.held[0][0],)}))
    (found,) = history.differences()
    assert found.startswith("entry 0 added 3 records")


@pytest.mark.parametrize("dropped", [0, 1, 2, 4])
def test_a_ledger_that_keeps_an_entry_to_itself_differs(dropped: int) -> None:
    history = a_history()
    del history.entries[dropped]
    assert history.differences()


def test_another_model_than_the_ledger_tells_of_is_a_difference() -> None:
    history = a_history()
    other = Digest.of(b"other")
    (found,) = differences(history.entries, history.held, other)
    assert found.startswith(f"model {other.short} is served")
    assert history.served is not None
    assert found.endswith(f"the ledger records model {history.served.short}")
    untold = [entry for entry in history.entries if entry.kind != "generation"]
    (found,) = differences(untold, history.held, history.served)
    assert found.endswith("the ledger records no model")
    history.train(0)
    history.train(0)
    assert history.differences() == []
    older = Digest(history.entries[-2].body["model"])
    assert len(differences(history.entries, history.held, older)) == 1, "only the last one may be served"


# --- report ------------------------------------------------------------------------------------------------


def report(entries: Sequence[Entry], found: Sequence[str]) -> LedgerReport:
    return LedgerReport(tuple(entries), LedgerHead(len(entries), entries[-1].digest), tuple(found))


def test_a_report_is_sound_without_differences_and_lists_every_entry() -> None:
    history = a_history()
    sound = report(history.entries, history.differences())
    assert sound.sound
    values: Any = sound.to_json()
    assert (values["sound"], values["differences"]) == (True, [])
    assert values["head"] == {"entries": 5, "digest": history.entries[-1].digest}
    assert [entry["digest"] for entry in values["entries"]] == [entry.digest for entry in history.entries]
    assert [entry["kind"] for entry in values["entries"]] == [entry.kind for entry in history.entries]
    assert not report(history.entries, ["a difference"]).sound


def test_a_deletion_from_an_entry_that_added_nothing_is_a_difference() -> None:
    history = a_history()
    history.note(RecordsDeleted(requests=(), removed={"3": tuple(history.fresh(1))}))
    assert history.differences() == ["1 records refer to entry 3, which added none"]


def test_a_number_of_records_that_is_not_theirs_is_a_difference() -> None:
    history = a_history()
    history.entries[0] = replace(history.entries[0], body={**history.entries[0].body, "records": 4})
    assert len(history.differences()) == 1


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"removed": {}},
        {"requests": []},
        {"requests": [], "removed": []},
        {"requests": [], "removed": {"x": []}},
        {"requests": [], "removed": {"0": ["sha256:no"]}},
    ],
)
def test_a_body_that_is_not_of_its_kind_breaks_the_ledger(body: dict[str, Any]) -> None:
    history = a_history()
    history.write("deleted", body)
    with pytest.raises(VerificationError, match=r"entry 5 \('deleted'\) has a malformed body"):
        history.differences()


# --- requests ----------------------------------------------------------------------------------------------

TIMES = {"regulation": "gdpr", "received": "2026-01-31T12:00:00Z", "due": "2026-02-28T12:00:00Z"}
CERTIFICATE = Digest.of(b"certificate")
ACCEPTED = RequestOnRecord("pending", **TIMES, names=2, certificate=None)


def told(*events: Event) -> list[Entry]:
    history = History(0)
    for event in events:
        history.note(event)
    return history.entries


def accepted(name: str) -> RequestAccepted:
    return RequestAccepted(request=name, names=2, **TIMES)


LAWFUL = told(
    *(accepted(name) for name in "abcdef"),
    RequestCancelled(request="b"),
    RecordsDeleted(requests=("c", "d", "e"), removed={}),
    RequestCompleted(request="d", certificate=CERTIFICATE),
    RequestFailed(request="e"),
    WorkspaceRestored(entries=5),
)
HELD = {
    "a": ACCEPTED,
    "b": replace(ACCEPTED, state="cancelled"),
    "c": replace(ACCEPTED, state="in_progress"),
    "d": replace(ACCEPTED, state="completed", certificate=CERTIFICATE),
    "e": replace(ACCEPTED, state="failed"),
}  # f was accepted after the backup


def test_requests_in_the_states_that_the_ledger_records_have_no_differences() -> None:
    assert request_differences(LAWFUL, HELD) == []
    assert request_differences(LAWFUL, {**HELD, "e": replace(ACCEPTED, state="in_progress")}) == []
    assert request_differences([], {}) == []


@pytest.mark.parametrize(
    ("name", "instead", "found"),
    [
        ("a", None, "request a is not held, but the ledger records it"),
        ("a", replace(ACCEPTED, due="2099-01-01T00:00:00Z"), "request a: due is 2099"),
        ("a", replace(ACCEPTED, state="completed", certificate=None), "request a: state is completed"),
        ("a", replace(ACCEPTED, names=1), "request a: names is 1"),
        ("b", ACCEPTED, "request b: state is pending"),
        ("d", replace(HELD["d"], certificate=None), "request d: certificate is None"),
        ("z", ACCEPTED, "request z is held, but no entry accepts it"),
    ],
)
def test_a_request_that_was_removed_or_altered_is_found(
    name: str, instead: RequestOnRecord | None, found: str
) -> None:
    held = {key: value for key, value in {**HELD, name: instead}.items() if value is not None}
    (line,) = request_differences(LAWFUL, held)
    assert line.startswith(found)


def test_an_entry_about_a_request_that_nobody_accepted_is_found() -> None:
    assert request_differences(told(RequestCancelled(request="a")), {}) == [
        "entry 0 names request a, which no entry accepts"
    ]


def test_an_extension_moves_the_due_time_on_record() -> None:
    later = "2026-04-30T12:00:00Z"
    extended = told(
        RequestAccepted(request="a", names=1, **TIMES), RequestExtended(request="a", due=later, reason="number")
    )
    held = replace(ACCEPTED, names=1, due=later)
    assert request_differences(extended, {"a": held}) == []
    (line,) = request_differences(extended, {"a": replace(held, due=TIMES["due"])})
    assert line.startswith("request a: due is")
