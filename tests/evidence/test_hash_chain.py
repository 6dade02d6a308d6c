"""A chain of entries is accepted as it was written; whatever is changed, moved, cut or exchanged shows."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chains import SIX, TIME, chain, head_of, written
from conftest import examples
from lmeraser.core.digests import Digest
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.dsse import SigningKey
from lmeraser.evidence.hash_chain import HEAD_TYPE, Entry, LedgerHead, check

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


def test_nothing_is_a_chain_of_no_entries() -> None:
    assert check(b"") == []
    assert check(b"", head=LedgerHead(0, None)) == []


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
    with pytest.raises(VerificationError, match=f"entry {head_at - 1} is not the last entry of the exported head"):
        check(forged, head=head_of(SIX[:head_at]))


@pytest.mark.parametrize("position", range(6))
def test_a_gap_in_the_positions_is_found(position: int) -> None:
    entries: list[Entry] = []
    for number in range(6):
        shifted = number + (number >= position)
        entries.append(Entry(shifted, entries[-1].digest if entries else None, TIME, "added", {}))
    with pytest.raises(VerificationError, match=f"entry {position} has position {position + 1}"):
        check(written(entries))


@pytest.mark.parametrize("first", range(5))
def test_swapped_entries_are_found(first: int) -> None:
    entries = list(SIX)
    entries[first : first + 2] = reversed(entries[first : first + 2])
    with pytest.raises(VerificationError, match=f"entry {first} has position {first + 1}"):
        check(written(entries))


@pytest.mark.parametrize("position", range(5))
def test_a_removed_entry_is_found(position: int) -> None:
    with pytest.raises(VerificationError, match=f"entry {position} has position {position + 1}"):
        check(written([*SIX[:position], *SIX[position + 1 :]]))


@pytest.mark.parametrize("position", range(6))
def test_a_repeated_entry_is_found(position: int) -> None:
    with pytest.raises(VerificationError, match=f"entry {position + 1} has position {position}"):
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
    with pytest.raises(VerificationError, match=f"{kept} entries instead of at least 6: it was shortened"):
        check(cut, head=head_of(SIX))


def test_a_chain_cut_within_an_entry_is_found_without_a_head() -> None:
    data = written(SIX)
    ends = {len(written(SIX[:kept])) for kept in range(7)}
    for size in set(range(len(data))) - ends:
        with pytest.raises(VerificationError, match="the last line has no line end"):
            check(data[:size])


@pytest.mark.parametrize("separator", [b"\n", b"\r", b" ", b"\0"])
@pytest.mark.parametrize("position", range(7))
def test_bytes_between_entries_are_found(position: int, separator: bytes) -> None:
    with pytest.raises(VerificationError):
        check(written(SIX[:position]) + separator + written(SIX[position:]))


# --- heads -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", [LedgerHead(0, None), LedgerHead(6, SIX[-1].digest)])
def test_a_head_comes_back_from_its_file(head: LedgerHead, tmp_path: Path) -> None:
    path = tmp_path / "head.json"
    path.write_text(json.dumps(head.to_json()))
    assert LedgerHead.read(path) == head, "as 0.1 exported it"
    key = SigningKey.new()
    signed = head.sign(key, now=datetime(2026, 1, 31, 12, tzinfo=UTC))
    path.write_bytes(signed.to_bytes())
    assert LedgerHead.read(path) == LedgerHead.read(path, key=key.public) == head
    assert json.loads(signed.payload)["time"] == "2026-01-31T12:00:00Z"
    with pytest.raises(VerificationError):
        LedgerHead.read(path, key=SigningKey.new().public)
    path.write_bytes(key.sign(signed.payload, payload_type="application/json").to_bytes())
    with pytest.raises(VerificationError):
        LedgerHead.read(path, key=key.public)
    path.write_bytes(key.sign(b"{}", payload_type=HEAD_TYPE).to_bytes())
    with pytest.raises(InputError, match=r"head\.json"):
        LedgerHead.read(path)


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
        LedgerHead.read(path)


def test_a_head_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--export-head"):
        LedgerHead.read(tmp_path / "missing")
    with pytest.raises(InputError, match="--export-head"):
        LedgerHead.read(tmp_path)


@given(st.data())
@settings(examples(fast=100, explore=300))
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
        LedgerHead.read(tmp_path / "head")


@pytest.mark.parametrize(
    "changes", [{"time": 5}, {"kind": None}, {"body": []}, {"position": True}, {"body": {"x": 1e17}}]
)
def test_an_entry_with_a_field_of_another_type_is_refused(changes: dict[str, Any]) -> None:
    values: dict[str, Any] = {"position": 1, "previous": SIX[0].digest, "time": TIME, "kind": "added", "body": {}}
    wrong = Entry(**{**values, **changes})
    with pytest.raises(VerificationError):
        Entry.parse(wrong.line())
