"""Vectors in files and in memory: the same rows from all of them, with as little memory as the format allows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import Dataset

from lmeraser.data.arrays import open_arrays
from lmeraser.data.modalities.vector import VectorFormat
from lmeraser.data.sources import open_source
from lmeraser.errors import InputError

X = np.random.default_rng(0).standard_normal((600, 3)).astype(np.float32)
Y = np.arange(600) % 11
IDS = np.array([f"r{number}" for number in range(600)])


def opened(source: Any) -> Any:
    return open_source(source, payloads=VectorFormat(3))


def table(kind: pa.DataType) -> pa.Table:
    return pa.table({"vector": pa.array(list(X), kind), "label": Y, "id": IDS})


def source_of(kind: str, folder: Path) -> Any:
    rows = [{"vector": x, "label": y, "id": name} for x, y, name in zip(X, Y, IDS, strict=True)]
    if kind in ("C", "F"):
        np.savez_compressed(folder / "x.npz", X=np.asfortranarray(X) if kind == "F" else X, y=Y, ids=IDS)
        return folder / "x.npz"
    if kind == "npy":
        for name, array in (("X", X), ("y", Y), ("ids", IDS)):
            np.save(folder / f"{name}.npy", array)
        return folder / "X.npy"
    if kind in ("list", "fixed"):
        parquet.write_table(
            table(pa.list_(pa.float32(), 3) if kind == "fixed" else pa.list_(pa.float64())), folder / "x.parquet"
        )
        return folder / "x.parquet"
    made: dict[str, Any] = {
        "DataFrame": lambda: pd.DataFrame(rows),
        "dataset": lambda: Dataset(table(pa.list_(pa.float32()))).select(range(600)),
        "Arrow": lambda: table(pa.list_(pa.float32(), 3)),
        "dictionaries": lambda: rows,
        "tuple": lambda: (X, Y, IDS),
    }
    return made[kind]()


@pytest.mark.parametrize(
    "kind", ["C", "F", "npy", "list", "fixed", "DataFrame", "dataset", "Arrow", "dictionaries", "tuple"]
)
def test_every_kind_of_source_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    source = opened(source_of(kind, tmp_path))

    assert source.classes == tuple(map(str, range(11)))
    rows = list(source.rows)
    assert not any(row.fault for row in rows)
    assert b"".join(row.payload for row in rows) == X.tobytes()
    assert [row.label for row in rows] == [str(number) for number in Y]
    assert [row.id for row in rows] == IDS.tolist()


def test_faulty_vectors_are_faults_of_their_rows() -> None:
    vectors = pa.array([[1, 2, 3], [1, 2], None, [1, float("nan"), 3], [1e39, 0, 0]], pa.list_(pa.float64()))
    faults = [row.fault for row in opened(pa.table({"vector": vectors, "label": [0] * 5})).rows]

    assert faults[:2] == ["", "a vector of 2 numbers instead of 3"]
    assert "instead of a vector" in faults[2]
    assert all("not finite" in fault for fault in faults[3:])
    assert [row.fault for row in opened((X[:, :2], Y)).rows] == ["a vector of 2 numbers instead of 3"] * 600


def test_slices_and_missing_cells_of_fixed_size_lists_keep_their_places() -> None:
    vectors = pa.array([[0, 0, 0], None, [1, 2, 3], [4, 5, 6]], pa.list_(pa.float32(), 3))
    rows = list(opened(pa.table({"vector": vectors, "label": [0] * 4}).slice(1)).rows)

    assert [row.payload for row in rows] == [
        None,
        np.array([1, 2, 3], "<f4").tobytes(),
        np.array([4, 5, 6], "<f4").tobytes(),
    ]


def test_ids_and_subjects_are_found_under_either_name_and_other_arrays_are_mentioned(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", X=X, y=Y, id=IDS, subject=IDS, patient=IDS)
    source = opened(tmp_path / "x.npz")
    first = next(iter(source.rows))
    assert (first.id, first.subject) == ("r0", "r0")
    assert source.hints == ["arrays that were not read: patient; people are named by subjects"]


@pytest.mark.parametrize("names", [{"id": "id"}, {"id": "person"}])
def test_an_index_of_a_frame_that_has_a_name_is_a_column(names: dict[str, str]) -> None:
    frame = pd.DataFrame({"id": IDS[:2], "vector": list(X[:2]), "label": Y[:2]}).rename(columns=names)
    source = opened(frame.set_index(names["id"]))
    assert [row.id for row in source.rows] == (
        ["r0", "r1"] if names["id"] == "id" else ["row-00000000", "row-00000001"]
    )
    assert len(source.hints) == (names["id"] != "id")


@pytest.mark.parametrize(
    ("arrays", "fault"),
    [
        ({"X": X}, r"no y in .* \(there are: X\)"),
        ({"X": X, "y": Y[:5]}, r"X \[600, 3\], y \[5\]"),
        ({"X": X[0], "y": Y[:3]}, "do not fit"),
        ({"X": X, "y": Y.astype(object)}, "y has Python objects"),
        ({"X": X[:1].astype(object), "y": Y[:1]}, "X has Python objects"),
        ({"embeddings": X, "labels": Y}, r"no X, y in .* \(there are: embeddings, labels\)"),
        ({"X": X, "y": Y, "id": IDS, "ids": IDS}, "do not fit"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path: Path, arrays: dict[str, Any], fault: str) -> None:
    np.savez(tmp_path / "x.npz", **arrays)

    with pytest.raises(InputError, match=fault):
        open_arrays(tmp_path / "x.npz")


def test_masked_numbers_and_arrays_of_other_types_are_faults_that_say_what_they_are() -> None:
    assert {row.fault for row in opened((np.ma.masked_greater(X, -1e9), Y)).rows} == {
        "an array of type object instead of a vector of numbers"
    }
    assert next(iter(opened((X > 0, Y)).rows)).fault == "an array of type bool instead of a vector of numbers"


@pytest.mark.parametrize("place", range(280, 350, 7))
def test_a_damaged_member_of_an_archive_is_refused_or_read_as_it_was(tmp_path: Path, place: int) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, X=X[:6], y=Y[:6])
    whole = [(row.payload, row.label) for row in opened(path).rows]
    data = bytearray(path.read_bytes())
    data[place] ^= 255
    path.write_bytes(data)

    try:
        assert [(row.payload, row.label) for row in opened(path).rows] == whole
    except InputError as error:
        assert "Cannot read" in str(error) or "arrays" in str(error)  # noqa: PT017 - either is right


@pytest.mark.parametrize("name", ["x.npz", "x.npy"])
def test_a_damaged_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"damaged")

    with pytest.raises(InputError, match="Cannot read arrays"):
        open_arrays(tmp_path / name)
