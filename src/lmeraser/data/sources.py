"""Sources of records: a folder of class folders, parquet files, or anything that ``datasets`` reads.

Every source is read as a stream of `Row`, with the image bytes exactly as given. Nothing is cached or copied
outside the workspace: a ``datasets`` cache would keep private images after they were unlearned, so local files are
always streamed.

Record ids are taken from the id column if one is named, else from the image's path inside the source, else from
the row's position. Classes are the names of the source's ClassLabel feature, or the names of its folders.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from lmeraser.data.images import decode
from lmeraser.errors import ImageError, InputError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

T = TypeVar("T")

HUB = "hub:"  # begins the name of a dataset of the Hugging Face hub
IMAGE_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a source.

    Attributes:
        image: column of the image.
        label: column of the class, as an index or a name.
        id: column of the record id; None: use the image's path, or the row's position if it has none.
        subject: column of the person that the record is about; None: unknown.
        positions: use the row's position as the id even if images have paths.
    """

    image: str = "image"
    label: str = "label"
    id: str | None = None
    subject: str | None = None
    positions: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, as read.

    Attributes:
        position: 0, 1, 2, ... in the source.
        id: of the record.
        subject: the person that the record is about.
        label: an index or a name; None if it is missing.
        image: bytes of the image file; None if they are missing.
        fault: why the row cannot be used, if that is known already.
    """

    position: int
    id: str
    subject: str | None
    label: int | str | None
    image: bytes | None
    fault: str = ""


@dataclass(frozen=True)
class Source:
    """An open source.

    Attributes:
        name: of the source in messages.
        classes: class names in the order of their labels; empty if the source names none.
        length: number of rows; None if it is unknown before reading them.
        rows: can be iterated once for each call of `open_source`.
    """

    name: str
    classes: tuple[str, ...]
    length: int | None
    rows: Iterable[Row]


@dataclass(frozen=True, slots=True)
class Example:
    """A usable row: the class index in the workspace's list, and the image bytes."""

    label: int
    image: bytes


def check_row(row: Row, source_classes: Sequence[str], classes: Sequence[str]) -> Example | str:
    """The row as an `Example`, or what is wrong with it.

    Args:
        row: as read.
        source_classes: class names by the source's label indices; empty: the same as ``classes``.
        classes: the workspace's classes.
    """
    if row.fault:
        return row.fault
    label = _label(row.label, source_classes or classes, classes)
    if isinstance(label, str):
        return label
    if row.image is None:
        return "no image"
    try:
        decode(row.image)
    except ImageError as error:
        return error.summary
    return Example(label, row.image)


def chunks(items: Iterable[T], size: int = 256) -> Iterator[list[T]]:
    """Items in lists of at most ``size``."""
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, size)):
        yield chunk


def image_files(paths: Iterable[Path]) -> list[Path]:
    """The image files among ``paths`` and in the folders among them.

    Raises:
        InputError: a path does not exist, or there is no image.
    """
    files: list[Path] = []
    for path in paths:
        if path.is_dir():
            files += sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES and p.is_file())
        elif path.is_file():
            files.append(path)
        else:
            raise InputError("File not found", got=str(path), next_step="check the path")
    if not files:
        raise InputError("No image files", got="folders without image files", next_step="give at least one image")
    return files


def open_source(
    source: str | os.PathLike[str] | Dataset | IterableDataset,
    *,
    split: str | None = None,
    columns: Columns | None = None,
) -> Source:
    """Open a source of records.

    Args:
        source: a folder of class folders; a parquet file or a folder of them; ``hub:OWNER/NAME``, a dataset of the
            Hugging Face hub; or a ``datasets`` object.
        split: the split of a dataset, or a sub-folder of a folder.
        columns: of parquet files and datasets.

    Raises:
        InputError: the source does not exist, cannot be read, or lacks a column.
    """
    columns = columns or Columns()
    if not isinstance(source, (str, os.PathLike)):
        return _from_dataset(source, columns, name="dataset", split=split)
    path = Path(source)
    if path.is_file() and path.suffix == ".parquet":
        return _from_parquet([path], columns, name=str(path), split=split)
    if path.is_file():
        raise InputError(
            "Unsupported kind of source",
            got=f"the file {path} (possible are a folder, parquet files, or the name of a dataset)",
            next_step="give the folder that holds one folder of images per class",
        )
    if path.is_dir():
        folder = path / split if split and (path / split).is_dir() else path
        if files := sorted(folder.glob("*.parquet")):
            return _from_parquet(_of_split(files, split), columns, name=str(folder), split=split)
        if split and folder == path:
            raise InputError("Split not found", got=f"no folder {split!r} in {path}", next_step="check --split")
        return _from_folder(folder)
    if str(source).startswith(HUB):
        return _from_hub(str(source).removeprefix(HUB), columns, split=split)
    # Never guessed to be a dataset's name: a mistyped private path would be sent to a public server.
    raise InputError(
        "Source not found",
        got=f"no file or folder {source}",
        next_step=f"check the path; a dataset of the Hugging Face hub is named {HUB}OWNER/NAME",
    )


def _label(label: int | str | None, names: Sequence[str], classes: Sequence[str]) -> int | str:
    if label is None or label == "":
        return "no label"
    if isinstance(label, int) and not 0 <= label < len(names):
        return f"label {label} is outside 0..{len(names) - 1}"
    name = names[label] if isinstance(label, int) else label
    return classes.index(name) if name in classes else f"unknown label {name!r}"


def _from_folder(folder: Path) -> Source:
    classes = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir()))
    files = [
        (label, path)
        for label in classes
        for path in sorted((folder / label).rglob("*"))
        if path.is_symlink() or (path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    ]
    if not files:
        raise InputError(
            "No images in class folders",
            got=f"{folder}: {len(classes)} folders, no image files",
            next_step=f"arrange images as {folder}/CLASS/FILE ({', '.join(sorted(IMAGE_SUFFIXES))})",
        )

    def rows() -> Iterator[Row]:
        for position, (label, path) in enumerate(files):
            name = path.relative_to(folder).as_posix()
            if path.is_symlink() or (folder / label).is_symlink():  # may lead to files outside the source
                yield Row(position, name, None, label, None, "a symbolic link; replace it by the file")
                continue
            yield Row(position, name, None, label, path.read_bytes())

    return Source(str(folder), classes, len(files), _readable(rows(), str(folder)))


def _from_parquet(files: list[Path], columns: Columns, *, name: str, split: str | None) -> Source:
    import pyarrow
    import pyarrow.parquet as parquet
    from datasets import load_dataset

    try:
        length = sum(parquet.ParquetFile(file).metadata.num_rows for file in files)
        dataset = load_dataset(
            "parquet", data_files={"rows": [str(f) for f in files]}, split="rows", streaming=True
        )
    except (pyarrow.ArrowInvalid, OSError) as error:
        raise InputError(
            "Cannot read parquet file",
            got=f"{name}: {error}",
            next_step="check that the file is complete",
        ) from error
    return _from_dataset(dataset, columns, name=name, split=None, length=length, prefix=split or "row")


def _of_split(files: list[Path], split: str | None) -> list[Path]:
    """The parquet files of a split, whose names begin with it, as in hub repositories."""
    splits = sorted({file.stem.split("-")[0] for file in files})
    if split is None and len(splits) > 1:
        raise InputError("The source has several splits", got=_names(splits), next_step="choose one with --split")
    chosen = [file for file in files if split is None or file.stem.split("-")[0] == split]
    if not chosen:
        raise InputError(
            "Split not found", got=f"{split!r} (there are: {_names(splits)})", next_step="check --split"
        )
    return chosen


def _names(names: Iterable[str]) -> str:
    """Names in one line."""
    return ", ".join(names)


def _from_hub(name: str, columns: Columns, *, split: str | None) -> Source:
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
                "The source has several splits", got=_names(dataset), next_step="choose one with --split"
            )
        dataset = next(iter(dataset.values()))
    return _from_dataset(dataset, columns, name=name, split=split)


def _from_dataset(
    dataset: Any,
    columns: Columns,
    *,
    name: str,
    split: str | None,
    length: int | None = None,
    prefix: str | None = None,
) -> Source:
    from datasets import Dataset, Image, IterableDataset
    from datasets.features import ClassLabel

    if not isinstance(dataset, (Dataset, IterableDataset)):
        raise InputError(
            "Unsupported type of dataset",
            got=f"{type(dataset).__name__} (possible are datasets.Dataset and datasets.IterableDataset)",
            next_step="choose a split, for instance dataset['train']",
        )
    dataset = dataset.with_format(None)  # bytes and plain values, whatever format or transform was set
    features = dataset.features or dict.fromkeys(next(iter(dataset), {}))  # a stream need not declare its columns
    wanted = list(dict.fromkeys([columns.image, columns.label, *filter(None, (columns.id, columns.subject))]))
    if missing := [column for column in wanted if column not in features]:
        raise InputError(
            "The source lacks columns",
            got=f"no {_names(missing)} in {name} (there are: {_names(features)})",
            next_step="name the columns with --image-column, --label-column, --id-column, --subject-column",
        )
    label = features[columns.label]
    classes = tuple(label.names) if isinstance(label, ClassLabel) and label.names else ()
    if isinstance(features[columns.image], Image):
        dataset = dataset.cast_column(columns.image, Image(decode=False))
    known = length if length is not None else (len(dataset) if isinstance(dataset, Dataset) else None)
    stem = prefix or split or str(dataset.split or "row")
    rows = (_row(position, raw, columns, stem) for position, raw in enumerate(dataset.select_columns(wanted)))
    return Source(name, classes, known, _readable(rows, name))


def _readable(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """Pass ``rows`` on; any error while they are read is reported as an error of the source."""
    try:
        yield from rows
    except Exception as error:  # datasets and pyarrow raise many kinds: damaged pages, no network, vanished files
        raise InputError(
            "Cannot read source",
            got=f"{name}: {type(error).__name__}: {error}",
            next_step="check that its files are complete and readable",
        ) from error


def _row(position: int, raw: Mapping[str, Any], columns: Columns, stem: str) -> Row:
    path, image = _image(raw[columns.image])
    if columns.id is not None:
        record_id = "" if raw[columns.id] is None else str(raw[columns.id])
    elif path and not columns.positions:
        record_id = path
    else:
        record_id = f"{stem}-{position:08d}"
    subject = None if columns.subject is None or raw[columns.subject] in (None, "") else str(raw[columns.subject])
    label = raw[columns.label]
    return Row(position, record_id, subject, label if isinstance(label, (int, str)) else None, image)


def _image(value: Any) -> tuple[str | None, bytes | None]:
    """Path and bytes of an image cell: a struct as ``datasets`` stores it, or bare bytes."""
    if isinstance(value, bytes):
        return None, value
    if not isinstance(value, Mapping):
        return None, None
    path, data = value.get("path"), value.get("bytes")
    if data is None and path and Path(path).is_file():
        data = Path(path).read_bytes()
    return path, data
