"""Sources of records: folders of images, lists of files, parquet files, and whatever else ``datasets`` reads.

Every source is read as a stream of `Row`, with the image bytes exactly as given. Nothing is cached or copied
outside the workspace: a ``datasets`` cache would keep private images after they were unlearned, so local files are
always streamed.

Record ids are taken from the id column if there is one, else from the image's path inside the source, else from
the row's position. Classes are the names of the source's ClassLabel feature, of the labels in its list, or of its
folders. Folders named as splits are splits: one of them has to be chosen.

A source may come from anyone, so it never decides which other files are read: paths that lead out of its folder,
and paths in cells of parquet files, are faults unless the caller asks to follow them.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lmeraser.data import arrays, file_lists, folders
from lmeraser.data.canonical_names import is_missing
from lmeraser.data.file_lists import read_table
from lmeraser.data.folders import describe_passed_over, list_folder
from lmeraser.data.image_cells import ImageCells, path_and_bytes
from lmeraser.data.image_folders import open_folder
from lmeraser.data.image_lists import not_a_path, open_list, resolve_path
from lmeraser.data.images import is_in_memory
from lmeraser.data.modalities import of_another_modality
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.data.modalities.image import no_image
from lmeraser.data.parquet_files import LARGEST_FILE, ParquetRows, open_parquet
from lmeraser.data.rows import (
    Columns,
    Example,
    Row,
    Source,
    check_row,
    choose_id,
    chunks,
    classes_of_numbers,
    join_names,
    named_row,
    readable,
    refuse_repeated,
    row_chunks,
    unused_columns,
    with_file,
)
from lmeraser.data.subject_rules import SubjectRule
from lmeraser.data.tables import (
    CellTable,
    arrays_table,
    class_names,
    file_table,
    label_name,
    object_table,
    open_table,
    parquet_table,
)
from lmeraser.data.text_folders import open_class_folders
from lmeraser.errors import InputError

__all__ = [
    "Columns",
    "Example",
    "Row",
    "Source",
    "check_row",
    "chunks",
    "image_files",
    "open_source",
    "row_chunks",
]

HUB = "hub:"  # begins the name of a dataset of the Hugging Face hub

_ARCHIVES = {".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".7z", ".rar", ".zst"}
_TABLES = {".xlsx", ".xls", ".ods", ".json", ".txt", ".dat", ".feather", ".arrow", ".pkl", ".pickle", ".h5"}
_PART_NUMBER = re.compile(r"(^|[._])[0-9]+$")  # of one of several parquet files


def image_files(paths: Iterable[Path], passed_over: Counter[str] | None = None) -> list[Path]:
    """The image files among ``paths`` and in the folders among them.

    Args:
        paths: files, taken whatever their names are, and folders.
        passed_over: gets the numbers of files and folders of each kind that are left out.

    Raises:
        InputError: a path does not exist or cannot be read, or there is no image.
    """
    found: list[Path] = []
    counts = passed_over if passed_over is not None else Counter()
    for path in paths:
        if path.is_dir():
            listing = list_folder(path)
            counts += listing.passed_over
            found += [file for file in (path / image.path for image in listing.images) if _is_image_file(file)]
        elif path.is_file():
            found.append(path)
        else:
            raise InputError("File not found", got=str(path), next_step="check the path")
    if not found:
        left = f"; {describe_passed_over(counts)}" if counts else ""
        raise InputError(
            "No image files", got=f"folders without image files{left}", next_step="give at least one image"
        )
    return found


def _is_image_file(path: Path) -> bool:
    return path.suffix.lower() in folders.IMAGE_SUFFIXES and path.is_file()


def open_source(
    source: Any,
    *,
    split: str | None = None,
    columns: Columns | None = None,
    subjects: SubjectRule | None = None,
    follow_paths: bool = False,
    payloads: PayloadFormat | None = None,
) -> Source:
    """Open a source of records.

    Args:
        source: a folder of class folders, or of images listed in ``metadata.csv`` or ``metadata.jsonl``; a CSV or
            JSON lines file that lists image files; a parquet file or a folder of them; ``hub:OWNER/NAME``, a
            dataset of the Hugging Face hub; a ``datasets`` object; or a table in memory that `data.tables` reads:
            a DataFrame, a table of Arrow, (X, y), dictionaries, whose images may be paths, bytes of files, or in
            memory (`images.as_file`). Texts and vectors also come from its files.
        split: the split of a dataset, or a sub-folder of a folder.
        columns: of lists, metadata, parquet files and datasets.
        subjects: where subjects are found, if they are in no column.
        follow_paths: also read image files outside of the source that it names by their paths.
        payloads: what the payloads are; None: image files.

    Raises:
        InputError: the source does not exist, cannot be read, or lacks a column.
    """
    columns = columns or Columns()
    if isinstance(source, (str, os.PathLike)):
        _check_path(source)
    if split == "":
        raise InputError("Name of the split is empty", next_step="name a split, or leave --split out")
    if subjects is not None and columns.subject is not None:
        raise InputError(
            "Subjects in a column and by a rule",
            got=f"the column {columns.subject}, and {subjects}",
            next_step="give either --subject-column or a rule",
        )
    if payloads is None or payloads.in_files:
        if columns.payload is not None:
            columns = replace(columns, image=columns.payload)
        opened = _open(source, split, columns, follow_paths)
    else:
        opened = _open_cells(source, payloads, split, columns)
    if payloads is not None:
        opened = replace(opened, check=payloads.check, noun=payloads.noun)
    return opened if subjects is None else _with_subjects(opened, subjects)


def _check_path(source: str | os.PathLike[str]) -> None:
    """Refuse what is the name of no file or folder, or of one that cannot be seen.

    Raises:
        InputError: it is; says why.
    """
    if not os.fspath(source):  # pathlib would take it for the working directory
        raise InputError("Name of the source is empty", next_step="name a file or a folder")
    try:
        Path(source).exists()
    except OSError as error:
        raise InputError(
            "Cannot read source",
            got=f"{source}: {error.strerror}",
            next_step="check the path and its permissions",
        ) from error


def _open(source: Any, split: str | None, columns: Columns, follow_paths: bool) -> Source:
    if not isinstance(source, (str, os.PathLike)):
        if type(source).__module__.partition(".")[0] == "datasets":
            return _from_dataset(source, columns, name="dataset", split=split)
        cells = ImageCells()
        return open_table(object_table(source, cells, columns), cells, split, columns)
    path = Path(source)
    if path.is_file():
        return _from_file(path, columns, split, follow_paths)
    if path.is_dir():
        folder = folders.split_folder(path, split) if split else path
        folder = folder or path
        if files := sorted(file for file in folder.glob("*.parquet") if folders.is_data_file(file)):
            opened = _from_parquet(_of_split(files, split), columns, str(folder), split, follow_paths)
            return replace(opened, passed_over=_beside(folder, files))
        if split and folder == path:
            there = join_names(folders.folder_names(path)) or "no folders"
            raise InputError(
                "Split not found",
                got=f"no folder {split!r} in {path} (there are: {there})",
                next_step="check --split",
            )
        return open_folder(folder, path if folder != path else None, columns)
    if str(source).startswith(HUB):
        return _from_hub(str(source).removeprefix(HUB), columns, split=split)
    raise _not_found(source)


def _not_found(source: Any) -> InputError:
    """No path; never guessed to be a dataset's name: a mistyped private path would be sent to a public server."""
    return InputError(
        "Source not found",
        got=f"no file or folder {source}",
        next_step=f"check the path; a dataset of the Hugging Face hub is named {HUB}OWNER/NAME",
    )


def _open_cells(source: Any, payloads: PayloadFormat, split: str | None, columns: Columns) -> Source:
    """A source whose payloads lie in cells of tables, or in files of class folders."""
    if not isinstance(source, (str, os.PathLike)):
        return open_table(object_table(source, payloads, columns), payloads, split, columns)
    path = Path(source)
    if path.is_file():
        return open_table(_table_of_file(path), payloads, split, columns)
    if path.is_dir():
        folder = (folders.split_folder(path, split) if split else path) or path
        if files := sorted(file for file in folder.glob("*.parquet") if folders.is_data_file(file)):
            table = parquet_table(open_parquet(_of_split(files, split)), str(folder))
            return replace(open_table(table, payloads, split, columns), passed_over=_beside(folder, files))
        return open_class_folders(path, payloads, split)
    if str(source).startswith(HUB):
        dataset = _hub_dataset(str(source).removeprefix(HUB), split)
        return open_table(object_table(dataset, payloads, columns), payloads, split, columns)
    raise _not_found(source)


def _table_of_file(path: Path) -> CellTable:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return parquet_table(open_parquet([path]), str(path))
    if suffix in file_lists.SUFFIXES:
        return file_table(path)
    if suffix in arrays.SUFFIXES:
        return arrays_table(path)
    possible = ", ".join(sorted({".parquet", *file_lists.SUFFIXES, *arrays.SUFFIXES}))
    raise InputError(
        "Unsupported kind of source",
        got=f"the file {path} (possible are a folder and files of the kinds {possible})",
        next_step=_instead_of(suffix) if suffix in _ARCHIVES else "save the table as one of these",
    )


def _beside(folder: Path, files: Sequence[Path]) -> Counter[str]:
    """How many files and folders of each kind are in a folder beside the files that are read."""
    listing = list_folder(folder)
    listing.passed_over.update(folders.file_kind(image.path.name) for image in listing.images)
    listing.passed_over.subtract(folders.file_kind(file.name) for file in files)
    return +listing.passed_over


def _from_file(path: Path, columns: Columns, split: str | None, follow_paths: bool) -> Source:
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return _from_parquet([path], columns, str(path), split, follow_paths)
    if suffix in file_lists.SUFFIXES:
        return open_list(read_table(path), columns, split, follow_paths)
    raise InputError(
        "Unsupported kind of source",
        got=f"the file {path} (possible are a folder, parquet files, a list of files in a .csv or .jsonl file, or "
        "the name of a dataset)",
        next_step=_instead_of(suffix),
    )


def _instead_of(suffix: str) -> str:
    """What to give instead of a file with this suffix."""
    if suffix in _ARCHIVES:
        return "unpack it, and give the folder"
    if suffix in arrays.SUFFIXES:
        return "for vectors, make the workspace with 'lmeraser init --modality vector'"
    if suffix in _TABLES:
        return "save the table as .csv, .jsonl or .parquet"
    return "give the folder that holds one folder of images per class"


def _with_subjects(source: Source, rule: SubjectRule) -> Source:
    """The source with subjects found by a rule."""

    def rows() -> Iterator[Row]:
        named: set[str] = set()
        without = 0
        for row in source.rows:
            try:
                subject = rule.subject_of(row.id, row.path)
            except ValueError as error:
                yield replace(row, fault=row.fault or str(error))
                continue
            if subject is None:
                without += row.subject is None
                yield row
                continue
            named.add(row.id)
            clash = row.subject is not None and row.subject != subject
            fault = f"subject {row.subject!r} in the source, another one in the file of subjects" if clash else ""
            yield replace(row, subject=subject, fault=row.fault or fault)
        if rule.file is None:
            return
        if not named:
            raise InputError(
                "The file of subjects names no record of the source",
                got=f"{rule.file}: {len(rule.by_id)} ids",
                next_step="give the ids as they are in the source: in folders, paths such as CLASS/FILE",
            )
        if without:
            source.hints.append(f"{without} records without a subject: their ids are not in {rule.file}")
        if unused := len(rule.by_id) - len(named):
            source.hints.append(f"{unused} ids in {rule.file} are not in the source")

    return replace(source, rows=rows())


def _from_parquet(files: list[Path], columns: Columns, name: str, split: str | None, follow_paths: bool) -> Source:
    table = open_parquet(files)
    wanted = _wanted(columns, table.columns, name)
    declared = table.class_names.get(columns.label)
    classes, numbers = (declared, ()) if declared else _found_classes(_distinct(table, columns.label, name))
    base = files[0].parent if follow_paths else None
    stem = split or "row"
    rows = (_row(position, raw, columns, stem, base) for position, raw in enumerate(table.read(wanted)))
    hints = unused_columns(table.columns, (columns.id, columns.subject))
    return Source(name, classes, table.length, readable(rows, name), hints=hints, numbers=numbers)


def _distinct(table: ParquetRows, column: str, name: str) -> set[Any]:
    """The different labels in a column; none of a column whose cells are no labels."""
    found: set[Any] = set()
    for batch in readable(table.batches([column]), name):
        if batch.schema.field(0).type.num_fields:  # lists and structs
            return set()
        found.update(batch.column(0).unique().to_pylist())
    return found


def _found_classes(labels: Iterable[Any]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes that labels of texts name; and those that labels of whole numbers would name."""
    there = [label for label in labels if not is_missing(label)]
    if all(isinstance(label, str) for label in there):
        return class_names(filter(None, map(label_name, there))), ()
    return (), classes_of_numbers(there)


def _wanted(columns: Columns, there: Iterable[str], name: str) -> list[str]:
    """The columns to read.

    Raises:
        InputError: some of them do not exist.
    """
    there = list(there)
    wanted = list(dict.fromkeys([columns.image, columns.label, *filter(None, (columns.id, columns.subject))]))
    if missing := [column for column in wanted if column not in there]:
        raise InputError(
            "The source lacks columns",
            got=f"no {join_names(missing)} in {name} (there are: {join_names(there)})",
            next_step="name the columns with --image-column, --label-column, --id-column, --subject-column"
            + (of_another_modality(there, "image") if columns.image in missing else ""),
        )
    refuse_repeated(wanted, there, name)
    return wanted


def _of_split(files: list[Path], split: str | None) -> list[Path]:
    """The parquet files of a split, whose names begin with it, as in hub repositories.

    Numbers at the end of a name count the parts of one table: train-00000-of-00002, part.0, data_1, 0000.
    """
    splits = sorted({_split_in(file) for file in files})
    if split is None and len(splits) > 1:
        raise InputError(
            "The source has several splits", got=join_names(splits), next_step="choose one with --split"
        )
    chosen = [file for file in files if split in (None, _split_in(file), file.stem.split("-")[0])]
    if not chosen:
        raise InputError(
            "Split not found", got=f"{split!r} (there are: {join_names(splits)})", next_step="check --split"
        )
    return chosen


def _split_in(file: Path) -> str:
    """The split that a parquet file is named by; empty: its name only has a number."""
    return _PART_NUMBER.sub("", file.stem.split("-")[0])


def _from_hub(name: str, columns: Columns, *, split: str | None) -> Source:
    return _from_dataset(_hub_dataset(name, split), columns, name=name, split=split, local=False)


def _hub_dataset(name: str, split: str | None) -> Any:
    """A stream of one split of a dataset of the hub."""
    from datasets import IterableDatasetDict, load_dataset

    try:
        dataset = load_dataset(name, split=split, streaming=True)
    except Exception as error:  # datasets raises many kinds: no network, no such name, no such split
        cause = f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
        raise InputError(
            "Source not found",
            got=f"no reachable dataset {name} ({cause})",
            next_step="check the name; loading a dataset of the hub requires network access",
        ) from error
    if isinstance(dataset, IterableDatasetDict):
        if len(dataset) > 1:
            raise InputError(
                "The source has several splits", got=join_names(dataset), next_step="choose one with --split"
            )
        dataset = next(iter(dataset.values()))
    return dataset


def _from_dataset(dataset: Any, columns: Columns, *, name: str, split: str | None, local: bool = True) -> Source:
    """An object of ``datasets``.

    Args:
        dataset: the object.
        columns: of it.
        name: in messages.
        split: begins the ids of rows without any.
        local: whether the caller made the object, so that the files that it names by their paths are the caller's.
    """
    from datasets import Dataset, Image, IterableDataset, Value
    from datasets.features import ClassLabel

    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise InputError(
            "Unsupported type of dataset",
            got=f"{type(dataset).__name__} (possible are datasets.Dataset and datasets.IterableDataset)",
            next_step="choose a split, for instance dataset['train']",
        )
    dataset = dataset.with_format(None)  # bytes and plain values, whatever format or transform was set
    features = dataset.features or dict.fromkeys(next(iter(dataset), {}))  # a stream need not declare its columns
    wanted = _wanted(columns, features, name)
    label = features[columns.label]
    classes = tuple(label.names) if isinstance(label, ClassLabel) and label.names else ()
    if isinstance(features[columns.image], Image):
        dataset = dataset.cast_column(columns.image, Image(decode=False))
    numbers: tuple[str, ...] = ()
    if not classes and isinstance(dataset, Dataset) and isinstance(label, Value):
        classes, numbers = _found_classes(dataset.unique(columns.label))
    length = len(dataset) if isinstance(dataset, Dataset) else None
    stem = split or str(dataset.split or "row")
    base = Path() if local else None
    rows = (
        _row(position, raw, columns, stem, base) for position, raw in enumerate(dataset.select_columns(wanted))
    )
    hints = unused_columns(features, (columns.id, columns.subject))
    return Source(name, classes, length, readable(rows, name), hints=hints, numbers=numbers)


def _row(position: int, raw: Mapping[str, Any], columns: Columns, stem: str, base: Path | None) -> Row:
    """A row of a table whose cells hold images.

    Args:
        position: of the row.
        raw: its cells.
        columns: of the table.
        stem: begins the id of a row without any.
        base: the folder that paths in cells are relative to; None: such paths are not followed.
    """
    path, image = path_and_bytes(raw[columns.image])
    given = (raw[columns.id],) if columns.id is not None else None
    record_id = choose_id(columns, position, stem, path or None, given)
    subject = raw[columns.subject] if columns.subject is not None else None
    row = named_row(position, record_id, subject, raw[columns.label], path or "")
    if image is not None:
        too_large = f"an image of {len(image) >> 20} MiB (the limit is {LARGEST_FILE >> 20} MiB)"
        return replace(row, payload=image) if len(image) <= LARGEST_FILE else replace(row, fault=too_large)
    if row.fault:
        return row
    if is_in_memory(raw[columns.image]):  # a stream of datasets that declares no columns decodes its images
        try:
            return replace(row, payload=ImageCells().payload(raw[columns.image]))
        except ValueError as error:
            return replace(row, fault=str(error))
    if not path:
        return replace(row, fault=_no_image(raw[columns.image]))
    if base is None:
        why = not_a_path(path) or "no image, only the path of a file; --follow-paths reads such files"
        return replace(row, fault=why)
    file = resolve_path(base, path, anywhere=True)
    return replace(row, fault=file) if isinstance(file, str) else with_file(row, file)


def _no_image(cell: Any) -> str:
    """What is wrong with a cell that holds neither the bytes of an image file nor its path."""
    if is_missing(cell) or isinstance(cell, Mapping):
        return "no image"
    return no_image(cell)
