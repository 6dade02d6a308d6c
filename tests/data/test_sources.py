"""Whatever holds the records, a source is a stream of rows with the bytes as given, and no copy is made."""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image, IterableDataset, Value, load_dataset
from PIL import Image as Pillow

from conftest import DIGIT_CLASSES, digits, png
from lmeraser.data.images import load_image
from lmeraser.data.modalities.image import ImageFormat
from lmeraser.data.modalities.text import TextFormat
from lmeraser.data.sources import (
    Columns,
    Example,
    Row,
    Source,
    check_row,
    chunks,
    image_files,
    open_source,
    row_chunks,
)
from lmeraser.data.subject_rules import SubjectRule
from lmeraser.errors import InputError

DOT = png(np.full((3, 3), 9))
OTHER_DOT = png(np.full((3, 3), 8))
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


def test_tables_in_memory_hold_images_or_name_their_files(tmp_path: Path) -> None:
    folder(tmp_path, {"a.png": DOT})
    file = str(tmp_path / "a.png")
    for source, ids in (
        (pd.DataFrame({"path": [file, file], "label": ["cat", "dog"], "id": [1, 2]}), ["1", "2"]),
        (pd.DataFrame({"image": [DOT, {"bytes": DOT, "path": "b.png"}], "label": ["cat", "dog"]}), None),
        (([DOT, Path(file)], ["cat", "dog"], ["1", "2"]), ["1", "2"]),
        ([{"image": file, "label": "cat"}, {"image": DOT, "label": "dog"}], [file, "row-00000001"]),
    ):
        opened = open_source(source, payloads=ImageFormat())
        rows = rows_of(opened)
        assert opened.classes == ("cat", "dog")
        assert [(row.label, row.payload, row.fault) for row in rows] == [("cat", DOT, ""), ("dog", DOT, "")]
        assert [row.id for row in rows] == (ids or ["row-00000000", "b.png"])
    faults = [row.fault for row in rows_of(open_source((["nothing.png", 17], ["cat", "dog"])))]
    assert faults == [
        f"no such file in {Path.cwd()}",
        "a value of type int instead of an image file's bytes or path, an image of Pillow, or an array of pixels "
        "(uint8)",
    ]


@pytest.mark.parametrize("kind", ["dictionaries", "tuple", "DataFrame", "stream"])
def test_images_in_memory_become_files_of_their_pixels(kind: str) -> None:
    """They are what `predict` sees of them: RGB, upright, on white. Another kind of value is a fault."""
    pixels = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    turned = io.BytesIO()
    exif = Pillow.Exif()
    exif[0x0112] = 6
    Pillow.fromarray(pixels).save(turned, "PNG", exif=exif)
    images: list[Any] = [
        pixels,
        Pillow.fromarray(pixels),
        Pillow.fromarray(pixels[..., 0]),
        Pillow.fromarray(pixels).convert("CMYK"),
        Pillow.open(turned),
        Pillow.new("RGBA", (1, 1), (9, 9, 9, 0)),
        pixels / 255,
        np.zeros((0, 3, 3), np.uint8),
    ]
    labels = ["cat", "dog"] * 4
    rows: list[dict[str, Any]] = [
        {"image": image, "label": label} for image, label in zip(images, labels, strict=True)
    ]
    sources: dict[str, Callable[[], Any]] = {
        "dictionaries": lambda: rows,
        "tuple": lambda: (images, labels),
        "DataFrame": lambda: pd.DataFrame(rows),
        "stream": lambda: IterableDataset.from_generator(lambda: iter(rows)),
    }
    source = sources[kind]()
    found = rows_of(open_source(source, payloads=ImageFormat()))

    assert found[0].payload == found[1].payload == b"P6\n4 2\n255\n" + pixels.tobytes()
    assert found[5].payload == b"P6\n1 1\n255\n\xff\xff\xff"
    for image, row in zip(images[:6], found, strict=False):
        assert load_image(row.payload or b"").tobytes() == load_image(image).tobytes()
    assert load_image(found[4].payload or b"").tobytes() == np.rot90(pixels, -1).tobytes()
    assert ["Unsupported array of pixels: float64" in row.fault for row in found[5:7]] == [False, True]
    assert "no pixels" in found[7].fault


@pytest.mark.parametrize("name", ["", "x" * 5000])
def test_a_name_that_no_file_can_have_is_refused(name: str) -> None:
    """An empty one is what a shell makes of a variable that is not set; it is not the working directory."""
    with pytest.raises(InputError, match="source"):
        open_source(name)


def test_a_file_that_vanishes_or_cannot_be_read_is_an_input_error(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, {"cat/a.png": b"1", "cat/b.png": b"2"}))
    (tmp_path / "cat" / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.png"):
        rows_of(source)


def test_folders_named_as_splits_are_not_classes(tmp_path: Path) -> None:
    root = folder(tmp_path / "a", {"train/cat/a.png": b"1", "val/cat/b.png": b"2", "notes/c.txt": b""})
    with pytest.raises(InputError, match=r"splits, not classes: .*: train, val") as caught:
        open_source(root)
    assert "--split" in caught.value.next_step
    assert [row.id for row in rows_of(open_source(root, split="validation"))] == ["cat/b.png"]
    loose = folder(tmp_path / "b", {"train/a.png": b"1", "test/b.png": b"2"})
    with pytest.raises(InputError, match="splits, not classes"):
        open_source(loose)
    with pytest.raises(InputError, match=r"directly in the folder.*1 images"):
        open_source(loose, split="train")
    vehicles = folder(tmp_path / "c", {"train/a.png": b"1", "bus/b.png": b"2"})
    assert open_source(vehicles).classes == ("bus", "train")


def test_a_folder_that_directly_holds_images_says_so(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.png": DOT, "b.jpg": DOT, "c.txt": b""})
    with pytest.raises(InputError, match=r"directly in the folder, not in class folders: .*2 images"):
        open_source(root)


def test_a_folder_of_a_hub_repository_names_the_folder_of_its_parquet_files(tmp_path: Path) -> None:
    table(tmp_path / "data" / "train-0.parquet", {"image": pa.array([DOT]), "label": pa.array([0])})
    with pytest.raises(InputError, match=r"parquet files, for example .*/data"):
        open_source(tmp_path)


def test_a_folder_that_cannot_be_listed_is_an_input_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder(tmp_path, {"cat/a.png": DOT})

    def refuse(path: Any) -> Any:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("lmeraser.data.folders.os.scandir", refuse)
    with pytest.raises(InputError, match=r"Cannot read folder: .*Permission denied"):
        open_source(root)


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    root = folder(tmp_path, {"cat/a.png": DOT, "cat/b.png": b""})
    with (root / "cat" / "b.png").open("wb") as file:
        file.truncate(200 << 20)
    faults = [row.fault for row in rows_of(open_source(root))]
    assert faults == ["", "a file of 200 MiB (the limit is 128 MiB)"]


def test_a_file_that_may_not_be_read_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = folder(tmp_path / "i", {"cat/a.png": DOT, "cat/b.png": DOT})
    texts = folder(tmp_path / "t", {"cat/a.txt": b"one", "cat/b.txt": b"two"})
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.stem == "b":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    for source in (open_source(images), open_source(texts, payloads=TextFormat())):
        assert [row.fault for row in rows_of(source)] == ["", "a file that this user may not read"]


@pytest.mark.parametrize("columns", [Columns(subject="person"), Columns(id="key"), Columns(label="kind")])
def test_columns_of_a_folder_without_any_are_refused(tmp_path: Path, columns: Columns) -> None:
    root = folder(tmp_path, {"cat/a.png": DOT})
    with pytest.raises(InputError, match="no columns: --") as caught:
        open_source(root, columns=columns)
    assert "--subjects" in caught.value.next_step


def test_positions_in_a_folder_are_ids_if_they_are_asked_for(tmp_path: Path) -> None:
    root = folder(tmp_path, {"train/cat/a.png": DOT, "train/dog/b.png": DOT})
    opened = open_source(root, split="train", columns=Columns(positions=True))
    assert [row.id for row in rows_of(opened)] == ["train-00000000", "train-00000001"]


# --- metadata ----------------------------------------------------------------------------------------------

PHOTOS = {"cat/a.png": DOT, "dog/b.png": DOT}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("metadata.csv", "file_name,subject,id\ncat/a.png,ada,7\ndog/b.png,,8\n"),
        (
            "metadata.jsonl",
            '{"file_name": "cat/a.png", "subject": "ada", "id": 7}\n{"path": "dog/b.png", "id": "8"}\n',
        ),
    ],
)
def test_metadata_of_a_folder_name_ids_and_subjects(tmp_path: Path, name: str, text: str) -> None:
    if name.endswith(".jsonl"):
        text = text.replace('"path"', '"file_name"')
    source = open_source(folder(tmp_path, {**PHOTOS, name: text.encode()}))
    assert source.classes == ("cat", "dog")
    rows = [(row.id, row.subject, row.label, row.payload) for row in rows_of(source)]
    assert rows == [("7", "ada", "cat", DOT), ("8", None, "dog", DOT)]
    assert source.passed_over == {}


def test_metadata_with_labels_make_classes_and_folders_do_not(tmp_path: Path) -> None:
    text = "file_name,label\nimages/a.png,dog\nb.png, cat\nimages/c.png,dog\n"
    root = folder(
        tmp_path, {"images/a.png": DOT, "b.png": DOT, "images/c.png": DOT, "metadata.csv": text.encode()}
    )
    source = open_source(root)
    assert source.classes == ("cat", "dog")
    assert [(row.id, row.label) for row in rows_of(source)] == [
        ("b.png", "cat"),
        ("images/a.png", "dog"),
        ("images/c.png", "dog"),
    ]


def test_columns_of_metadata_can_be_named(tmp_path: Path) -> None:
    text = "photo,who,kind\ncat/a.png,ada,tom\ndog/b.png,bob,rex\n"
    root = folder(tmp_path, {**PHOTOS, "metadata.csv": text.encode()})
    opened = open_source(root, columns=Columns(image="photo", subject="who", label="kind"))
    assert [(row.subject, row.label) for row in rows_of(opened)] == [("ada", "tom"), ("bob", "rex")]
    with pytest.raises(InputError, match=r"no whom in .*\(there are: photo, who, kind\)"):
        open_source(root, columns=Columns(image="photo", subject="whom"))


def test_images_without_metadata_and_metadata_without_images_are_faults(tmp_path: Path) -> None:
    text = "file_name,subject\ncat/a.png,ada\ncat/gone.png,ada\n../a.png,a\ncat/twice.png,ada\ncat/twice.png,bob\n"
    source = open_source(folder(tmp_path, {**PHOTOS, "cat/twice.png": DOT, "metadata.csv": text.encode()}))
    assert [(row.id, row.fault) for row in rows_of(source)] == [
        ("cat/a.png", ""),
        ("cat/twice.png", "listed twice in metadata.csv"),
        ("dog/b.png", "not listed in metadata.csv"),
        ("cat/gone.png", "listed in metadata.csv, but not in the folder"),
        ("../a.png", "listed in metadata.csv, but not in the folder"),
    ]


def test_metadata_lie_in_a_split_or_above_it(tmp_path: Path) -> None:
    text = "file_name,subject\ntrain/cat/a.png,ada\ntest/cat/a.png,bob\n"
    files = {"train/cat/a.png": DOT, "test/cat/a.png": DOT}
    above = folder(tmp_path / "above", {**files, "metadata.csv": text.encode()})
    assert [(row.id, row.subject) for row in rows_of(open_source(above, split="test"))] == [("cat/a.png", "bob")]
    inside = folder(tmp_path / "in", {**files, "test/metadata.csv": b"file_name,subject\ncat/a.png,eve\n"})
    assert [row.subject for row in rows_of(open_source(inside, split="test"))] == ["eve"]


def test_metadata_that_say_nothing_needed_are_mentioned(tmp_path: Path) -> None:
    source = open_source(folder(tmp_path, {**PHOTOS, "metadata.csv": b"file_name,caption\ncat/a.png,nice\n"}))
    assert [row.fault for row in rows_of(source)] == ["", ""]
    assert source.hints == ["metadata.csv was not used: it has no column label, id or subject"]


def test_tables_among_the_classes_are_mentioned(tmp_path: Path) -> None:
    """They may say whom the images are about."""
    root = folder(tmp_path, {**PHOTOS, "Metadata.csv": b"file_name,subject\ncat/a.png,ada\n", "cat/x.csv": b""})
    (hint,) = open_source(root).hints
    assert hint.startswith("tables that were not read: Metadata.csv; metadata of images are in metadata.csv")
    (root / "Metadata.csv").rename(root / "metadata.csv")
    assert open_source(root).hints == []


# --- lists of files ----------------------------------------------------------------------------------------

LIST = "path,label,id,subject\nx/a.png,dog,1,ada\nx/b.png,cat,2,\n"


def test_a_list_of_files_is_a_source(tmp_path: Path) -> None:
    root = folder(tmp_path, {"x/a.png": DOT, "x/b.png": OTHER_DOT, "list.csv": LIST.encode()})
    lines = [
        {"path": "x/a.png", "label": "dog", "id": 1, "subject": "ada"},
        {"path": "x/b.png", "label": "cat", "id": 2.0},
    ]
    (root / "list.jsonl").write_text("\n".join(map(json.dumps, lines)))
    for name in ("list.csv", "list.jsonl"):
        source = open_source(root / name)
        assert (source.classes, source.length, source.hints) == (("cat", "dog"), 2, [])
        rows = [(row.id, row.subject, row.label, row.payload) for row in rows_of(source)]
        assert rows == [("1", "ada", "dog", DOT), ("2", None, "cat", OTHER_DOT)]


def test_columns_of_a_list_can_be_named_and_are_hinted_at(tmp_path: Path) -> None:
    text = "file,kind,Patient ID,uuid\na.png,cat,17,u-1\n"
    root = folder(tmp_path, {"a.png": DOT, "list.csv": text.encode()})
    with pytest.raises(InputError, match=r"no label in .*\(there are: file, kind, Patient ID, uuid\)"):
        open_source(root / "list.csv")
    source = open_source(root / "list.csv", columns=Columns(label="kind"))
    assert [row.id for row in rows_of(source)] == ["a.png"]
    assert ["--subject-column 'Patient ID'" in source.hints[0], "--id-column uuid" in source.hints[1]] == [
        True,
        True,
    ]
    named = open_source(root / "list.csv", columns=Columns(label="kind", id="uuid", subject="Patient ID"))
    assert [(row.id, row.subject) for row in rows_of(named)] == [("u-1", "17")]
    assert named.hints == []


def test_numbers_as_classes_are_sorted_as_numbers_and_indices_need_names(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.png": DOT, "list.csv": b"path,label\na.png,10\na.png,9\n"})
    assert open_source(root / "list.csv").classes == ("9", "10")
    (root / "list.jsonl").write_text('{"path": "a.png", "label": 1}\n{"path": "a.png", "label": true}\n')
    source = open_source(root / "list.jsonl")
    assert (source.classes, [row.label for row in rows_of(source)]) == ((), [1, None])


def test_a_list_of_several_splits(tmp_path: Path) -> None:
    root = folder(tmp_path, {"a.png": DOT, "list.csv": b"path,label,split\na.png,cat,train\na.png,dog,test\n"})
    assert [row.label for row in rows_of(open_source(root / "list.csv", split="test"))] == ["dog"]
    assert "--split" in open_source(root / "list.csv").hints[0]
    with pytest.raises(InputError, match=r"'dev' in .*\(there are: test, train\)"):
        open_source(root / "list.csv", split="dev")


def test_a_list_reads_no_file_outside_of_its_folder_unless_asked_to(tmp_path: Path) -> None:
    root = folder(tmp_path, {"secret.png": DOT, "in/a.png": DOT, "in/windows/b.png": DOT})
    (root / "in" / "link.png").symlink_to(root / "secret.png")
    paths = [
        "a.png",
        "windows\\b.png",
        "../secret.png",
        str(root / "secret.png"),
        "link.png",
        "gone.png",
        "",
        "\0",
    ]
    lines = [json.dumps({"path": path, "label": "cat", "id": n}) for n, path in enumerate(paths)]
    (root / "in" / "list.jsonl").write_text("\n".join(lines))
    out = "its path leads out of the folder of the source; --follow-paths reads such files"
    gone = f"no such file in {(root / 'in').resolve()}"
    end = [gone, "no path of an image file", gone]
    source = open_source(root / "in" / "list.jsonl")
    assert [row.fault for row in rows_of(source)] == ["", "", out, out, out, *end]
    followed = open_source(root / "in" / "list.jsonl", follow_paths=True)
    assert [row.fault for row in rows_of(followed)] == ["", "", "", "", "", *end]


# --- subjects ----------------------------------------------------------------------------------------------


def test_subjects_by_folder_pattern_and_table(tmp_path: Path) -> None:
    root = folder(tmp_path, {"p/cat/ada/1.png": DOT, "p/dog/bob/2.png": DOT, "s.csv": b""})
    (root / "s.csv").write_text("id,subject\ncat/ada/1.png,ada\nelsewhere.png,eve\n")
    rules = [SubjectRule(level=2), SubjectRule(pattern="/(ada|bob)/"), SubjectRule(file=root / "s.csv")]
    by_rule = [open_source(root / "p", subjects=rule) for rule in rules]
    found = [[row.subject for row in rows_of(source)] for source in by_rule]
    assert found == [["ada", "bob"], ["ada", "bob"], ["ada", None]]
    assert [hint.split(":")[0].split(" in ")[0] for hint in by_rule[2].hints] == [
        "1 records without a subject",
        "1 ids",
    ]
    (fault,) = {row.fault for row in rows_of(open_source(root / "p", subjects=SubjectRule(level=3)))}
    assert fault == "no subject, because its path has no folder at level 3"


def test_a_table_of_subjects_that_fits_nothing_is_refused(tmp_path: Path) -> None:
    root = folder(tmp_path, {"p/cat/1.png": DOT, "s.csv": b"id,subject\n1.png,ada\n"})
    with pytest.raises(InputError, match="names no record of the source"):
        rows_of(open_source(root / "p", subjects=SubjectRule(file=root / "s.csv")))


def test_two_subjects_of_a_record_are_a_fault_and_two_sources_of_them_an_error(tmp_path: Path) -> None:
    root = folder(tmp_path, {"x/a.png": DOT, "x/b.png": DOT, "list.csv": LIST.encode()})
    (root / "s.csv").write_text("id,subject\n1,eve\n2,bob\n")
    rows = rows_of(open_source(root / "list.csv", subjects=SubjectRule(file=root / "s.csv")))
    assert [(row.subject, bool(row.fault)) for row in rows] == [("eve", True), ("bob", False)]
    with pytest.raises(InputError, match="in a column and by a rule"):
        open_source(root / "list.csv", columns=Columns(subject="subject"), subjects=SubjectRule(level=1))


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
    assert source.classes == ("cat",)
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


@pytest.mark.parametrize(
    "names",
    [("0000", "0001"), ("part.0", "part.1"), ("data_0", "data_1"), ("part-00000-a1", "part-00001-a1")],
)
def test_numbered_parquet_files_are_parts_of_one_table(tmp_path: Path, names: tuple[str, str]) -> None:
    """As the Hub, Dask, DuckDB and Spark write them."""
    for label, name in enumerate(names):
        table(tmp_path / f"{name}.parquet", {"image": pa.array([DOT]), "label": pa.array([label])})
    assert [row.label for row in rows_of(open_source(tmp_path))] == [0, 1]
    if "-" not in names[0]:
        assert open_source(tmp_path, split=names[0]).length == 1


def test_numbers_that_belong_to_a_name_do_not_join_tables(tmp_path: Path) -> None:
    for name in ("cifar10", "cifar100"):
        table(tmp_path / f"{name}.parquet", {"image": pa.array([DOT]), "label": pa.array([0])})
    with pytest.raises(InputError, match="several splits: cifar10, cifar100"):
        open_source(tmp_path)


def test_a_column_of_names_names_the_classes(tmp_path: Path) -> None:
    values = {"image": pa.array([DOT] * 4), "label": pa.array(["dog", "cat ", None, "dog"])}
    path = table(tmp_path / "x.parquet", values)
    assert open_source(path).classes == ("cat", "dog")
    encoded = {**values, "label": values["label"].dictionary_encode()}
    assert open_source(table(tmp_path / "y.parquet", encoded)).classes == ("cat", "dog")
    for labels, numbers in (([10, 2, None, 10], ("2", "10")), ([1.0, 0.0, None, 1.0], ("0", "1")), ([0, -1], ())):
        counted = {"image": pa.array([DOT] * len(labels)), "label": pa.array(labels)}
        opened = open_source(table(tmp_path / "z.parquet", counted))
        assert (opened.classes, opened.numbers) == ((), numbers)
    lists = {"image": pa.array([DOT]), "label": pa.array([[1, 2]])}
    assert open_source(table(tmp_path / "l.parquet", lists)).classes == ()
    dataset = Dataset.from_dict({"image": [DOT] * 2, "label": ["9", "10"]})
    assert open_source(dataset).classes == ("9", "10")
    assert open_source(dataset.remove_columns("label").add_column("label", [3, 1])).numbers == ("1", "3")
    (tmp_path / "x.jsonl").write_text('{"path": "a.png", "label": 7}')
    assert open_source(tmp_path / "x.jsonl").numbers == ("7",)
    root = folder(tmp_path / "d", {"a.png": DOT, "metadata.jsonl": b'{"file_name": "a.png", "label": 7}'})
    assert (open_source(root).classes, open_source(root).numbers) == ((), ("7",))


def test_cells_without_image_say_what_is_there(tmp_path: Path) -> None:
    for value, why in (
        ([1, 2], "a value of type list instead of an image file's bytes or path"),
        (None, "no image"),
        ("data:image/png;base64,iVBO", "base64 is not decoded"),
        ("A" * 5000, "base64 is not decoded"),
        ("https://example.org/a.png", "an address (https://...), and nothing is fetched"),
        ("a.png", "--follow-paths reads such files"),
    ):
        path = table(tmp_path / "x.parquet", {"image": pa.array([value]), "label": pa.array(["cat"])})
        (row,) = rows_of(open_source(path))
        assert why in row.fault
        if isinstance(value, str):
            (tmp_path / "x.jsonl").write_text(json.dumps({"image": value, "label": "cat"}))
            (listed,) = rows_of(open_source(tmp_path / "x.jsonl"))
            assert (why if "follow" not in why else "no such file in") in listed.fault


def test_a_source_for_another_modality_is_told_how_to_make_its_workspace(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,label\na,b\n")
    vectors = table(tmp_path / "v.parquet", {"embedding": pa.array([[1.0]]), "label": pa.array(["cat"])})
    (tmp_path / "X.npz").write_bytes(b"x")
    for path, modality in ((tmp_path / "x.csv", "text"), (vectors, "vector"), (tmp_path / "X.npz", "vector")):
        with pytest.raises(InputError) as caught:
            open_source(path)
        assert f"init --modality {modality}" in caught.value.next_step
    (tmp_path / "y.csv").write_text("text,path\na,b\n")
    with pytest.raises(InputError) as caught:
        open_source(tmp_path / "y.csv")
    assert "modality" not in caught.value.next_step
    root = folder(tmp_path / "d", {"cat/a.png": DOT})
    with pytest.raises(InputError) as caught:
        open_source(root, payloads=TextFormat())
    assert "without --modality" in caught.value.next_step


@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("x.zip", "unpack it"),
        ("x.tar.gz", "unpack it"),
        ("x.XLSX", "save the table as .csv"),
        ("x.png", "per class"),
    ],
)
def test_a_file_of_another_kind_says_what_to_give_instead(tmp_path: Path, name: str, step: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(InputError, match="Unsupported kind of source") as caught:
        open_source(tmp_path / name)
    assert step in caught.value.next_step


def test_missing_columns_are_all_listed_beside_those_there_are(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", {"photo": pa.array([DOT]), "label": pa.array([0])})
    with pytest.raises(InputError) as caught:
        open_source(path, columns=Columns(id="key", subject="person"))
    assert all(part in str(caught.value) for part in ("no image, key, person in", "(there are: photo, label)"))
    assert "--image-column" in str(caught.value)


def test_a_cell_without_an_image_is_a_row_without_one(tmp_path: Path) -> None:
    cells = pa.array([None, {"bytes": None, "path": "gone.png"}, {"bytes": DOT, "path": None}], _STRUCT)
    path = table(tmp_path / "x.parquet", {"image": cells, "label": pa.array([0, 0, 0])})
    assert [row.payload for row in rows_of(open_source(path))] == [None, None, DOT]


def test_a_path_in_a_cell_is_followed_only_if_asked_for(tmp_path: Path) -> None:
    root = folder(tmp_path, {"secret.png": DOT, "x/a.png": OTHER_DOT})
    cells = pa.array(
        [{"bytes": None, "path": str(root / "secret.png")}, {"bytes": None, "path": "a.png"}], _STRUCT
    )
    for column in (cells, pa.array([str(root / "secret.png"), "a.png"])):
        path = table(root / "x" / "x.parquet", {"image": column, "label": pa.array([0, 0])})
        refused = rows_of(open_source(path))
        assert {(row.payload, row.fault.partition(";")[2]) for row in refused} == {
            (None, " --follow-paths reads such files")
        }
        assert [row.payload for row in rows_of(open_source(path, follow_paths=True))] == [DOT, OTHER_DOT]


def test_columns_that_look_like_ids_and_subjects_are_hinted_at(tmp_path: Path) -> None:
    cells = {"image": pa.array([DOT]), "label": pa.array([0]), "patient_id": pa.array([1]), "ID": pa.array([2])}
    path = table(tmp_path / "x.parquet", {**cells, "width": pa.array([3])})
    hints = open_source(path).hints
    assert ["--subject-column patient_id" in hints[0], "--id-column ID" in hints[1], len(hints)] == [True, True, 2]
    assert open_source(path, columns=Columns(id="ID", subject="patient_id")).hints == []
    assert len(open_source(digits(range(2))).hints) == 2


def test_labels_that_pandas_made_floats_are_indices(tmp_path: Path) -> None:
    path = table(tmp_path / "x.parquet", {"image": pa.array([DOT] * 3), "label": pa.array([1.0, None, 0.5])})
    assert [row.label for row in rows_of(open_source(path))] == [1, None, None]


def test_resource_forks_beside_parquet_files_are_passed_over(tmp_path: Path) -> None:
    table(tmp_path / "train.parquet", {"image": pa.array([DOT]), "label": pa.array([0])})
    folder(tmp_path, {"._train.parquet": b"\0", "README.md": b"", "cat/a.png": DOT})
    source = open_source(tmp_path)
    assert (source.length, source.passed_over) == (1, {"._*": 1, ".md": 1, ".png": 1})


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
    assert row.payload is not None
    assert check_row(row, ["a"], ["a"]) == Example(0, row.payload)


def test_a_dictionary_of_splits_is_refused_with_advice() -> None:
    with pytest.raises(InputError, match="train"):
        open_source(DatasetDict({"train": digits([0])}))


def test_datasets_image_folders_on_disk_are_read(tmp_path: Path) -> None:
    root = folder(tmp_path / "photos", {"cat/a.png": DOT, "dog/b.png": DOT})
    dataset = load_dataset("imagefolder", data_dir=str(root), split="train", cache_dir=str(tmp_path / "cache"))
    assert [row.payload for row in rows_of(open_source(dataset))] == [DOT, DOT]


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


@pytest.mark.parametrize(
    ("label", "classes", "expected"),
    [
        (1, ["1", "2", "3"], Example(0, DOT)),  # counted from one
        (2, ["0", "1", "10", "2"], Example(3, DOT)),  # folders, in the order of their names
        (-1, ["-1", "1"], Example(0, DOT)),
        (0, ["1", "2"], "unknown label '0'"),
        (1, ["1", "two"], Example(1, DOT)),
    ],
)
def test_a_number_is_the_name_of_a_class_where_all_are_named_by_numbers(
    label: int, classes: list[str], expected: Example | str
) -> None:
    assert check_row(Row(0, "a", None, label, DOT), [], classes) == expected


def test_an_image_that_does_not_decode_says_why() -> None:
    fault = check_row(Row(0, "a", None, 1, b"text"), [], ["dog", "fox"])
    assert isinstance(fault, str)
    assert "Not an image file" in fault


def test_chunks_of_rows_end_where_their_images_are_large() -> None:
    large = bytes(20 << 20)
    rows = [Row(n, "a", None, None, large if n in (3, 4, 6) else b"x") for n in range(9)]
    assert [[row.position for row in chunk] for chunk in row_chunks(rows)] == [[0, 1, 2, 3, 4], [5, 6, 7, 8]]
    assert [len(chunk) for chunk in row_chunks([rows[0]] * 300)] == [256, 44]


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
    passed_over: Counter[str] = Counter()
    folder(tmp_path, {"a/._c.JPEG": b"", "@eaDir/c.JPEG/thumb.jpg": DOT})
    assert image_files([root], passed_over) == [root / "a" / "c.JPEG", root / "b.png"]
    assert passed_over == {"._*": 1, ".txt": 1, ".bin": 1, "@eaDir/": 1}
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
