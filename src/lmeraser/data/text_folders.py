"""Folders of class folders whose files are payloads in text: the class is the folder, the id the path.

The rules of listing are those of folders of images (`folders`): hidden files and other kinds are passed over and
counted, folders named as splits are splits, and links are faults.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from lmeraser.data import folders
from lmeraser.data.folders import FoundImage, describe_passed_over, list_folder
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.data.rows import Row, Source, join_names, named_row, readable, with_file
from lmeraser.errors import InputError

_LARGEST_FILE = 4 << 20  # bytes; a text in UTF-16 may be twice as large as in UTF-8


def open_class_folders(path: Path, payloads: PayloadFormat, split: str | None) -> Source:
    """A folder of class folders.

    Args:
        path: the folder.
        payloads: what its files hold.
        split: a folder in it that holds the class folders; None: it holds them itself.

    Raises:
        InputError: there is no such split, or no file of this kind in a class folder.
    """
    folder = folders.split_folder(path, split) if split else path
    if folder is None:
        there = join_names(folders.folder_names(path)) or "no folders"
        raise InputError(
            "Split not found", got=f"no folder {split!r} in {path} (there are: {there})", next_step="check --split"
        )
    listing = list_folder(folder, {payloads.suffix})
    files = [file for file in listing.images if len(file.path.parts) > 1]
    classes = folders.folders_with_images(files)
    if not split and folders.are_splits(classes):
        raise InputError(
            "The folders are splits, not classes",
            got=f"{folder}: {join_names(classes)}",
            next_step="choose one with --split, and import the others one by one",
        )
    if loose := len(listing.images) - len(files):
        listing.passed_over[f"{payloads.suffix} files outside of class folders"] = loose
    if not files:
        pictures = any(file.suffix.lower() in folders.IMAGE_SUFFIXES for file in listing.others)
        left = f"; {describe_passed_over(listing.passed_over)}" if listing.passed_over else ""
        raise InputError(
            f"No {payloads.suffix} files in class folders",
            got=f"{folder}{left}",
            next_step=f"arrange them as {folder}/CLASS/FILE{payloads.suffix}, or give a table"
            + ("; for images, make the workspace without --modality" if pictures else ""),
        )
    rows: Iterator[Row] = (_row(folder, position, file, payloads) for position, file in enumerate(files))
    hints = folders.doubts_about_classes(folder, files)
    return Source(str(folder), classes, len(files), readable(rows, str(folder)), listing.passed_over, hints)


def _row(folder: Path, position: int, file: FoundImage, payloads: PayloadFormat) -> Row:
    path = file.path.as_posix()
    row = named_row(position, path, None, file.path.parts[0], path)
    if row.fault:
        return row
    if file.is_link:  # may lead to files outside the source
        return replace(row, fault="a symbolic link; replace it by the file")
    row = with_file(row, folder / file.path, limit=_LARGEST_FILE)
    if row.payload is None:
        return row
    try:
        return replace(row, payload=payloads.payload(_decoded(row.payload)))
    except ValueError as error:
        return replace(row, payload=None, fault=str(error))


def _decoded(data: bytes) -> str:
    """The text of a file: UTF-8, or UTF-16 with a byte order mark.

    Raises:
        ValueError: it is in neither; says where.
    """
    utf_16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf_16 else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        name = "UTF-16" if utf_16 else "UTF-8"
        raise ValueError(f"not {name} text: {error.reason} in line {line}, byte {error.start + 1}") from None
