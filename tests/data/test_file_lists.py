"""Tables in text files are read literally, and malformed ones refused with the number of the line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmeraser.data.file_lists import read_table
from lmeraser.errors import InputError


def written(tmp_path: Path, name: str, text: str | bytes) -> Path:
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return tmp_path / name


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.csv", 'id,subject\n"a, b", c \nd,\n'),
        ("x.CSV", '\ufeffid,subject\r\n"a, b", c \r\n\r\nd,\r\n'),
        ("x.csv", "id;subject\na, b; c \nd;\n"),
        ("x.csv", "id|subject\na, b| c \nd|\n"),
        ("x.csv", '\ufeffsep=;\r\n\r\nid;subject\r\n"a, b"; c \r\nd;\r\n'),
        ("x.tsv", "id\tsubject\na, b\t c \nd\t\n"),
        ("x.jsonl", '{"id": "a, b", "subject": " c "}\n\n{"id": "d", "subject": null}\n'),
    ],
)
def test_cells_are_taken_literally(tmp_path: Path, name: str, text: str) -> None:
    table = read_table(written(tmp_path, name, text))
    assert list(table.columns) == ["id", "subject"]
    assert [dict(row) for row in table.rows] == [{"id": "a, b", "subject": " c "}, {"id": "d", "subject": None}]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("x.csv", "", "without rows"),
        ("x.csv", "id,subject\n", "without rows"),
        ("x.csv", "id,id\na,b\n", "line 1: column names"),
        ("x.csv", "sep=;\nid;x\na\n", "line 3: 1 cells"),
        ("x.csv", "sep=;\n", "without rows"),
        ("x.csv", ",\na,b\n", "line 1: column names"),
        ("x.csv", "id,subject\na\n", r"line 2: 1 cells \(expected 2\)"),
        ("x.csv", 'id,subject\na,"b\n', "line 2"),
        ("x.csv", "id,subject\na,b\nc,d,e\n", "line 3: 3 cells"),
        ("x.jsonl", '{"id": 1}\n[1]\n', "line 2: not a JSON object"),
        ("x.jsonl", '{"id": 1}\n{"id"\n', "line 2: not JSON"),
        ("x.jsonl", '{"id": 1}\n{"id": 2, "id": 3}\n', "line 2: a name stands twice"),
        ("x.csv", "\n\nid,id\na,b\n", "line 3: column names"),
        ("x.csv", b"id,subject\n\xff,b\n", "not UTF-8"),
    ],
)
def test_malformed_tables_are_refused(tmp_path: Path, name: str, text: str | bytes, why: str) -> None:
    with pytest.raises(InputError, match=why):
        read_table(written(tmp_path, name, text))


def test_empty_lines_before_the_names_of_the_columns_are_no_names(tmp_path: Path) -> None:
    table = read_table(written(tmp_path, "x.csv", "\n\r\nid;subject\na;ann, née Lee\n"))
    assert table.rows == [{"id": "a", "subject": "ann, née Lee"}]


def test_a_column_without_a_name_is_not_read(tmp_path: Path) -> None:
    """pandas writes its index as one, and spreadsheets leave empty columns at the end."""
    path = tmp_path / "x.csv"
    path.write_text(",id,subject,\n0,a,ann,\n1,b,bob,\n")
    table = read_table(path)
    assert table.columns == ["id", "subject"]
    assert table.rows == [{"id": "a", "subject": "ann"}, {"id": "b", "subject": "bob"}]


def test_a_table_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.csv"):
        read_table(tmp_path / "none.csv")
