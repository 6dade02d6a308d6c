"""Folders of images: one folder per class, or metadata that describe each image.

``metadata.csv`` or ``metadata.jsonl`` (the names of the Hugging Face hub's imagefolder) may name labels, ids and
subjects of the images in their folder. Where they name labels, these are the classes; else the folders are. An
image that metadata do not list is a fault, as is a listed one that does not exist.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from lmeraser.data import file_lists, folders
from lmeraser.data.file_lists import Table, read_table
from lmeraser.data.folders import FoundImage, Listing, describe_passed_over, list_folder
from lmeraser.data.image_lists import ListColumns, ListEntry, classes_of
from lmeraser.data.rows import (
    IMAGE,
    LABEL,
    Columns,
    Row,
    Source,
    choose_id,
    classes_of_numbers,
    join_names,
    named_row,
    readable,
    with_file,
)
from lmeraser.errors import InputError


def open_folder(folder: Path, above: Path | None, columns: Columns) -> Source:
    """A folder of class folders, or of images that its metadata describe.

    Args:
        folder: that holds them.
        above: the folder that this one is a split of; None: it is none. Metadata may lie there, too.
        columns: of the metadata.
    """
    listing = list_folder(folder)
    metadata = _Metadata.read(folder, above, listing, columns)
    images = listing.images
    passed_over = listing.passed_over
    if above is None and folders.are_splits(names := folders.folders_with_images(images)):
        raise InputError(
            "The folders are splits, not classes",
            got=f"{folder}: {join_names(names)}",
            next_step="choose one with --split, and import the others one by one",
        )
    if not metadata.has_labels:  # then labels are the names of folders
        images = [image for image in images if len(image.path.parts) > 1]
        if loose := len(listing.images) - len(images):
            passed_over["images outside of class folders"] = loose
    classes = metadata.classes if metadata.has_labels else folders.folders_with_images(images)
    if not images:
        raise _no_images(folder, listing, metadata)
    hints = metadata.hints + ([] if metadata.has_labels else folders.doubts_about_classes(folder, images))
    if not metadata.name:
        hints += _tables_beside(listing)
    rows = itertools.chain(
        (
            metadata.row(folder, position, image, columns, folder.name if above else "row")
            for position, image in enumerate(images)
        ),
        metadata.rows_without_image(images),
    )
    opened = readable(rows, str(folder))
    return Source(str(folder), classes, len(images), opened, passed_over, hints, numbers=metadata.numbers)


def _tables_beside(listing: Listing) -> list[str]:
    """A line about tables that lie directly in the folder, which may say whom its images are about."""
    tables = [path.name for path in listing.others if len(path.parts) == 1 and path.suffix in file_lists.SUFFIXES]
    if not tables:
        return []
    return [
        f"tables that were not read: {join_names(tables)}; metadata of images are in "
        f"{file_lists.METADATA_NAMES[0]}, and a list of images is a source of its own"
    ]


def _no_images(folder: Path, listing: Listing, metadata: _Metadata) -> InputError:
    next_step = (
        f"arrange images as {folder}/CLASS/FILE, or list them with labels in a CSV file (columns path, label)"
    )
    if listing.images:
        return InputError(
            "Images lie directly in the folder, not in class folders",
            got=f"{folder}: {len(listing.images)} images"
            + (f", and no label in {metadata.name}" if metadata.name else ""),
            next_step=next_step,
        )
    parquet = [path for path in listing.others if path.suffix == ".parquet"]
    if parquet:
        next_step = f"give the folder that holds the parquet files, for example {folder / parquet[0].parent}"
    found = folders.folder_names(folder)
    left = f"; {describe_passed_over(listing.passed_over)}" if listing.passed_over else ""
    return InputError(
        "No images in class folders",
        got=f"{folder}: {len(found)} folders, no image files{left}",
        next_step=next_step,
    )


class _Metadata:
    """What ``metadata.csv`` or ``metadata.jsonl`` say about the images of a folder.

    Args:
        tables: each with the folder that its paths are relative to, itself relative to that of the images.
        columns: of the tables.

    Attributes:
        name: of the first file; empty: there is none.
        has_labels: whether they name the classes, so that folders do not.
        classes: names of the classes, if they do.
        numbers: as of `Source`, if they do.
        hints: about them.
    """

    def __init__(self, tables: Sequence[tuple[Table, PurePosixPath]], columns: Columns) -> None:
        self.name = tables[0][0].path.name if tables else ""
        self.hints: list[str] = []
        self._entries: dict[str, ListEntry] = {}
        self._faults: dict[str, str] = {}
        self._outside: list[str] = []  # paths that lead out of the folder
        entries: list[ListEntry] = []
        for table, base in tables:
            described = ListColumns.of(table, columns, needs_label=False)
            if not (described.label or described.id or described.subject):
                self.hints.append(f"{table.path.name} was not used: it has no column label, id or subject")
                continue
            for row in table.rows:
                entry = described.entry(row)
                path = _normal(base, entry.path)
                if path is None:
                    self._outside.append(entry.path)
                    continue
                if path in self._entries:
                    self._faults[path] = f"listed twice in {table.path.name}"
                self._entries[path] = entry
                entries.append(entry)
        self.has_labels = any(entry.has_label for entry in entries)
        self.classes = classes_of(entries)
        self.numbers = classes_of_numbers(entry.label for entry in entries) if self.has_labels else ()

    @classmethod
    def read(cls, folder: Path, above: Path | None, listing: Listing, columns: Columns) -> _Metadata:
        """Read the metadata files in a folder and, for a split, in the folder above it."""
        found = [path for path in listing.others if path.name in file_lists.METADATA_NAMES]
        listing.others = [path for path in listing.others if path not in found]
        listing.passed_over.subtract(folders.file_kind(path.name) for path in found)
        listing.passed_over = +listing.passed_over
        tables = [(read_table(folder / path), path.parent) for path in found]
        if above is not None and not tables:
            beside = [above / name for name in file_lists.METADATA_NAMES if (above / name).is_file()]
            tables = [(_below(read_table(path), folder.name, columns), PurePosixPath()) for path in beside]
        given = [
            option
            for option, value, default in (
                ("--id-column", columns.id, None),
                ("--subject-column", columns.subject, None),
                ("--image-column", columns.image, IMAGE),
                ("--label-column", columns.label, LABEL),
            )
            if value != default
        ]
        if given and not tables:
            raise InputError(
                "The source has no columns",
                got=f"{join_names(given)} for {folder}, a folder without {' or '.join(file_lists.METADATA_NAMES)}",
                next_step="leave these options out; subjects are given by --subjects FILE (columns id, subject), "
                "--subject-level or --subject-pattern",
            )
        return cls(tables, columns)

    def row(self, folder: Path, position: int, image: FoundImage, columns: Columns, stem: str) -> Row:
        """The row of an image in the folder."""
        path = image.path.as_posix()
        entry = self._entries.get(path)
        given = (entry.id,) if entry and entry.has_id else None
        record_id = choose_id(columns, position, stem, path, given)
        label = entry.label if entry and entry.has_label else image.path.parts[0] if not self.has_labels else None
        row = named_row(position, record_id, entry.subject if entry else None, label, path)
        if fault := self._faults.get(path):
            return replace(row, fault=row.fault or fault)
        if self._entries and entry is None:
            return replace(row, fault=f"not listed in {self.name}")
        if image.is_link:  # may lead to files outside the source
            return replace(row, fault="a symbolic link; replace it by the file")
        return row if row.fault else with_file(row, folder / image.path)

    def rows_without_image(self, images: Sequence[FoundImage]) -> Iterator[Row]:
        """A faulty row for each entry whose image is not in the folder."""
        there = {image.path.as_posix() for image in images}
        missing = [path for path in self._entries if path not in there]
        for position, path in enumerate([*missing, *self._outside], start=len(images)):
            yield Row(position, path, None, None, None, fault=f"listed in {self.name}, but not in the folder")


def _below(table: Table, folder: str, columns: Columns) -> Table:
    """A table with those of its rows whose paths lead into a folder, relative to it."""
    column = ListColumns.of(table, columns, needs_label=False).path
    paths = [PurePosixPath(str(row.get(column) or "")) for row in table.rows]
    pairs = zip(table.rows, paths, strict=True)
    rows = [
        {**row, column: path.relative_to(folder).as_posix()} for row, path in pairs if folder in path.parts[:1]
    ]
    return replace(table, rows=rows)


def _normal(base: PurePosixPath, path: str) -> str | None:
    """A path in metadata, relative to the folder of the images; None: it leads out of it."""
    normal = os.path.normpath(base / path.replace("\\", "/"))
    return None if normal.startswith(("..", "/")) or normal == "." else normal
