"""A request is resolved as a whole: names may repeat and mix, unknown ones are all listed."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import examples, forget, png
from lmeraser.data.records import Record, Records
from lmeraser.errors import InputError, UnknownRecordError
from lmeraser.storage.database import Database
from lmeraser.workspace.requests.draft import Selector
from lmeraser.workspace.requests.selection import read_ids, resolve

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


def test_unknown_names_are_all_listed(records: Records) -> None:
    with pytest.raises(UnknownRecordError) as caught:
        resolve(records, Selector.of(["r2", "r0", "x", "s2", "x"], ["s0", "s9", "r3"]))
    assert caught.value.got.splitlines() == [
        "4",
        "  - record id 's2'",
        "  - record id 'x'",
        "  - subject 'r3'",
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
        ("ids.jsonl", b"a\n", "Cannot read"),
        ("ids.csv", b"", "no column 'id' (there are: none)"),
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


def test_whole_numbers_in_json_lines_are_ids(tmp_path: Path) -> None:
    (tmp_path / "ids.JSONL").write_text('17\n"17 "\n')
    assert read_ids(tmp_path / "ids.JSONL") == ["17", "17 "]


def test_an_ids_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfa\nb\n")
    assert read_ids(tmp_path / "ids.txt") == ["a", "b"]


def test_an_ids_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "bytes", "."):
        with pytest.raises(InputError, match=str(tmp_path)):
            read_ids(tmp_path / name)
