"""Every file of a folder is a picture of a class or counted as passed over, whatever computers put beside it."""

from __future__ import annotations

import inspect
import shutil
import sys
from collections import Counter
from pathlib import Path, PurePosixPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import examples
from lmeraser.data.folders import (
    IMAGE_SUFFIXES,
    are_splits,
    describe_passed_over,
    folder_names,
    list_folder,
    split_folder,
    split_of,
)
from lmeraser.data.sources import open_source
from lmeraser.errors import InputError

JUNK = {
    ".DS_Store",
    "._a.png",
    "Thumbs.db",
    "@eaDir",
    "__MACOSX",
    ".ipynb_checkpoints",
    ".hidden.png",
    "DESKTOP.INI",
}
FILES = ["a.png", "b.JPG", "c.jfif", "d.txt", "e", "f.heic", "g.tar.gz", "Zoë.webp"]
FOLDERS = ["cat", "dog", "train", "Test", "val2017", "deep", "x.png"]

Tree = dict[PurePosixPath, bytes]


def parts() -> st.SearchStrategy[str]:
    return st.sampled_from([*FOLDERS, *JUNK])


@st.composite
def trees(draw: st.DrawFn) -> set[PurePosixPath]:
    """Paths of files; no file is also a folder."""
    names = st.sampled_from([*FILES, *JUNK])
    paths = draw(st.sets(st.builds(lambda f, n: PurePosixPath(*f, n), st.lists(parts(), max_size=3), names)))
    folders = {parent for path in paths for parent in path.parents}
    return {path for path in paths if path not in folders}


def put(root: Path, paths: set[PurePosixPath]) -> None:
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(str(path).encode())


def test_the_pictures_of_a_workspace_among_the_data_are_no_records(tmp_path: Path) -> None:
    put(tmp_path / "d", {PurePosixPath(path) for path in ("cat/a.png", "ws/reports/a.png", "dog/lmeraser.toml")})
    for name in ("workspace.json", "lmeraser.toml"):
        (tmp_path / "d" / "ws" / name).write_text("")
    listing = list_folder(tmp_path / "d")
    assert [str(image.path) for image in listing.images] == ["cat/a.png"]
    assert describe_passed_over(listing.passed_over) == (
        "2 files and folders passed over: 1 x .toml, 1 x workspace folders"
    )
    assert [str(image.path) for image in list_folder(tmp_path / "d" / "ws").images] == ["reports/a.png"]


def first_junk(path: PurePosixPath) -> PurePosixPath | None:
    """The file, or the outermost folder, that a computer and no person put there."""
    known = {name.casefold() for name in JUNK}
    for length, part in enumerate(path.parts, start=1):
        if part.startswith(".") or part.casefold() in known:
            return PurePosixPath(*path.parts[:length])
    return None


def named_as_splits(names: list[str]) -> bool:
    splits = [split_of(name) for name in names]
    return None not in splits or len({split for split in splits if split}) > 1


@examples(fast=60, explore=600)
@given(trees())
def test_folders_are_read_as_the_model_says(
    tmp_path_factory: pytest.TempPathFactory, paths: set[PurePosixPath]
) -> None:
    root = tmp_path_factory.getbasetemp() / "model-of-folders"
    put(root, paths)
    junk = {first for path in paths if (first := first_junk(path))}
    pictures = {p for p in paths if not first_junk(p) and p.suffix.lower() in IMAGE_SUFFIXES}
    others = {path for path in paths if not first_junk(path)} - pictures
    listing = list_folder(root)
    assert [image.path for image in listing.images] == sorted(pictures, key=lambda path: path.parts)
    assert sum(listing.passed_over.values()) == len(junk) + len(others)
    in_classes = sorted((path for path in pictures if len(path.parts) > 1), key=lambda path: path.parts)
    classes = sorted({path.parts[0] for path in in_classes})
    inner = sorted({path.parts[1] for path in in_classes if len(path.parts) > 2})
    wrapped = len(classes) == 1 and all(len(path.parts) > 3 for path in in_classes)
    if not in_classes or named_as_splits(classes) or (wrapped and named_as_splits(inner)):
        with pytest.raises(InputError):
            open_source(root)
        return
    source = open_source(root)
    assert source.classes == tuple(classes)
    rows = list(source.rows)
    assert [(row.id, row.label, row.payload) for row in rows] == [
        (str(path), path.parts[0], str(path).encode()) for path in in_classes
    ]
    assert not any(row.fault for row in rows)
    assert len(rows) + sum(source.passed_over.values()) == len(pictures | others) + len(junk)


def test_kinds_are_counted_and_named(tmp_path: Path) -> None:
    names = ["cat/a.png", "cat/a.txt", "cat/b.TXT", "cat/.DS_Store", "cat/._a.png", "cat/@eaDir/a.png/thumb.jpg"]
    put(
        tmp_path / "photos",
        {PurePosixPath(name) for name in [*names, "__MACOSX/cat/a.png", "cat/.secret.png", "b.gif"]},
    )
    (tmp_path / "photos" / ".ipynb_checkpoints").mkdir()
    source = open_source(tmp_path / "photos")
    assert source.passed_over == Counter(
        {
            ".txt": 2,
            ".DS_Store": 1,
            "._*": 1,
            "@eaDir/": 1,
            "__MACOSX/": 1,
            "hidden files": 1,
            ".ipynb_checkpoints/": 1,
            "images outside of class folders": 1,
        }
    )
    assert describe_passed_over(source.passed_over).startswith("9 files and folders passed over: 2 x .txt, 1 x ")
    assert source.classes == ("cat",)
    assert [row.id for row in source.rows] == ["cat/a.png"]


def test_special_files_are_passed_over(tmp_path: Path) -> None:
    import os

    put(tmp_path / "photos", {PurePosixPath("cat/a.png")})
    os.mkfifo(tmp_path / "photos" / "cat" / "b.png")
    source = open_source(tmp_path / "photos")
    assert (source.length, source.passed_over) == (1, {"special files": 1})


def test_folders_may_lie_deep_in_each_other(tmp_path: Path) -> None:
    put(tmp_path / "photos", {PurePosixPath("cat", *["d"] * 200, "a.png")})
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 100)
    try:
        listing = list_folder(tmp_path / "photos")
    finally:
        sys.setrecursionlimit(limit)
    assert len(listing.images) == 1


@pytest.mark.parametrize(
    ("files", "hint"),
    [
        (
            ["photos/cat/a.png", "photos/dog/b.png"],
            "the only class, and all of its images lie in folders (cat, dog)",
        ),
        (
            ["cat/train/a.png", "cat/test/b.png", "dog/train/c.png"],
            "hold splits, all of which are read (test, train)",
        ),
        (["cat/a.png", "cat/left/b.png"], ""),
        (["cat/left/a.png", "dog/right/b.png"], ""),
    ],
)
def test_class_folders_that_may_not_be_meant_are_mentioned(tmp_path: Path, files: list[str], hint: str) -> None:
    put(tmp_path / "x", {PurePosixPath(file) for file in files})
    hints = open_source(tmp_path / "x").hints
    assert (len(hints), hint in "".join(hints)) == (bool(hint), True)


def test_splits_in_a_folder_around_them_are_splits_as_well(tmp_path: Path) -> None:
    put(tmp_path / "x", {PurePosixPath("data/train/cat/a.png"), PurePosixPath("data/test/cat/b.png")})
    with pytest.raises(InputError, match="splits, not classes") as caught:
        open_source(tmp_path / "x")
    assert "x/data" in caught.value.next_step
    assert open_source(tmp_path / "x" / "data", split="train").classes == ("cat",)


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (["train"], True),
        (["train", "test"], True),
        (["Training", "val"], True),
        (["train2017", "val2017"], True),
        (["train_images", "test_images"], True),
        (["train", "test", "extra"], True),
        (["train", "bus", "car"], False),
        (["valid", "invalid"], False),
        (["cat", "dog"], False),
        (["test tube", "train station"], False),
        ([], False),
    ],
)
def test_folders_named_as_splits_are_splits(folders: list[str], expected: bool) -> None:
    assert are_splits(folders) == expected


def test_a_split_is_found_under_its_other_names(tmp_path: Path) -> None:
    for name in ("Train", "val", "val2017", "test", ".git"):
        (tmp_path / name).mkdir()
    assert folder_names(tmp_path) == ["Train", "test", "val", "val2017"]
    assert split_folder(tmp_path, "train") == tmp_path / "Train"
    assert split_folder(tmp_path, "val") == tmp_path / "val"
    assert split_folder(tmp_path, "validation") is None, "there are two"
    assert split_folder(tmp_path, "tset") is None
