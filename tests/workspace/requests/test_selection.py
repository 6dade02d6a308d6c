"""A request is resolved as a whole: names may repeat and mix, unknown ones are all listed."""

from __future__ import annotations

import csv
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from conftest import NOW, examples, forget, png, respell
from lmeraser.data.importing import import_records
from lmeraser.data.name_lookup import note_new_workspace
from lmeraser.data.records import Record, Records
from lmeraser.data.sources import Row, Source
from lmeraser.errors import AmbiguousNameError, InputError, UnknownRecordError
from lmeraser.evidence.ledger import Ledger
from lmeraser.storage.database import Database
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.selection import Selection, read_ids, resolve

DOT = png(np.zeros((3, 3)))
OWNER = {f"r{number}": f"s{number % 3}" for number in range(9)} | {"free": None}


@pytest.fixture(scope="module")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    """Nine records of three people and one of nobody; r0, the person s1 and all of s1's records are deleted."""
    opened = Records(Database(tmp_path_factory.mktemp("w") / "records.db"), secret=b"secret")
    with opened.database.transaction() as connection:
        opened.insert(connection, [Record(i, s, 0, DOT) for i, s in OWNER.items()], entry=1)
    forget(opened, ["r0"])
    forget(opened, ["r1", "r4", "r7"], subjects=["s1"])
    yield opened
    opened.database.close()


_ids = st.lists(st.sampled_from(list(OWNER)), max_size=6)
_subjects = st.lists(st.sampled_from(["s0", "s1", "s2"]), max_size=4)


@settings(examples(fast=20, explore=60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_ids, _subjects)
def test_ids_and_subjects_mix_and_repeat(records: Records, ids: list[str], subjects: list[str]) -> None:
    if not ids and not subjects:
        return
    gone = {"r0", "r1", "r4", "r7"}
    wanted = {name for name, owner in OWNER.items() if name in ids or owner in subjects}
    selection = resolve(records, Selector.of(ids, subjects))
    assert selection.ids == tuple(sorted(wanted - gone))
    assert selection.subjects == tuple(sorted(set(subjects) - {"s1"}))
    assert selection.already_deleted == tuple(sorted((set(ids) & gone) | (set(subjects) & {"s1"})))
    assert resolve(records, Selector.of(iter(ids), iter(subjects))) == selection


# Names that differ in white space, in normalisation, in case, in a look-alike, or not at all.
_alphabet = st.sampled_from(["a", "A", "e\u0301", "\u00e9", " ", "\u00a0", "1", "\u0430", "\u200d", "\x00"])
_any_names = st.lists(st.lists(_alphabet, max_size=3).map("".join), min_size=1, max_size=6)


@pytest.fixture
def emptied(tmp_path: Path) -> Iterator[Records]:
    """Records without records, and with nothing on the suppression list."""
    opened = Records(Database(tmp_path / "records.db"), secret=b"secret")
    yield opened
    opened.database.close()


def _import(records: Records, ids: list[str], subjects: list[str | None]) -> dict[str, str | None]:
    """Import rows that can be; the subject of each record that is held."""
    with records.database.transaction() as connection:
        for table in ("records", "suppressed", "requests", "outbox"):
            connection.execute(text(f"DELETE FROM {table}"))
        note_new_workspace(records.database, connection)
    rows = [Row(n, name, subjects[n % len(subjects)], "x", DOT) for n, name in enumerate(ids)]
    ledger = Ledger(records.database.keys.path.with_name("ledger"), records.database)
    import_records(records, Source("s", ("x",), None, rows), ledger=ledger, now=NOW, skip_bad=True)
    return {each.id: each.subject for _, each in records._index.read_all()}


def _resolved(records: Records, selector: Selector) -> Selection | None:
    """What a selector selects; None: it is an error."""
    try:
        return resolve(records, selector)
    except InputError:
        return None


@settings(examples(fast=30, explore=1000), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_any_names, _any_names)
@example(["17", "17 "], ["17 "])
@example(["17 ", " 17"], ["17"])
@example(["e\u0301", "a"], ["\u00e9 "])
def test_exactly_the_named_records_go_or_none(emptied: Records, ids: list[str], named: list[str]) -> None:
    held = set(_import(emptied, ids, [None]))
    selection = _resolved(emptied, Selector.of(named))
    meant = [{name} & held or {one for one in held if same(one, name)} for name in named]
    if selection is None:
        assert not all(len(records) == 1 for records in meant)
        return
    assert [len(records) for records in meant] == [1] * len(named)
    assert set(selection.ids) == set().union(*meant)
    forget(emptied, selection.ids)
    again = resolve(emptied, Selector.of(named))
    assert (again.ids, set(again.already_deleted)) == ((), set(named)), "a name that was deleted means no other"


@settings(examples(fast=20, explore=1000), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_any_names, _any_names)
@example(["\u00e9", "e\u0301 "], ["e\u0301"])
def test_exactly_the_records_of_the_named_people_go_or_none(
    emptied: Records, people: list[str], named: list[str]
) -> None:
    held = _import(emptied, [f"r{number}" for number in range(len(people))], list(people))
    selection = _resolved(emptied, Selector.of(subjects=named))
    meant = [{one for one, owner in held.items() if owner is not None and same(owner, name)} for name in named]
    if selection is None:
        assert not all(meant)
        return
    assert all(meant)
    assert set(selection.ids) == set().union(*meant)
    forget(emptied, selection.ids, subjects=selection.subjects)
    again = resolve(emptied, Selector.of(subjects=named))
    assert (again.ids, set(again.already_deleted)) == ((), set(named))


def same(one: str, other: str) -> bool:
    """Whether two names are spellings of one, by the words of the rule."""
    composed = (unicodedata.normalize("NFC", name).strip() for name in (one, other))
    return len(set(composed)) == 1 and bool(one.strip())


def test_a_name_that_means_several_is_refused_until_each_is_named(tmp_path: Path) -> None:
    database = Database(tmp_path / "records.db")
    records = Records(database, secret=b"secret")
    with database.transaction() as connection:
        rows = [Record("17", "x", 0, DOT), Record("17 ", "x ", 0, DOT), Record("18", None, 0, DOT)]
        records.insert(connection, rows, entry=1)
    respell(records, "17 ", before=True)
    for selector in (Selector.of([" 17"]), Selector.of(["18"], ["x"]), Selector.of(subjects=["x "])):
        with pytest.raises(AmbiguousNameError, match="Names that mean several") as caught:
            resolve(records, selector)
        assert "'17 '" in caught.value.got or "'x '" in caught.value.got
    assert resolve(records, Selector.of(["17 "])).ids == ("17 ",)
    assert resolve(records, Selector.of(subjects=["x", "x "])).ids == ("17", "17 ")
    database.close()


def test_an_unknown_name_is_listed_with_those_that_look_like_it(records: Records) -> None:
    with pytest.raises(UnknownRecordError) as caught:
        resolve(records, Selector.of(["R3", "q"], ["S0"]))
    assert caught.value.got.splitlines() == [
        "3",
        "  - record id 'R3' (there is 'r3')",
        "  - record id 'q'",
        "  - subject 'S0' (there is 's0')",
    ]


def test_an_unknown_path_or_number_is_listed_with_the_id_that_it_was(tmp_path: Path) -> None:
    """A shell completes paths from the working directory; a spreadsheet drops zeros."""
    database = Database(tmp_path / "records.db")
    records = Records(database, secret=b"secret")
    with database.transaction() as connection:
        rows = [Record(name, None, 0, DOT) for name in ("cat/a.png", "scans\\b.png", "007", "100")]
        records.insert(connection, rows, entry=1)
    for given_id, held in (
        ("photos/cat/a.png", "cat/a.png"),
        ("./cat/a.png", "cat/a.png"),
        ("C:\\photos\\cat\\a.png", "cat/a.png"),
        ("/srv/scans/b.png", "scans\\b.png"),
        ("7", "007"),
        ("0100", "100"),
    ):
        with pytest.raises(UnknownRecordError) as caught:
            resolve(records, Selector.of([given_id]))
        assert caught.value.got == f"1\n  - record id {given_id!r} (there is {held!r})"
    for given_id in ("a.png", "cat", "cat/*", "70", "/", "\\"):
        with pytest.raises(UnknownRecordError) as caught:
            resolve(records, Selector.of([given_id]))
        assert "there is" not in caught.value.got
    database.close()


def test_numbers_are_the_names_that_they_are_written_as_and_nothing_else_is_a_name() -> None:
    assert Selector.of([17, np.int64(3), 5.0], [17]) == Selector.of(["17", "3", "5"], ["17"])
    with pytest.raises(InputError, match="Not a name") as caught:
        Selector.of([None, 1.5, "a"], [True])
    assert caught.value.got.startswith("3\n  - record id None: ")


def test_unknown_names_are_all_listed(records: Records) -> None:
    with pytest.raises(UnknownRecordError) as caught:
        resolve(records, Selector.of(["r2", "r0", "x", "s2", "x"], ["s0", "s9", "r3"]))
    assert caught.value.got.splitlines() == [
        "4",
        "  - record id 's2' (there is a subject of this name)",
        "  - record id 'x'",
        "  - subject 'r3' (there is a record id of this name)",
        "  - subject 's9'",
    ]


@pytest.mark.parametrize("name", ["", "\udcff", "a\x00b", "x" * 5000, "'; DROP TABLE records; --"])
def test_names_that_cannot_be_names_are_unknown(records: Records, name: str) -> None:
    with pytest.raises(UnknownRecordError):
        resolve(records, Selector.of(ids=[name]))
    with pytest.raises(UnknownRecordError):
        resolve(records, Selector.of(subjects=[name]))


def test_a_request_for_nothing_is_refused(records: Records) -> None:
    with pytest.raises(InputError, match="--ids-file"):
        resolve(records, Selector())


def test_a_line_of_an_ids_file_is_an_id_literally(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(b"a/1.png\n\n  b \r\n#1001\n  # another\nc#d\ntwo words\xe2\x80\xa8")
    assert read_ids(path) == ["a/1.png", "  b ", "#1001", "  # another", "c#d", "two words\u2028"]


_names = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1), min_size=1)


@settings(examples(fast=30, explore=200), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_names, st.sampled_from(["\n", "\r\n"]))
def test_every_format_of_an_ids_file_names_exactly_what_is_in_it(
    tmp_path: Path, names: list[str], end: str
) -> None:
    if not names[0].startswith("\ufeff"):  # a byte order mark, in a file
        (tmp_path / "ids").write_bytes(end.join([*names, ""]).encode())
        assert read_ids(tmp_path / "ids") == names
    (tmp_path / "ids.jsonl").write_bytes(end.join(map(json.dumps, names)).encode())
    assert read_ids(tmp_path / "ids.jsonl") == names
    (tmp_path / "ids.jsonl").write_bytes(end.join(json.dumps({"id": name, "x": 1}) for name in names).encode())
    assert read_ids(tmp_path / "ids.jsonl") == names
    with (tmp_path / "ids.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("label", "id"), *(("x", name) for name in names)])
    assert read_ids(tmp_path / "ids.csv") == names


@pytest.mark.parametrize(
    ("name", "content", "part"),
    [
        ("ids", b"", "No record id"),
        ("ids", b"\n\r\n", "No record id"),
        ("ids.jsonl", b"", "No record id"),
        ("ids.jsonl", b'"a"\n1.5\n', "line 2"),
        ("ids.jsonl", b'""\n', "line 1"),
        ("ids.jsonl", b"true\n", "line 1"),
        ("ids.jsonl", b'"a"\nnull\n', "line 2"),
        ("ids.jsonl", b"a\n", "Cannot read"),
        ("ids.csv", b"", "No record id"),
        ("ids.csv", b"id,b\n1,2,3\n", "line 2: 3 cells (expected 2)"),
        ("ids.csv", b'id,b\n"1,2\n', "line 2"),
        ("ids.csv", b"a,b\n1,2\n", "no column 'id' (there are: a, b)"),
        ("ids.csv", b"id,b\n1,2\n,3\n", "row 2"),
        ("ids.csv", b"id\n", "No record id"),
    ],
)
def test_an_ids_file_without_ids_or_in_another_format_is_an_error(
    tmp_path: Path, name: str, content: bytes, part: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=re.escape(part)):
        read_ids(tmp_path / name)


def test_the_column_of_ids_is_read_by_the_rules_of_all_tables(tmp_path: Path) -> None:
    (tmp_path / "ids.csv").write_bytes("label;id\n1;a,b\n\n2; c \n".encode("utf-16"))
    assert read_ids(tmp_path / "ids.csv") == ["a,b", " c "]


def test_whole_numbers_in_json_lines_are_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.JSONL").write_text('17\n"17 "\n18.0\n"18.0"\n')
    assert read_ids(tmp_path / "ids.JSONL") == ["17", "17 ", "18", "18.0"]


def test_an_ids_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfa\nb\n")
    assert read_ids(tmp_path / "ids.txt") == ["a", "b"]
    (tmp_path / "ids.txt").write_bytes("Ren\u00e9e\r\nb\r\n".encode("utf-16"))  # PowerShell's > writes this
    assert read_ids(tmp_path / "ids.txt") == ["Ren\u00e9e", "b"]


def test_an_ids_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "bytes", "."):
        with pytest.raises(InputError, match=str(tmp_path)):
            read_ids(tmp_path / name)
