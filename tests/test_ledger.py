"""A ledger tells what was noted and nothing else; whatever is changed, moved, cut or exchanged shows."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmeraser.chain import Entry, Head, check
from lmeraser.database import Database
from lmeraser.errors import CorruptError, InputError, StorageError, VerificationError
from lmeraser.hashing import Digest
from lmeraser.ledger import Ledger

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
TIME = "2026-01-31T12:00:00Z"
WHOLE = 2**53 - 1  # the largest integer of RFC 8785

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-WHOLE, WHOLE)
    | st.floats(-WHOLE, WHOLE, allow_nan=False)
    | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
_bodies = st.dictionaries(st.text(max_size=5), _values, max_size=4)


def chain(bodies: Sequence[Any], kind: str = "added") -> list[Entry]:
    entries: list[Entry] = []
    for position, body in enumerate(bodies):
        entries.append(Entry(position, entries[-1].digest if entries else None, TIME, kind, body))
    return entries


def written(entries: Sequence[Entry]) -> bytes:
    return b"".join(entry.line() for entry in entries)


def head_of(entries: Sequence[Entry]) -> Head:
    return Head(len(entries), entries[-1].digest)


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
        return [ledger.note(connection, kind, {"of": kind, "records": 3}, now=NOW) for kind in kinds]


def fill(ledger: Ledger, *kinds: str) -> list[Entry]:
    noted = note(ledger, *kinds)
    ledger.flush()
    return noted


# --- entries -----------------------------------------------------------------------------------------------


@given(st.integers(0, WHOLE), st.none() | st.binary().map(Digest.of), st.text(), st.text(), _bodies)
def test_an_entry_comes_back_from_its_line(
    position: int, previous: Digest | None, time: str, kind: str, body: dict[str, Any]
) -> None:
    entry = Entry(position, previous, time, kind, body)
    line = entry.line()
    assert Entry.parse(line) == entry
    assert Entry.parse(line).digest == entry.digest
    assert Entry.parse(line).line() == line
    assert line.index(b"\n") == len(line) - 1
    assert line.splitlines(keepends=True) == [line]


def test_a_line_is_canonical_json_and_its_digest_covers_the_rest() -> None:
    previous = Digest.of(b"x")
    rest = f'"kind":"added","position":1,"previous":"{previous}","time":"{TIME}"}}'
    covered = '{"body":{"a":1,"b":[]},' + rest
    digest = "sha256:" + hashlib.sha256(covered.encode()).hexdigest()
    entry = Entry(1, previous, TIME, "added", {"b": [], "a": 1})
    assert entry.digest == digest
    assert entry.line().decode() == f'{{"body":{{"a":1,"b":[]}},"digest":"{digest}",{rest}\n'


@given(_bodies, _bodies)
def test_different_bodies_have_different_digests(body: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (Entry(0, None, TIME, "added", values) for values in (body, other))
    assert (first.digest == second.digest) == (first.line() == second.line())


def _as_json(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    def changed(line: bytes) -> bytes:
        values = json.loads(line)
        change(values)
        return json.dumps(values, separators=(",", ":"), sort_keys=True).encode() + b"\n"

    return changed


@pytest.mark.parametrize(
    "change",
    [
        _as_json(lambda values: values.update(position=2)),
        _as_json(lambda values: values.update(previous=None)),
        _as_json(lambda values: values.update(time="2026-01-31T12:00:01Z")),
        _as_json(lambda values: values.update(kind="deleted")),
        _as_json(lambda values: values["body"].update(n=2)),
        _as_json(lambda values: values.update(digest=Digest.of(b"other"))),
        lambda line: line[:-1],
        lambda line: line[:-1] + b"\r\n",
        lambda line: line.replace(b'"n":', b'"n": '),
        lambda line: line.replace(b'"n":1', b'"n":1.0'),
        lambda line: line.replace(b'"n":1', b'"n":1,"n":1'),
        lambda line: line.replace(b'"kind":"a', b'"kind":"\\u0061'),
        lambda line: b'{"kind":"added",' + line[1:].replace(b'"kind":"added",', b""),
        lambda line: b"\xef\xbb\xbf" + line,
        lambda line: line.decode().encode("utf-16"),
    ],
)
def test_a_line_that_writing_the_entry_does_not_give_is_refused(change: Callable[[bytes], bytes]) -> None:
    line = chain([{"n": 0}, {"n": 1}])[1].line()
    changed = change(line)
    assert changed != line
    with pytest.raises(VerificationError):
        Entry.parse(changed)


@pytest.mark.parametrize("field", ["position", "previous", "time", "kind", "body", "digest", "extra"])
def test_an_entry_with_a_field_missing_or_too_many_is_refused(field: str) -> None:
    values = json.loads(chain([{}])[0].line())
    if field in values:
        del values[field]
    else:
        values[field] = 1
    with pytest.raises(VerificationError, match="not an entry"):
        Entry.parse(json.dumps(values, separators=(",", ":"), sort_keys=True).encode() + b"\n")


@given(st.binary(max_size=80) | _values.map(lambda value: json.dumps(value).encode()))
def test_what_is_no_entry_is_refused(data: bytes) -> None:
    with pytest.raises(VerificationError, match="not an entry"):
        Entry.parse(data + b"\n")


@pytest.mark.parametrize("data", [b"[" * 100_000, b'{"body":' * 100_000, b"NaN", b"1e999", b"9" * 5000])
def test_json_that_python_cannot_hold_is_no_entry(data: bytes) -> None:
    with pytest.raises(VerificationError, match="not an entry"):
        Entry.parse(data + b"\n")


# --- the chain ---------------------------------------------------------------------------------------------

SIX = chain([{"n": number} for number in range(6)])


def test_nothing_is_a_chain_of_no_entries() -> None:
    assert check(b"") == []
    assert check(b"", head=Head(0, None)) == []


@given(st.lists(_bodies, min_size=1, max_size=5), st.data())
def test_a_chain_is_accepted_with_any_head_that_it_ever_had(bodies: list[Any], data: st.DataObject) -> None:
    entries = chain(bodies)
    at = data.draw(st.integers(1, len(entries)))
    assert check(written(entries), head=head_of(entries[:at])) == entries


@given(st.data())
def test_a_chain_that_was_written_anew_from_any_entry_on_is_found_by_a_later_head(data: st.DataObject) -> None:
    forged_at = data.draw(st.integers(0, 5))
    head_at = data.draw(st.integers(forged_at + 1, 6))
    bodies = [{"n": number if number != forged_at else "forged"} for number in range(6)]
    forged = written(chain(bodies))
    assert len(check(forged)) == 6, "by itself it is a chain"
    assert check(forged, head=head_of(SIX[:forged_at]) if forged_at else None)
    with pytest.raises(VerificationError, match=f"entry {head_at - 1} is not the one that was last"):
        check(forged, head=head_of(SIX[:head_at]))


@pytest.mark.parametrize("position", range(6))
def test_a_gap_in_the_positions_is_found(position: int) -> None:
    entries: list[Entry] = []
    for number in range(6):
        shifted = number + (number >= position)
        entries.append(Entry(shifted, entries[-1].digest if entries else None, TIME, "added", {}))
    with pytest.raises(VerificationError, match=f"entry {position} says that it is entry {position + 1}"):
        check(written(entries))


@pytest.mark.parametrize("first", range(5))
def test_swapped_entries_are_found(first: int) -> None:
    entries = list(SIX)
    entries[first : first + 2] = reversed(entries[first : first + 2])
    with pytest.raises(VerificationError, match=f"entry {first} says that it is entry {first + 1}"):
        check(written(entries))


@pytest.mark.parametrize("position", range(5))
def test_a_removed_entry_is_found(position: int) -> None:
    with pytest.raises(VerificationError, match=f"entry {position} says that it is entry {position + 1}"):
        check(written([*SIX[:position], *SIX[position + 1 :]]))


@pytest.mark.parametrize("position", range(6))
def test_a_repeated_entry_is_found(position: int) -> None:
    with pytest.raises(VerificationError, match=f"entry {position + 1} says that it is entry {position}"):
        check(written([*SIX[: position + 1], *SIX[position:]]))


@pytest.mark.parametrize("position", range(6))
def test_an_entry_of_another_chain_is_found(position: int) -> None:
    other = chain([{"other": number} for number in range(6)])[position]
    broken = position + 1 if position == 0 else position
    with pytest.raises(VerificationError, match=f"entry {broken} does not follow"):
        check(written([*SIX[:position], other, *SIX[position + 1 :]]))


def test_a_first_entry_that_follows_from_something_is_found() -> None:
    with pytest.raises(VerificationError, match="entry 0 does not follow"):
        check(Entry(0, Digest.of(b"before"), TIME, "added", {}).line())


@pytest.mark.parametrize("kept", range(6))
def test_a_chain_cut_between_entries_is_found_by_a_head_only(kept: int) -> None:
    cut = written(SIX[:kept])
    assert len(check(cut)) == kept
    with pytest.raises(VerificationError, match=f"{kept} entries; there were 6: it was shortened"):
        check(cut, head=head_of(SIX))


def test_a_chain_cut_within_an_entry_is_found_without_a_head() -> None:
    data = written(SIX)
    ends = {len(written(SIX[:kept])) for kept in range(7)}
    for size in set(range(len(data))) - ends:
        with pytest.raises(VerificationError, match="its last line has no end"):
            check(data[:size])


@pytest.mark.parametrize("separator", [b"\n", b"\r", b" ", b"\0"])
@pytest.mark.parametrize("position", range(7))
def test_bytes_between_entries_are_found(position: int, separator: bytes) -> None:
    with pytest.raises(VerificationError):
        check(written(SIX[:position]) + separator + written(SIX[position:]))


# --- heads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [Head(0, None), Head(6, SIX[-1].digest)])
def test_a_head_comes_back_from_its_file(head: Head, tmp_path: Path) -> None:
    (tmp_path / "head.json").write_text(json.dumps(head.to_json()))
    assert Head.read(tmp_path / "head.json") == head


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff\xfe\0",
        b"no head",
        b"null",
        b"6",
        b"[]",
        b"{}",
        b'{"entries": 6}',
        b'{"digest": null}',
        b'{"entries": "many", "digest": null}',
        b'{"entries": null, "digest": null}',
        b'{"entries": NaN, "digest": null}',
        b'{"entries": 6, "digest": "sha256:6"}',
        b'{"entries": 6, "digest": 6}',
        b'{"entries": 6, "digest": []}',
    ],
)
def test_a_file_that_is_no_head_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    path.write_bytes(data)
    with pytest.raises(InputError, match=r"head\.json"):
        Head.read(path)


def test_a_head_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--export-head"):
        Head.read(tmp_path / "missing")
    with pytest.raises(InputError, match="--export-head"):
        Head.read(tmp_path)


# --- noting and flushing -----------------------------------------------------------------------------------


def test_an_unused_ledger_is_empty(ledger: Ledger) -> None:
    ledger.flush()
    assert (ledger.entries(), ledger.head) == ([], Head(0, None))
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
        assert ledger.note(connection, "added", {}, now=there).time == TIME


def test_positions_are_counted_within_a_transaction(ledger: Ledger) -> None:
    with ledger._database.transaction() as connection:
        for position in range(3):
            assert ledger.next_position(connection) == position
            assert ledger.note(connection, "added", {}, now=NOW).position == position
        assert ledger.head == Head(0, None), "others see it when the transaction has ended"
    assert ledger.head.entries == 3


def test_a_transaction_that_is_rolled_back_leaves_nothing(ledger: Ledger) -> None:
    before = fill(ledger, "added")

    def half() -> None:
        with ledger._database.transaction() as connection:
            ledger.note(connection, "deleted", {}, now=NOW)
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
    with pytest.raises(CorruptError, match="ends where the database says"):
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
        ledger._database.set_fact(connection, "ledger", end)
    for use in (ledger.entries, ledger.flush, lambda: ledger.head, lambda: note(ledger, "request")):
        with pytest.raises(CorruptError, match="where the ledger ends"):
            use()


# --- tampering ---------------------------------------------------------------------------------------------


def test_a_ledger_shortened_by_any_number_of_bytes_is_found(ledger: Ledger) -> None:
    fill(ledger, "added", "request", "deleted", "generation", "completed", "added")
    data = ledger.path.read_bytes()
    assert len(lines(data)) == 6
    for size in range(len(data)):
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


@pytest.mark.parametrize("flip", [0x01, 0x20, 0x80])
def test_any_changed_byte_is_found(ledger: Ledger, flip: int) -> None:
    fill(ledger, "added", "request", "deleted")
    data = ledger.path.read_bytes()
    for position, byte in enumerate(data):
        ledger.path.write_bytes(data[:position] + bytes([byte ^ flip]) + data[position + 1 :])
        with pytest.raises(VerificationError):
            ledger.entries()


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_cut_out_or_put_in_is_found(data: st.DataObject) -> None:
    whole = written(SIX)
    places = st.integers(0, len(whole))
    start, end = sorted([data.draw(places), data.draw(places)])
    new = data.draw(st.binary(max_size=20) | st.sampled_from([entry.line() for entry in SIX]))
    changed = whole[:start] + new + whole[end:]
    if changed == whole:
        assert check(changed, head=head_of(SIX)) == SIX
    else:
        with pytest.raises(VerificationError):
            check(changed, head=head_of(SIX))


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
        (["added", "request", "cancelled"], "entry 2 is not the one that was last"),
        (["added", "request", "cancelled", "added"], "entry 2 is not the one that was last"),
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
            ledger.entries(head=Head.read(exported))


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


@pytest.mark.parametrize(
    "data",
    [
        b'{"entries": 1e999, "digest": null}',
        b"[" * 100_000,
        b'{"entries": -1, "digest": null}',
        b'{"entries": 0, "digest": "sha256:' + b"0" * 64 + b'"}',
        b'{"entries": 3, "digest": null}',
        b'{"entries": true, "digest": null}',
        b'{"entries": 2.7, "digest": null}',
        b'{"entries": "3", "digest": null}',
        b'{"entries": 0, "entries": 0, "digest": null}',
    ],
)
def test_a_head_of_impossible_values_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "head").write_bytes(data)
    with pytest.raises(InputError, match="export-head"):
        Head.read(tmp_path / "head")


@pytest.mark.parametrize(
    "changes", [{"time": 5}, {"kind": None}, {"body": []}, {"position": True}, {"body": {"x": 1e17}}]
)
def test_an_entry_with_a_field_of_another_type_is_refused(changes: dict[str, Any], ledger: Ledger) -> None:
    values: dict[str, Any] = {"position": 1, "previous": SIX[0].digest, "time": TIME, "kind": "added", "body": {}}
    wrong = Entry(**{**values, **changes})
    with pytest.raises(VerificationError):
        Entry.parse(wrong.line())


def test_what_could_not_be_read_back_is_not_noted(ledger: Ledger) -> None:
    with pytest.raises(VerificationError), ledger._database.transaction() as connection:
        ledger.note(connection, "added", {"x": 1e17}, now=NOW)
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
