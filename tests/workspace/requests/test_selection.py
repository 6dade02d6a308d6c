"""A request is resolved as a whole: names may repeat and mix, unknown ones are all listed."""

from __future__ import annotations

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


def test_an_ids_file_has_one_id_a_line(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("a/1.png\n\n  b \r\n# a comment\n  # another\nc#d\ntwo words", encoding="utf-8")
    assert read_ids(path) == ["a/1.png", "b", "c#d", "two words"]


def test_an_ids_file_may_begin_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "ids.txt").write_bytes(b"\xef\xbb\xbfa\nb\n")
    assert read_ids(tmp_path / "ids.txt") == ["a", "b"]


def test_an_ids_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for name in ("none", "bytes", "."):
        with pytest.raises(InputError, match=str(tmp_path)):
            read_ids(tmp_path / name)
