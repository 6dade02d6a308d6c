"""A ledger tells everything that was noted and nothing else, and ends where its database says."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

import pytest

from chains import NOW, SIX, TIME, chain, head_of, written
from lmeraser.core.digests import Digest
from lmeraser.errors import CorruptError, StorageError, VerificationError
from lmeraser.evidence.entries import (
    Event,
    GenerationPublished,
    RecordsAdded,
    RecordsDeleted,
    RequestAccepted,
    RequestCancelled,
    RequestCompleted,
)
from lmeraser.evidence.hash_chain import Entry, LedgerHead, check
from lmeraser.evidence.ledger import Ledger
from lmeraser.storage.database import Database

REQUEST = "00000000-0000-4000-8000-000000000001"
SOME = Digest.of(b"some")
ADDED = RecordsAdded(records=3, deleted_before=0, commitments=SOME)
DELETED = RecordsDeleted(requests=(REQUEST,), removed={"0": (SOME,)})
EVENTS: dict[str, Event] = {
    event.kind: event
    for event in (
        ADDED,
        DELETED,
        RequestAccepted(request=REQUEST, regulation="gdpr", received=TIME, due=TIME, names=3),
        RequestCancelled(request=REQUEST),
        RequestCompleted(request=REQUEST, certificate=SOME),
        GenerationPublished(generation=0, model=SOME, records=3),
    )
}


class Unreadable(Event):
    """An event whose body is not the same after it was written and read: JSON has no 1e17."""

    kind: Literal["unreadable"] = "unreadable"
    x: float = 1e17


def lines(data: bytes) -> list[bytes]:
    return data.splitlines(keepends=True)


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[Ledger]:
    """The ledger of a folder, with its database."""
    database = Database(folder / "records.db")
    try:
        yield Ledger(folder / "ledger", database)
    finally:
        database.close()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with opened(tmp_path) as made:
        yield made


def note(ledger: Ledger, *kinds: str) -> list[Entry]:
    """Entries noted in one transaction and left in the outbox."""
    with ledger._database.transaction() as connection:
        return [ledger.note(connection, EVENTS[kind], now=NOW) for kind in kinds]


def fill(ledger: Ledger, *kinds: str) -> list[Entry]:
    noted = note(ledger, *kinds)
    ledger.flush()
    return noted


# --- noting and flushing -----------------------------------------------------------------------------------


def test_an_unused_ledger_is_empty(ledger: Ledger) -> None:
    ledger.flush()
    assert (ledger.entries(), ledger.head) == ([], LedgerHead(0, None))
    assert not ledger.path.exists()


def test_what_is_noted_is_told_in_order(ledger: Ledger) -> None:
    noted = [*fill(ledger, "added", "request"), *fill(ledger, "deleted")]
    assert ledger.entries() == noted
    assert ledger.path.read_bytes() == written(noted)
    assert [entry.position for entry in noted] == [0, 1, 2]
    assert [entry.kind for entry in noted] == ["added", "request", "deleted"]
    assert ledger.head == head_of(noted)


def test_the_time_of_an_entry_is_utc_in_whole_seconds(ledger: Ledger) -> None:
    there = datetime(2026, 1, 31, 14, 0, 0, 999, tzinfo=timezone(timedelta(hours=2)))
    with ledger._database.transaction() as connection:
        assert ledger.note(connection, ADDED, now=there).time == TIME


def test_positions_are_counted_within_a_transaction(ledger: Ledger) -> None:
    with ledger._database.transaction() as connection:
        for position in range(3):
            assert ledger.next_position(connection) == position
            assert ledger.note(connection, ADDED, now=NOW).position == position
        assert ledger.head == LedgerHead(0, None), "others see it when the transaction has ended"
    assert ledger.head.entries == 3


def test_a_transaction_that_is_rolled_back_leaves_nothing(ledger: Ledger) -> None:
    before = fill(ledger, "added")

    def half() -> None:
        with ledger._database.transaction() as connection:
            ledger.note(connection, DELETED, now=NOW)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        half()
    ledger.flush()
    assert (ledger.entries(), ledger.head) == (before, head_of(before))
    assert ledger.path.read_bytes() == written(before)
    assert fill(ledger, "request")[0].position == 1


def test_an_entry_that_waits_is_told_before_it_is_in_the_file(ledger: Ledger) -> None:
    first, second = note(ledger, "added", "request")
    assert not ledger.path.exists()
    assert ledger.entries() == [first, second]
    ledger.flush()
    (third,) = note(ledger, "deleted")
    assert ledger.path.read_bytes() == written([first, second])
    assert ledger.entries(head=ledger.head) == [first, second, third]


def test_flushing_again_is_harmless(ledger: Ledger) -> None:
    noted = fill(ledger, "added", "request")
    for _ in range(3):
        ledger.flush()
    assert ledger.path.read_bytes() == written(noted)
    assert ledger.entries() == noted


def test_what_waits_survives_the_process(tmp_path: Path) -> None:
    with opened(tmp_path) as ledger:
        noted = [*fill(ledger, "added"), *note(ledger, "request")]
    with opened(tmp_path) as ledger:
        assert ledger.entries() == noted
        ledger.flush()
        assert ledger.path.read_bytes() == written(noted)


def test_a_torn_append_is_told_in_full_wherever_it_was_torn(ledger: Ledger) -> None:
    noted = [*fill(ledger, "added"), *note(ledger, "request", "deleted")]
    data, start = written(noted), len(noted[0].line())
    for size in range(start, len(data) + 1):
        ledger.path.write_bytes(data[:size])
        assert ledger.entries() == noted


def test_a_torn_append_is_completed(ledger: Ledger) -> None:
    fill(ledger, "added")
    for entry, cut in [(0, 0), (0, 1), (0, 100), (0, -1), (1, 0), (1, 1), (1, -1), (2, 0)]:
        before = ledger.path.read_bytes()
        noted = note(ledger, "request", "deleted")
        torn = written(noted[:entry]) + written(noted[entry : entry + 1])[:cut]
        ledger.path.write_bytes(before + torn)
        assert ledger.entries()[-2:] == noted
        ledger.flush()
        ledger.flush()
        assert ledger.path.read_bytes() == before + written(noted)
        assert ledger.entries()[-2:] == noted


def _flipped(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("waiting", [False, True], ids=["nothing-waits", "an-entry-waits"])
@pytest.mark.parametrize(
    "change",
    [
        lambda data, line: data[:-1],
        lambda data, line: data[: len(data) // 2],
        lambda data, line: b"",
        lambda data, line: data + b"\n",
        lambda data, line: data + _flipped(line[:50]),
        lambda data, line: data + _flipped(line),
        lambda data, line: data + line + b"\n",
        lambda data, line: data + line + line,
    ],
    ids=["byte-cut", "half-cut", "emptied", "line-end", "torn-foreign", "foreign", "longer", "twice"],
)
def test_a_file_that_does_not_end_as_the_database_says_is_not_appended_to(
    ledger: Ledger, change: Callable[[bytes, bytes], bytes], waiting: bool
) -> None:
    fill(ledger, "added", "request")
    data = ledger.path.read_bytes()
    line = note(ledger, "deleted")[0].line() if waiting else SIX[2].line()
    changed = change(data, line)
    ledger.path.write_bytes(changed)
    with pytest.raises(CorruptError, match="The ledger does not end where the database says"):
        ledger.flush()
    assert ledger.path.read_bytes() == changed
    with pytest.raises(VerificationError):
        ledger.entries()
    ledger.path.write_bytes(data)
    ledger.flush()
    assert len(ledger.entries()) == 2 + waiting, "with the file restored all is well again"


def test_a_file_that_is_gone_is_not_begun_anew(ledger: Ledger) -> None:
    fill(ledger, "added")
    note(ledger, "request")
    ledger.path.unlink()
    with pytest.raises(CorruptError, match=r"0 bytes instead of"):
        ledger.flush()
    with pytest.raises(VerificationError):
        ledger.entries()
    assert not ledger.path.exists()


def test_what_the_disk_refused_is_appended_later(tmp_path: Path) -> None:
    with opened(tmp_path) as beside:
        ledger = Ledger(tmp_path / "away" / "ledger", beside._database)
        noted = note(ledger, "added")
        with pytest.raises(StorageError, match="away"):
            ledger.flush()
        assert ledger.entries() == noted
        (tmp_path / "away").mkdir()
        ledger.flush()
        assert ledger.path.read_bytes() == written(noted)


def test_a_ledger_that_is_a_folder_is_a_storage_error(ledger: Ledger) -> None:
    note(ledger, "added")
    ledger.path.mkdir()
    for use in (ledger.flush, ledger.entries):
        with pytest.raises(StorageError, match="ledger"):
            use()


@pytest.mark.parametrize("end", ["", "{", "null", "[]", "{}", '{"entries": 1, "bytes": 2, "digest": "x"}'])
def test_a_database_that_does_not_know_the_end_is_corrupt(ledger: Ledger, end: str) -> None:
    fill(ledger, "added")
    with ledger._database.transaction() as connection:
        ledger._database.set_metadata(connection, "ledger", end)
    for use in (ledger.entries, ledger.flush, lambda: ledger.head, lambda: note(ledger, "request")):
        with pytest.raises(CorruptError, match="The database does not say where the ledger ends"):
            use()


# --- tampering ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.long), 4])
def test_a_ledger_shortened_by_any_number_of_bytes_is_found(ledger: Ledger, step: int) -> None:
    fill(ledger, "added", "request", "deleted", "generation", "completed", "added")
    data = ledger.path.read_bytes()
    assert len(lines(data)) == 6
    ends = [position for position, byte in enumerate(data) if byte == ord("\n")]
    beside_ends = {end + beside for end in ends for beside in (0, 1) if end + beside < len(data)}
    for size in sorted(beside_ends | set(range(0, len(data), step))):
        ledger.path.write_bytes(data[:size])
        with pytest.raises(VerificationError):
            ledger.entries()
    ledger.path.unlink()
    with pytest.raises(VerificationError, match="0 entries; the database knows of 6"):
        ledger.entries()


def test_what_waits_does_not_hide_that_the_file_was_shortened(ledger: Ledger) -> None:
    fill(ledger, "added", "request")
    data = ledger.path.read_bytes()
    note(ledger, "deleted", "completed")
    for size in range(len(data)):
        ledger.path.write_bytes(data[:size])
        with pytest.raises(VerificationError):
            ledger.entries()


@pytest.mark.parametrize(
    "flip", [0x01, pytest.param(0x20, marks=pytest.mark.long), pytest.param(0x80, marks=pytest.mark.long)]
)
def test_any_changed_byte_is_found(ledger: Ledger, flip: int) -> None:
    fill(ledger, "added", "request", "deleted")
    data = ledger.path.read_bytes()
    for position, byte in enumerate(data):
        ledger.path.write_bytes(data[:position] + bytes([byte ^ flip]) + data[position + 1 :])
        with pytest.raises(VerificationError):
            ledger.entries()


def test_an_entry_that_follows_but_was_never_noted_is_found(ledger: Ledger) -> None:
    noted = fill(ledger, "added", "request")
    forged = Entry(2, noted[-1].digest, TIME, "completed", {})
    ledger.path.write_bytes(written([*noted, forged]))
    assert len(check(ledger.path.read_bytes())) == 3
    with pytest.raises(VerificationError, match="3 entries; the database knows of 2"):
        ledger.entries()


def test_a_chain_that_was_written_anew_is_found_by_the_database(ledger: Ledger) -> None:
    noted = fill(ledger, "added", "request", "deleted")
    forged = chain([entry.body for entry in noted], kind="other")
    ledger.path.write_bytes(written(forged))
    assert check(ledger.path.read_bytes()) == forged
    with pytest.raises(VerificationError, match="the database knows of 3, the last one"):
        ledger.entries()


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        (["added"], "it was shortened"),
        (["added", "request"], "it was shortened"),
        (["added", "request", "cancelled"], "entry 2 is not the last entry of the exported head"),
        (["added", "request", "cancelled", "added"], "entry 2 is not the last entry of the exported head"),
    ],
)
def test_a_ledger_replaced_with_its_database_is_found_by_an_exported_head(
    tmp_path: Path, kinds: list[str], message: str
) -> None:
    exported = tmp_path / "head.json"
    for name in ("true", "other"):
        (tmp_path / name).mkdir()
    with opened(tmp_path / "true") as ledger:
        fill(ledger, "added", "request", "deleted")
        exported.write_text(json.dumps(ledger.head.to_json()))
    with opened(tmp_path / "other") as ledger:
        fill(ledger, *kinds)
    for name in ("ledger", "records.db"):
        (tmp_path / "other" / name).replace(tmp_path / "true" / name)
    with opened(tmp_path / "true") as ledger:
        assert len(ledger.entries()) == len(kinds), "by themselves they fit"
        with pytest.raises(VerificationError, match=message):
            ledger.entries(head=LedgerHead.read(exported))


def test_an_exported_head_fits_the_ledger_however_it_goes_on(ledger: Ledger) -> None:
    heads = [ledger.head]
    for kind in ("added", "request", "deleted"):
        fill(ledger, kind)
        heads.append(ledger.head)
    note(ledger, "completed")
    heads.append(ledger.head)
    assert [head.entries for head in heads] == [0, 1, 2, 3, 4]
    for head in heads:
        assert len(ledger.entries(head=head)) == 4


# --- export ------------------------------------------------------------------------------------------------


def test_an_export_is_the_bytes_of_the_file(ledger: Ledger, tmp_path: Path) -> None:
    noted = fill(ledger, "added", "request", "deleted")
    ledger.export(tmp_path / "out" / "copy")
    data = (tmp_path / "out" / "copy").read_bytes()
    assert data == ledger.path.read_bytes()
    assert check(data, head=ledger.head) == noted


def test_an_export_has_what_waits(ledger: Ledger, tmp_path: Path) -> None:
    noted = [*fill(ledger, "added"), *note(ledger, "request")]
    ledger.export(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == written(noted)


def test_a_broken_ledger_is_not_exported(ledger: Ledger, tmp_path: Path) -> None:
    fill(ledger, "added", "request")
    ledger.export(tmp_path / "copy")
    before = (tmp_path / "copy").read_bytes()
    ledger.path.write_bytes(_flipped(ledger.path.read_bytes()))
    with pytest.raises(VerificationError):
        ledger.export(tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == before


def test_what_could_not_be_read_back_is_not_noted(ledger: Ledger) -> None:
    with pytest.raises(VerificationError), ledger._database.transaction() as connection:
        ledger.note(connection, Unreadable(), now=NOW)
    assert ledger.entries() == []


def test_reading_while_another_thread_writes_raises_no_false_alarm(ledger: Ledger) -> None:
    fill(ledger, "added")
    done = threading.Event()

    def write() -> None:
        while not done.is_set():
            fill(ledger, "generation")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        sizes = [len(ledger.entries()) for _ in range(60)]
    finally:
        done.set()
        writer.join()
    assert sizes == sorted(sizes)


def test_events_noted_together_are_the_entries_of_events_noted_one_by_one(tmp_path: Path) -> None:
    written_files = []
    for folder, together in (("one", False), ("all", True)):
        (tmp_path / folder).mkdir()
        with opened(tmp_path / folder) as ledger:
            with ledger._database.transaction() as connection:
                if together:
                    ledger.note_all(connection, list(EVENTS.values()), now=NOW)
                    assert ledger.note_all(connection, [], now=NOW) == []
                else:
                    for event in EVENTS.values():
                        ledger.note(connection, event, now=NOW)
            ledger.flush()
            assert len(ledger.entries()) == len(EVENTS)
            written_files.append(ledger.path.read_bytes())
    assert written_files[0] == written_files[1]
