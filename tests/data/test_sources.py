"""Whatever holds the records, a source is a stream of rows with the bytes as given, and no copy is made."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, Value, load_dataset

from conftest import DIGIT_CLASSES, digits, png
from lmeraser.data.sources import Columns, Example, Row, Source, check_row, chunks, image_files, open_source
from lmeraser.errors import InputError

DOT = png(np.full((3, 3), 9))
_STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def rows_of(source: Source) -> list[Row]:
    return list(source.rows)


def folder(root: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(data)
    return root


def table(path: Path, columns: dict[str, pa.Array]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(columns), path)
    return path


def images(paths: list[str | None]) -> pa.Array:
    return pa.array([{"bytes": DOT, "path": path} for path in paths], _STRUCT)


# --- folders -----------------------------------------------------------------------------------------------


def test_a_folder_of_class_folders_names_classes_and_ids(tmp_path: Path) -> None:
    files = {
        "dog/b.png": b"1",
        "cat/a.JPG": b"2",
        "cat/deep/c.webp": b"3",
        "cat/notes.txt": b"-",
        "readme.png": b"-",
    }
    source = open_source(folder(tmp_path, files))
    assert source.classes == ("cat", "dog")
    assert source.length == 3
    assert rows_of(source) == [
        Row(0, "cat/a.JPG", None, "cat", b"2"),
        Row(1, "cat/deep/c.webp", None, "cat", b"3"),
        Row(2, "dog/b.png", None, "dog", b"1"),
    ]


def test_a_split_of_a_folder_is_a_folder_in_it(tmp_path: Path) -> None:
    folder(tmp_path, {"train/cat/a.png": b"1", "test/dog/b.png": b"2"})
    source = open_source(str(tmp_path), split="test")
    assert source.classes == ("dog",)
    assert [row.id for row in rows_of(source)] == ["dog/b.png"]


def test_a_split_that_a_folder_does_not_have_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"train/cat/a.png": b"1"})
    with pytest.raises(InputError, match="tset"):
        open_source(tmp_path, split="tset")


@pytest.mark.parametrize("files", [{}, {"cat/notes.txt": b""}, {"a.png": b""}])
def test_a_folder_without_images_says_what_is_expected(tmp_path: Path, files: dict[str, bytes]) -> None:
    with pytest.raises(InputError, match="CLASS/FILE"):
        open_source(folder(tmp_path, files))


def test_a_file_that_is_no_source_is_refused(tmp_path: Path) -> None:
    folder(tmp_path, {"photo.png": DOT})
    with pytest.raises(InputError, match=r"photo\.png"):
        open_source(tmp_path / "photo.png")


def test_a_file_that_vanishes_or_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, {"cat/a.png": b"1", "cat/b.png": b"2"}))
    (tmp_path / "cat" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png"):
        rows_of(source)


# --- parquet -----------------------------------------------------------------------------------------------


def test_parquet_keeps_class_names_ids_subjects_and_bytes(tmp_path: Path) -> None:
    path = tmp_path / "digits.parquet"
    digits(range(5)).to_parquet(path)
    source = open_source(path, columns=Columns(id="id", subject="writer"))
    assert (source.classes, source.length) == (tuple(DIGIT_CLASSES), 5)
    expected = list(digits(range(5)).cast_column("image", Image(decode=False)))
    for position, row in enumerate(rows_of(source)):
        given = expected[position]
        assert row == Row(position, given["id"], given["writer"], given["label"], given["image"]["bytes"])


def test_plain_bytes_and_names_as_labels_are_enough(tmp_path: Path) -> None:
    columns = {"photo": pa.array([DOT, DOT]), "animal": pa.array(["cat", None])}
    source = open_source(table(tmp_path / "x.parquet", columns), columns=Columns(image="photo", label="animal"))
    assert source.classes == ()
    assert rows_of(source) == [
        Row(0, "row-00000000", None, "cat", DOT),
        Row(1, "row-00000001", None, None, DOT),
    ]


def test_the_images_path_is_the_id_unless_positions_or_a_column_are_asked_for(tmp_path: Path) -> None:
    columns = {"image": images(["p/a.png", "p/b.png"]), "label": pa.array([0, 1]), "number": pa.array([7, None])}
    path = table(tmp_path / "x.parquet", columns)
    assert [row.id for row in rows_of(open_source(path))] == ["p/a.png", "p/b.png"]
    by_position = open_source(path, columns=Columns(positions=True))
    assert [row.id for row in rows_of(by_position)] == ["row-00000000", "row-00000001"]
    by_column = open_source(path, columns=Columns(id="number", subject="number"))
    assert [(row.id, row.subject) for row in rows_of(by_column)] == [("7", "7"), ("", None)]


def test_positions_of_different_splits_are_different_ids(tmp_path: Path) -> None:
    for split in ("train", "test"):
        table(tmp_path / f"{split}-00000-of-00001.parquet", {"image": pa.array([DOT]), "label": pa.array([0])})
    ids = [row.id for split in ("train", "test") for row in rows_of(open_source(tmp_path, split=split))]
    assert ids == ["train-00000000", "test-00000000"]


def test_several_splits_need_a_choice_that_exists(tmp_path: Path) -> None:
    for name in ("train-00000-of-00002", "train-00001-of-00002", "test-00000-of-00001"):
        table(tmp_path / f"{name}.parquet", {"image": pa.array([DOT]), "label": pa.array([0])})
    assert open_source(tmp_path, split="train").length == 2
    with pytest.raises(InputError, match="test, train") as caught:
        open_source(tmp_path)
    assert "--split" in str(caught.value)
    with pytest.raises(InputError, match="'dev'"):
        open_source(tmp_path, split="dev")


def test_missing_columns_are_all_listed_beside_those_there_are(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", {"photo": pa.array([DOT]), "label": pa.array([0])})
    with pytest.raises(InputError) as caught:
        open_source(path, columns=Columns(id="key", subject="person"))
    assert all(part in str(caught.value) for part in ("no image, key, person in", "(there are: photo, label)"))
    assert "--image-column" in str(caught.value)


def test_a_cell_without_an_image_is_a_row_without_one(tmp_path: Path) -> None:
    cells = pa.array([None, {"bytes": None, "path": "gone.png"}, {"bytes": DOT, "path": None}], _STRUCT)
    path = table(tmp_path / "x.parquet", {"image": cells, "label": pa.array([0, 0, 0])})
    assert [row.image for row in rows_of(open_source(path))] == [None, None, DOT]


def test_an_empty_subject_is_an_unknown_one(tmp_path: Path) -> None:
    columns = {"image": pa.array([DOT] * 3), "label": pa.array([0] * 3), "who": pa.array(["", None, "ada"])}
    source = open_source(table(tmp_path / "x.parquet", columns), columns=Columns(subject="who"))
    assert [row.subject for row in rows_of(source)] == [None, None, "ada"]


@pytest.mark.parametrize("data", [b"", b"PAR1", b"x" * 100])
def test_a_file_that_is_not_parquet_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "x.parquet").write_bytes(data)
    with pytest.raises(InputError, match="Cannot read parquet"):
        open_source(tmp_path / "x.parquet")


def test_a_damaged_page_of_a_parquet_file_is_an_input_error(tmp_path: Path) -> None:
    path = tmp_path / "digits.parquet"
    parquet.write_table(digits(range(200)).data.table, path, compression="zstd")
    data = bytearray(path.read_bytes())
    data[200:2000] = bytes(1800)
    path.write_bytes(data)
    source = open_source(path)
    with pytest.raises(InputError, match=r"digits\.parquet"):
        rows_of(source)


# --- datasets ----------------------------------------------------------------------------------------------


def test_a_dataset_and_its_stream_give_the_same_rows() -> None:
    columns = Columns(id="id", subject="writer")
    dataset = digits(range(6))
    kept = open_source(dataset, columns=columns)
    streamed = open_source(dataset.to_iterable_dataset(), columns=columns)
    assert kept.classes == streamed.classes == tuple(DIGIT_CLASSES)
    assert (kept.length, streamed.length) == (6, None)
    assert rows_of(kept) == rows_of(streamed)


@pytest.mark.parametrize("kind", ["numpy", "torch", "pandas"])
def test_a_datasets_output_format_does_not_matter(kind: str) -> None:
    columns = Columns(id="id", subject="writer")
    dataset = digits(range(3))
    assert rows_of(open_source(dataset.with_format(kind), columns=columns)) == rows_of(
        open_source(dataset, columns=columns)
    )


def test_a_transform_of_a_dataset_does_not_touch_the_images() -> None:
    def blank(batch: Any) -> Any:
        raise AssertionError("the bytes are read as given")

    dataset = digits(range(3)).with_transform(blank)
    assert len(rows_of(open_source(dataset, columns=Columns(id="id")))) == 3


def test_a_stream_without_declared_columns_is_read() -> None:
    def generate() -> Iterator[dict[str, Any]]:
        yield {"image": DOT, "label": "cat", "id": "a"}
        yield {"image": {"bytes": DOT, "path": None}, "label": "dog", "id": "b"}

    stream = IterableDataset.from_generator(generate)
    assert stream.features is None
    source = open_source(stream, columns=Columns(id="id"))
    assert rows_of(source) == [Row(0, "a", None, "cat", DOT), Row(1, "b", None, "dog", DOT)]
    with pytest.raises(InputError, match=r"no key in .*\(there are: image, label, id\)"):
        open_source(stream, columns=Columns(id="key"))


def test_pillow_images_in_a_dataset_are_stored_as_files() -> None:
    from PIL import Image as PillowImage

    features = Features({"image": Image(), "label": ClassLabel(names=["a"])})
    dataset = Dataset.from_dict({"image": [PillowImage.new("L", (3, 3), 9)], "label": [0]}, features=features)
    (row,) = rows_of(open_source(dataset))
    assert row.image is not None
    assert check_row(row, ["a"], ["a"]) == Example(0, row.image)


def test_a_dictionary_of_splits_is_refused_with_advice() -> None:
    with pytest.raises(InputError, match="train"):
        open_source(DatasetDict({"train": digits([0])}))


def test_datasets_image_folders_on_disk_are_read(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", {"cat/a.png": DOT, "dog/b.png": DOT})
    dataset = load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row.image for row in rows_of(open_source(dataset))] == [DOT, DOT]


def test_a_name_that_cannot_be_reached_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("Couldn't reach 'nobody/nothing' on the Hub")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(InputError, match="nobody/nothing") as caught:
        open_source("hub:nobody/nothing")
    assert "network" in str(caught.value)


def test_a_path_that_does_not_exist_is_never_taken_for_a_dataset(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    monkeypatch.setattr(datasets, "load_dataset", None)
    for name in ("patients/record-0017", "patients/ward3.parquet", "nobody/nothing"):
        with pytest.raises(InputError, match="hub:OWNER/NAME") as caught:
            open_source(name)
        assert name in caught.value.got


# --- rows --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (Row(0, "a", None, 1, DOT), Example(0, DOT)),
        (Row(0, "a", None, "dog", DOT), Example(0, DOT)),
        (Row(0, "a", None, 0, DOT), "unknown label 'cat'"),
        (Row(0, "a", None, "eel", DOT), "unknown label 'eel'"),
        (Row(0, "a", None, 2, DOT), "label 2 is outside 0..1"),
        (Row(0, "a", None, -1, DOT), "label -1 is outside 0..1"),
        (Row(0, "a", None, None, DOT), "no label"),
        (Row(0, "a", None, "", DOT), "no label"),
        (Row(0, "a", None, 1, None), "no image"),
    ],
)
def test_a_row_is_an_example_or_says_what_is_wrong(row: Row, expected: Example | str) -> None:
    assert check_row(row, ["cat", "dog"], ["dog", "fox"]) == expected


def test_indices_of_a_source_without_names_mean_the_workspaces_classes() -> None:
    assert check_row(Row(0, "a", None, 1, DOT), [], ["dog", "fox"]) == Example(1, DOT)


def test_an_image_that_does_not_decode_says_why() -> None:
    fault = check_row(Row(0, "a", None, 1, b"text"), [], ["dog", "fox"])
    assert isinstance(fault, str)
    assert "Not an image file" in fault


def test_chunks_pull_no_more_than_they_hand_out() -> None:
    pulled = 0

    def endless() -> Iterator[Row]:
        nonlocal pulled
        while True:
            pulled += 1
            yield Row(pulled, "a", None, None, None)

    stream = chunks(endless(), size=10)
    assert len(next(stream)) == 10
    assert pulled == 10


def test_image_files_are_found_in_folders_and_missing_ones_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, {"b.png": DOT, "a/c.JPEG": DOT, "a/notes.txt": b"", "x.bin": DOT})
    assert image_files([root]) == [root / "a" / "c.JPEG", root / "b.png"]
    assert image_files([root / "x.bin", root / "a"]) == [root / "x.bin", root / "a" / "c.JPEG"]
    with pytest.raises(InputError, match=r"none\.png"):
        image_files([root / "b.png", root / "none.png"])
    (root / "empty").mkdir()
    with pytest.raises(InputError, match="without image files"):
        image_files([root / "empty"])


def test_features_declared_by_a_stream_are_used() -> None:
    features = Features({"image": Image(), "label": ClassLabel(names=["a", "b"]), "id": Value("string")})

    def generate() -> Iterator[dict[str, Any]]:
        yield {"image": {"bytes": DOT, "path": None}, "label": 1, "id": "x"}

    source = open_source(IterableDataset.from_generator(generate, features=features), columns=Columns(id="id"))
    assert source.classes == ("a", "b")
    assert rows_of(source) == [Row(0, "x", None, 1, DOT)]
