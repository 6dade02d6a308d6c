"""Texts in tables: whatever kind of table it is, the same rows come out, and faults name the row or the line."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, Value
from scipy.sparse import csr_array

from lmeraser.data.modalities.text import TextFormat
from lmeraser.data.rows import Columns, Example, Row, Source, check_row
from lmeraser.data.sources import open_source
from lmeraser.data.tables import class_names
from lmeraser.errors import InputError

TEXTS = TextFormat()
ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "Where is my card?\r\nI lost it", "label": "lost", "subject": "p1"},
    {"id": "b", "text": 'said "no", twice; 👍🏽 שלום', "label": "other", "subject": "p2"},
    {"id": "c", "text": "Rene\u0301e", "label": "lost", "subject": None},
]
EXPECTED = [
    Row(0, "a", "p1", "lost", b"Where is my card?\nI lost it"),
    Row(1, "b", "p2", "other", 'said "no", twice; 👍🏽 שלום'.encode()),
    Row(2, "c", None, "lost", "Ren\u00e9e".encode()),
]


def opened(source: Any, **options: Any) -> Source:
    return open_source(source, payloads=TEXTS, **options)


def written(path: Path, data: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return path


def as_csv(separator: str = ",") -> str:
    return str(pd.DataFrame(ROWS).to_csv(index=False, sep=separator))


def source_of(kind: str, folder: Path) -> Any:
    lines = "\n".join(map(json.dumps, ROWS))
    made: dict[str, Any] = {
        "csv": lambda: written(folder / "x.csv", as_csv()),
        "csv with a mark": lambda: written(folder / "x.csv", as_csv().encode("utf-8-sig")),
        "csv in UTF-16": lambda: written(folder / "x.csv", as_csv().encode("utf-16")),
        "tsv": lambda: written(folder / "x.tab", as_csv("\t")),
        "jsonl": lambda: written(folder / "x.jsonl", lines),
        "parquet": lambda: (parquet.write_table(pa.Table.from_pylist(ROWS), folder / "x.parquet"), folder)[1],
        "DataFrame": lambda: pd.DataFrame(ROWS),
        "dataset": lambda: Dataset.from_list(ROWS),
        "stream": lambda: IterableDataset.from_generator(lambda: iter(ROWS)),
        "Arrow": lambda: pa.Table.from_pylist(ROWS),
        "dictionaries": lambda: iter(ROWS),
        "tuple": lambda: tuple([row[name] for row in ROWS] for name in ("text", "label", "id", "subject")),
    }
    return made[kind]()


@pytest.mark.parametrize(
    "kind",
    [
        *("csv", "csv with a mark", "csv in UTF-16", "tsv", "jsonl", "parquet", "DataFrame", "dataset", "stream"),
        *("Arrow", "dictionaries", "tuple"),
    ],
)
def test_every_kind_of_table_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    source = opened(source_of(kind, tmp_path))

    assert source.classes == ("lost", "other")
    rows = list(source.rows)
    assert rows == EXPECTED
    assert check_row(rows[1], source.classes, source.classes, TEXTS.check) == Example(1, rows[1].payload or b"")


def test_declared_classes_are_kept_and_numbers_are_names_in_their_order() -> None:
    features = Features({"text": Value("string"), "label": ClassLabel(names=["zero", "one"])})
    declared = opened(Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=features))
    assert declared.classes == ("zero", "one")
    assert [row.label for row in declared.rows] == [1, 0]

    numbers = opened((["a", "b", "c", "d"], [10, 9, -1, 9.0]))
    assert numbers.classes == ("-1", "9", "10") == class_names(["9", "10", "-1"])
    assert [row.label for row in numbers.rows] == ["10", "9", "-1", "9"]
    assert [row.id for row in opened((["a"], [True])).rows] == ["row-00000000"]


def test_each_faulty_cell_is_the_fault_of_its_row() -> None:
    texts = ["good", " \n", None, "a\0b", "\ud800", "a" * (10 << 20), 17]
    rows = list(opened([{"text": text, "label": "x"} for text in texts]).rows)

    assert [row.fault for row in rows] == [
        "",
        "the text is empty",
        "no text",
        "the text has a NUL character at line 1, character 2",
        "the text has half of a surrogate pair at line 1, character 1",
        f"a text of {10 << 20} characters (the limit is {1 << 20} bytes)",
        "a value of type int instead of a text",
    ]
    assert [row.payload is None for row in rows] == [bool(row.fault) for row in rows]


@pytest.mark.parametrize(
    ("name", "data", "fault"),
    [
        ("x.csv", b"text,label\nfine,a\nb\xe9d,a\n", r"not UTF-8 text: .*x\.csv, line 3, byte 20: invalid"),
        ("x.csv", "text,label\nfine,a\nbad,a\n".encode("utf-16")[:-1], r"not UTF-16 text: .*line 3, byte"),
        ("x.csv", "text,label\na,b\n".encode("utf-16-le"), "line 1: null characters"),
        ("x.csv", 'text,label\n"two\nlines",a\nragged\n', r"line 4: 1 cells \(expected 2\)"),
        ("x.csv", 'text,label\n"never closed,a\n', "line 2"),
        ("x.csv", "text,label\n", "without rows"),
        ("x.jsonl", '{"text": "a", "label": "b"}\n{"text"\n', "line 2: not JSON"),
        ("x.csv", "words,label\na,b\n", r"no column of the text .* \(there are: words, label\)"),
        ("x.csv", "text,class\na,b\n", r"no label in .* \(there are: text, class\)"),
        ("x.csv", "text,message,label\na,b,c\n", "Several columns may hold the text: text, message"),
    ],
)
def test_a_malformed_table_is_refused_before_any_of_it_is_used(
    tmp_path: Path, name: str, data: str | bytes, fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        opened(written(tmp_path / name, data))


def test_long_cells_and_embedded_lines_are_read(tmp_path: Path) -> None:
    long = "word " * 100_000
    path = written(tmp_path / "x.csv", f'message,intent\n"{long}",a\n"1\r\n2, ""3""",b\n')

    rows = list(opened(path, columns=Columns(payload="message", label="intent")).rows)

    assert [row.payload for row in rows] == [long.encode(), b'1\n2, "3"']


def test_a_column_of_splits_chooses_rows(tmp_path: Path) -> None:
    path = written(tmp_path / "x.csv", "text,label,split\na,x,train\nb,y,test\nc,x,train\n")

    chosen = opened(path, split="train")
    assert ([row.id for row in chosen.rows], chosen.classes) == (["train-00000000", "train-00000001"], ("x",))
    assert any("--split" in hint for hint in opened(path).hints)
    with pytest.raises(InputError, match=r"'dev' in .* \(there are: test, train\)"):
        opened(path, split="dev")


def test_a_text_stored_once_in_parquet_is_held_once(tmp_path: Path) -> None:
    cell = "x" * 100_000
    parquet.write_table(pa.table({"text": [cell] * 300, "label": ["a"] * 300}), tmp_path / "x.parquet")
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()

    most = max(pool.bytes_allocated() - before for _ in opened(tmp_path / "x.parquet").rows)

    assert most < 8 << 20, "of 30 MB"


def test_a_label_that_is_no_class_is_the_fault_of_its_row_and_of_the_source_if_there_is_no_other() -> None:
    labels = ["a", 0.5, b"a", ["a"], None, pd.NA, Decimal("1.0"), True]
    rows = list(opened((["text"] * len(labels), labels)).rows)

    not_whole = "label: a number that is not whole is no class"
    other = "label: a value of type {} is no class; give a text or a whole number"
    assert [row.fault for row in rows] == ["", not_whole, other.format("bytes"), other.format("list"), *[""] * 4]
    assert [row.label for row in rows] == ["a", None, None, None, None, None, "1", "True"]
    for nothing, why in (
        (np.array([b"a", b"b"]), "type bytes_"),
        ([None, " "], "no value"),
        (np.eye(2), "ndarray"),
    ):
        with pytest.raises(InputError, match=f"No row has a label: the column label of arrays: .*{why}"):
            opened((["text"] * 2, nothing))


def test_masked_values_are_missing() -> None:
    """Else whatever lies under the mask would be learned, or be the name of a record."""
    masked = np.ma.masked_array([1, 2], mask=[False, True])

    assert [row.label for row in opened((["a", "b"], masked)).rows] == ["1", None]
    assert [row.id for row in opened((["a", "b"], ["x", "y"], masked)).rows] == ["1", ""]


def test_named_levels_of_an_index_are_columns() -> None:
    frame = pd.DataFrame({"text": ["a", "b"], "label": ["x", "y"]})
    frame.index = pd.MultiIndex.from_tuples([("p", 7, 0), ("q", 8, 0)], names=["subject", "id", None])
    assert [(row.id, row.subject) for row in opened(frame).rows] == [("7", "p"), ("8", "q")]


@pytest.mark.parametrize("values", [csr_array(np.eye(2)), (text for text in "ab")])
def test_values_that_are_no_array_are_named(values: Any) -> None:
    with pytest.raises(InputError, match=r"no array: (csr_array, which is sparse|generator)"):
        opened((values, ["x", "y"]))


def test_a_column_that_stands_twice_is_not_guessed(tmp_path: Path) -> None:
    table = pa.table([pa.array(["a"])] * 3, names=["text", "label", "label"])
    parquet.write_table(table, tmp_path / "x.parquet")
    frame = pd.DataFrame([["a", "b", "c"]], columns=["text", "label", "label"])

    for source in (table, tmp_path / "x.parquet", frame):
        with pytest.raises(InputError, match="Several columns of the same name: label in"):
            opened(source)


@pytest.mark.parametrize(
    "source",
    [
        *({"text": ["a"]}, 17, [["a", "b"]], [], (["a"], ["x", "y"]), "nothing.csv", "", "x" * 5000),
        *(pd.Series(["a"]), (torch.ones(2, dtype=torch.bfloat16), ["a", "b"])),
    ],
)
def test_what_is_no_table_is_refused(source: Any) -> None:
    with pytest.raises(InputError):
        opened(source)


def test_a_folder_of_class_folders_with_texts(tmp_path: Path) -> None:
    for name, data in {
        "train/ham/a.txt": b"\xef\xbb\xbfhello",
        "train/spam/b.TXT": "buy".encode("utf-16"),
        "train/spam/c.txt": b"one\ntwo \xff",
        "train/spam/d.txt": b" ",
        "train/spam/.e.txt": b"hidden",
        "train/spam/f.png": b"no text",
        "test/ham/a.txt": b"hello",
    }.items():
        written(tmp_path / name, data)

    with pytest.raises(InputError, match="splits, not classes"):
        opened(tmp_path)
    with pytest.raises(InputError, match="Split not found"):
        opened(tmp_path, split="other")
    source = opened(tmp_path, split="train")
    assert (source.classes, source.passed_over) == (("ham", "spam"), {".png": 1, "hidden files": 1})
    assert [(row.id, row.label, row.payload, row.fault) for row in source.rows] == [
        ("ham/a.txt", "ham", b"hello", ""),
        ("spam/b.TXT", "spam", b"buy", ""),
        ("spam/c.txt", "spam", None, "not UTF-8 text: invalid start byte in line 2, byte 9"),
        ("spam/d.txt", "spam", None, "the text is empty"),
    ]
