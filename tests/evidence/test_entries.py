"""Events are written as 0.1 wrote them and read back; a malformed body is refused by entry and field."""

from __future__ import annotations

from typing import Any

import pytest
from make_evidence import FOLDER

from lmeraser.core.digests import Digest, canonical_json
from lmeraser.errors import VerificationError
from lmeraser.evidence import entries
from lmeraser.evidence.entries import (
    Event,
    ExportConfirmed,
    ExportRecalled,
    GenerationPublished,
    ModelExported,
    RecordsAdded,
    RecordsDeleted,
    RecordsRelabelled,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
    RequestExtended,
    RequestFailed,
    WorkspaceCreated,
    WorkspaceRestored,
    event_of,
    events_of,
)
from lmeraser.evidence.hash_chain import Entry, check

D = "sha256:" + "0" * 64
TIME = "2026-01-31T12:00:00Z"
# Each kind as its first version wrote it: its body as canonical JSON.
STORED: list[tuple[Event, str, str]] = [
    (WorkspaceCreated(format=1, key=Digest(D)), "workspace", f'{{"format":1,"key":"{D}"}}'),
    (
        RecordsAdded(records=3, deleted_before=1, commitments=Digest(D)),
        "added",
        f'{{"commitments":"{D}","deleted_before":1,"records":3}}',
    ),
    (
        RecordsRelabelled(records=1, removed={"0": (Digest(D),)}, commitments=Digest(D)),
        "relabelled",
        f'{{"commitments":"{D}","records":1,"removed":{{"0":["{D}"]}}}}',
    ),
    (
        RequestAccepted(request="r", regulation="gdpr", received=TIME, due=TIME, names=2),
        "request",
        f'{{"due":"{TIME}","names":2,"received":"{TIME}","regulation":"gdpr","request":"r"}}',
    ),
    (
        RequestAccepted(request="r", regulation="gdpr", received=TIME, due=TIME, names=2, by="0123456789ab"),
        "request",
        f'{{"by":"0123456789ab","due":"{TIME}","names":2,"received":"{TIME}","regulation":"gdpr","request":"r"}}',
    ),
    (
        RequestExtended(request="r", due=TIME, reason="number"),
        "extended",
        f'{{"due":"{TIME}","reason":"number","request":"r"}}',
    ),
    (RequestCancelled(request="r"), "cancelled", '{"request":"r"}'),
    (
        RequestCancelled(request="r", reason="withdrawn", by="0123456789ab"),
        "cancelled",
        '{"by":"0123456789ab","reason":"withdrawn","request":"r"}',
    ),
    (
        RecordsDeleted(requests=("r", "s"), removed={"2": (), "10": (Digest(D),)}),
        "deleted",
        f'{{"removed":{{"10":["{D}"],"2":[]}},"requests":["r","s"]}}',
    ),
    (
        RequestCompleted(request="r", certificate=Digest(D)),
        "completed",
        f'{{"certificate":"{D}","request":"r"}}',
    ),
    (RequestFailed(request="r"), "failed", '{"request":"r"}'),
    (
        GenerationPublished(generation=0, model=Digest(D), records=9),
        "generation",
        f'{{"generation":0,"model":"{D}","records":9}}',
    ),
    (
        GenerationPublished(generation=0, manifest=Digest(D), records=9),
        "generation",
        f'{{"generation":0,"manifest":"{D}","records":9}}',
    ),
    (
        ModelExported(export="e", generation=2, format="folder", manifest=Digest(D)),
        "exported",
        f'{{"export":"e","format":"folder","generation":2,"manifest":"{D}"}}',
    ),
    (ExportRecalled(export="e", records=3), "export_recalled", '{"export":"e","records":3}'),
    (ExportConfirmed(export="e"), "export_confirmed", '{"export":"e"}'),
    (WorkspaceRestored(entries=4), "restored", '{"entries":4}'),
]


def entry(kind: str, body: dict[str, Any]) -> Entry:
    return Entry(7, None, TIME, kind, body)


@pytest.mark.parametrize(("event", "kind", "body"), STORED, ids=[kind for _, kind, _ in STORED])
def test_an_event_is_written_as_it_always_was_and_read_back(event: Event, kind: str, body: str) -> None:
    assert event.kind == kind
    assert canonical_json(event.body()).decode() == body
    assert event_of(Entry.parse(entry(event.kind, event.body()).line())) == event


def test_every_kind_of_event_is_tested() -> None:
    assert {kind for _, kind, _ in STORED} == set(entries._TYPES)


def test_the_golden_ledger_is_written_again_bit_by_bit() -> None:
    golden = (FOLDER / "ledger-1").read_bytes()
    lines = []
    for found in check(golden):
        event = event_of(found)
        assert event is not None
        again = Entry(found.position, found.previous, found.time, event.kind, event.body())
        lines.append(again.line())
    assert b"".join(lines) == golden


def test_digests_are_digests_after_reading() -> None:
    event = event_of(entry("deleted", {"requests": [], "removed": {"3": [D]}}))
    assert isinstance(event, RecordsDeleted)
    ((position, (digest,)),) = event.removed_by_position.items()
    assert (position, digest.short) == (3, "0" * 12)


def test_a_kind_of_a_newer_version_is_no_event_but_stays_an_entry() -> None:
    newer = entry("merged", {"anything": [1]})
    assert event_of(newer) is None
    assert list(events_of([newer], *entries._TYPES.values())) == []
    assert check(Entry(0, None, TIME, newer.kind, newer.body).line())[0].kind == "merged"


def test_a_field_of_a_newer_version_is_ignored() -> None:
    assert event_of(entry("failed", {"request": "r", "reason": "newer"})) == RequestFailed(request="r")
    assert event_of(entry("failed", {"request": "r", "kind": "added"})) == RequestFailed(request="r")


def test_events_are_picked_by_type_in_order_with_their_entries() -> None:
    chain = [
        entry("failed", {"request": "a"}),
        entry("cancelled", {"request": "b"}),
        entry("merged", {}),
        entry("failed", {"request": "c"}),
    ]
    assert [event.request for _, event in events_of(chain, RequestFailed)] == ["a", "c"]
    assert [found for found, _ in events_of(chain, RequestFailed, RequestCancelled)] == [
        chain[0],
        chain[1],
        chain[3],
    ]


def test_only_entries_of_the_wanted_types_are_parsed() -> None:
    chain = [entry("deleted", {}), entry("failed", {"request": "a"})]
    assert len(list(events_of(chain, RequestFailed))) == 1
    with pytest.raises(VerificationError, match="entry 7"):
        list(events_of(chain, RequestFailed, RecordsDeleted))


@pytest.mark.parametrize(
    ("kind", "body", "field"),
    [
        ("failed", {}, "request: "),
        ("failed", {"request": 1}, "request: "),
        ("failed", {"request": None}, "request: "),
        ("added", {"records": "3", "deleted_before": 0, "commitments": D}, "records: "),
        ("added", {"records": True, "deleted_before": 0, "commitments": D}, "records: "),
        ("added", {"records": -1, "deleted_before": 0, "commitments": D}, "records: "),
        ("added", {"records": 1, "deleted_before": 0, "commitments": D[:-1]}, "commitments: "),
        ("added", {"records": 1, "deleted_before": 0, "commitments": D + "\n"}, "commitments: "),
        ("deleted", {"requests": ["r"], "removed": {"01": []}}, r"removed\.01"),
        ("deleted", {"requests": ["r"], "removed": {"-1": []}}, r"removed\.-1"),
        ("deleted", {"requests": ["r"], "removed": {"1\n": []}}, r"removed\.1"),
        ("deleted", {"requests": ["r"], "removed": {"1": [D, "no"]}}, r"removed\.1\.1: "),
        ("deleted", {"requests": "r", "removed": {}}, "requests: "),
        ("generation", {"generation": 0, "model": "no", "records": 1}, "model: "),
        ("generation", {"generation": 0, "model": None, "records": 1}, "fields: "),
        ("generation", {"generation": 0, "model": D, "manifest": D, "records": 1}, "fields: "),
        ("restored", {"entries": 1.0}, "entries: "),
        ("workspace", {"format": 1}, "key: "),
    ],
)
def test_a_malformed_body_is_refused_by_entry_and_field(kind: str, body: dict[str, Any], field: str) -> None:
    with pytest.raises(VerificationError, match=rf"entry 7 \('{kind}'\) has a malformed body: {field}"):
        event_of(entry(kind, body))
    with pytest.raises(VerificationError, match="has a malformed body"):
        list(events_of([entry(kind, body)], entries._TYPES[kind]))


@pytest.mark.parametrize("body", [{}, {"request": 1}])
def test_an_event_that_could_not_be_read_is_not_made(body: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="request"):
        RequestFailed(**body)
