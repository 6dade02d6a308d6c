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

import itertools
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

from lmeraser.data import file_lists, folders
from lmeraser.data.canonical_names import as_text, is_missing
from lmeraser.data.file_lists import Table, read_table
from lmeraser.data.folders import FoundImage, Listing, describe_passed_over, list_folder
from lmeraser.data.images import decode
from lmeraser.data.parquet_files import LARGEST_FILE, open_parquet
from lmeraser.data.subject_rules import SubjectRule
from lmeraser.errors import ImageError, InputError, LmeraserError

if TYPE_CHECKING:
    from datasets import Dataset, IterableDataset

T = TypeVar("T")

HUB = "hub:"  # begins the name of a dataset of the Hugging Face hub

_PATH_COLUMNS = ("path", "file_name", "image", "file")  # of a list, in the order of preference
_CHUNK_BYTES = 32 << 20  # of images that are handled together
_IMAGE = "image"
_LABEL = "label"

# Names of columns that were probably meant, in lower case without separators, for hints.
_SUBJECT_LIKE = {
    *(
        "subject",
        "subjectid",
        "person",
        "personid",
        "patient",
        "patientid",
        "patientname",
        "user",
        "userid",
        "mrn",
    ),
    *(
        "customer",
        "customerid",
        "client",
        "clientid",
        "participant",
        "participantid",
        "writer",
        "speaker",
        "email",
    ),
    *(
        "owner",
        "ownerid",
        "identity",
        "donor",
        "donorid",
        "individual",
        "student",
        "studentid",
        "employee",
        "author",
    ),
}
_ID_LIKE = {"id", "recordid", "imageid", "uuid", "guid", "uid", "key", "recordkey", "sampleid", "identifier"}


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a source.

    Attributes:
        image: column of the image; in a list of files, of its path, which may also be named ``path`` or
            ``file_name``.
        label: column of the class, as an index or a name.
        id: column of the record id; None: ``id`` in a list of files, else the image's path, or the row's position
            if it has none.
        subject: column of the person that the record is about; None: ``subject`` in a list of files, else unknown.
        positions: use the row's position as the id even if images have paths.
    """

    image: str = _IMAGE
    label: str = _LABEL
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
        earlier_id: the id as versions before 0.2 wrote it, where they did so otherwise (17.0 for a float).
        earlier_subject: the same of the subject.
        path: of the image in the source; empty: it has none.
    """

    position: int
    id: str
    subject: str | None
    label: int | str | None
    image: bytes | None
    fault: str = ""
    earlier_id: str | None = None
    earlier_subject: str | None = None
    path: str = field(default="", compare=False)


@dataclass(frozen=True)
class Source:
    """An open source.

    Attributes:
        name: of the source in messages.
        classes: class names in the order of their labels; empty if the source names none.
        length: number of rows; None if it is unknown before reading them.
        rows: can be iterated once for each call of `open_source`.
        passed_over: how many files and folders of each kind are no part of it.
        hints: what the reader of a report should know; complete when all rows were read.
    """

    name: str
    classes: tuple[str, ...]
    length: int | None
    rows: Iterable[Row]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)


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


def chunks(items: Iterable[T], size: int = 256, *, weigh: Callable[[T], int] | None = None) -> Iterator[list[T]]:
    """Items in lists of at most ``size``.

    Args:
        items: any.
        size: largest number of items.
        weigh: bytes of an item; a list ends with the item that makes it 32 MiB or more.
    """
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, 1 if weigh else size)):
        while weigh and len(chunk) < size and sum(map(weigh, chunk)) < _CHUNK_BYTES:
            following = list(itertools.islice(iterator, 1))
            if not following:
                break
            chunk += following
        yield chunk


def row_chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists that fit in memory, however large their images are."""
    return chunks(rows, weigh=lambda row: len(row.image or b""))


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
    source: str | os.PathLike[str] | Dataset | IterableDataset,
    *,
    split: str | None = None,
    columns: Columns | None = None,
    subjects: SubjectRule | None = None,
    follow_paths: bool = False,
) -> Source:
    """Open a source of records.

    Args:
        source: a folder of class folders, or of images listed in ``metadata.csv`` or ``metadata.jsonl``; a CSV or
            JSON lines file that lists image files; a parquet file or a folder of them; ``hub:OWNER/NAME``, a
            dataset of the Hugging Face hub; or a ``datasets`` object.
        split: the split of a dataset, or a sub-folder of a folder.
        columns: of lists, metadata, parquet files and datasets.
        subjects: where subjects are found, if they are in no column.
        follow_paths: also read image files outside of the source that it names by their paths.

    Raises:
        InputError: the source does not exist, cannot be read, or lacks a column.
    """
    columns = columns or Columns()
    if split == "":
        raise InputError("Name of the split is empty", next_step="name a split, or leave --split out")
    if subjects is not None and columns.subject is not None:
        raise InputError(
            "Subjects in a column and by a rule",
            got=f"the column {columns.subject}, and {subjects}",
            next_step="give either --subject-column or a rule",
        )
    opened = _open(source, split, columns, follow_paths)
    return opened if subjects is None else _with_subjects(opened, subjects)


def _open(source: Any, split: str | None, columns: Columns, follow_paths: bool) -> Source:
    if not isinstance(source, (str, os.PathLike)):
        return _from_dataset(source, columns, name="dataset", split=split)
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
            there = _names(folders.folder_names(path)) or "no folders"
            raise InputError(
                "Split not found",
                got=f"no folder {split!r} in {path} (there are: {there})",
                next_step="check --split",
            )
        return _from_folder(folder, path if folder != path else None, columns)
    if str(source).startswith(HUB):
        return _from_hub(str(source).removeprefix(HUB), columns, split=split)
    # Never guessed to be a dataset's name: a mistyped private path would be sent to a public server.
    raise InputError(
        "Source not found",
        got=f"no file or folder {source}",
        next_step=f"check the path; a dataset of the Hugging Face hub is named {HUB}OWNER/NAME",
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
        return _from_list(read_table(path), columns, split, follow_paths)
    raise InputError(
        "Unsupported kind of source",
        got=f"the file {path} (possible are a folder, parquet files, a list of files in a .csv or .jsonl file, or "
        "the name of a dataset)",
        next_step="give the folder that holds one folder of images per class",
    )


def _label(label: int | str | None, names: Sequence[str], classes: Sequence[str]) -> int | str:
    if label is None or label == "":
        return "no label"
    if isinstance(label, int) and not 0 <= label < len(names):
        return f"label {label} is outside 0..{len(names) - 1}"
    name = names[label] if isinstance(label, int) else label
    return classes.index(name) if name in classes else f"unknown label {name!r}"


# --- folders -------------------------------------------------------------------------------------------------


def _from_folder(folder: Path, above: Path | None, columns: Columns) -> Source:
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
            got=f"{folder}: {_names(names)}",
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
    rows = itertools.chain(
        (
            metadata.row(folder, position, image, columns, folder.name if above else "row")
            for position, image in enumerate(images)
        ),
        metadata.rows_without_image(images),
    )
    return Source(str(folder), classes, len(images), _readable(rows, str(folder)), passed_over, hints)


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
        hints: about them.
    """

    def __init__(self, tables: Sequence[tuple[Table, PurePosixPath]], columns: Columns) -> None:
        self.name = tables[0][0].path.name if tables else ""
        self.hints: list[str] = []
        self._entries: dict[str, _Entry] = {}
        self._faults: dict[str, str] = {}
        entries: list[_Entry] = []
        for table, base in tables:
            described = _Described.of(table, columns, needs_label=False)
            if not (described.label or described.id or described.subject):
                self.hints.append(f"{table.path.name} was not used: it has no column label, id or subject")
                continue
            for row in table.rows:
                entry = described.entry(row)
                path = _normal(base, entry.path)
                if path is None:  # of another split, or out of the folder
                    continue
                if path in self._entries:
                    self._faults[path] = f"listed twice in {table.path.name}"
                self._entries[path] = entry
                entries.append(entry)
        self.has_labels = any(entry.has_label for entry in entries)
        self.classes = _classes_of(entries)

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
                ("--image-column", columns.image, _IMAGE),
                ("--label-column", columns.label, _LABEL),
            )
            if value != default
        ]
        if given and not tables:
            raise InputError(
                "The source has no columns",
                got=f"{_names(given)} for {folder}, a folder without {' or '.join(file_lists.METADATA_NAMES)}",
                next_step="leave these options out; subjects are given by --subjects FILE (columns id, subject), "
                "--subject-level or --subject-pattern",
            )
        return cls(tables, columns)

    def row(self, folder: Path, position: int, image: FoundImage, columns: Columns, stem: str) -> Row:
        """The row of an image in the folder."""
        path = image.path.as_posix()
        entry = self._entries.get(path)
        record_id: Any = entry.id if entry and entry.has_id else path
        record_id = f"{stem}-{position:08d}" if columns.positions and not (entry and entry.has_id) else record_id
        label = entry.label if entry and entry.has_label else image.path.parts[0] if not self.has_labels else None
        row = _named_row(position, record_id, entry.subject if entry else None, label, path)
        if fault := self._faults.get(path):
            return replace(row, fault=row.fault or fault)
        if self._entries and entry is None:
            return replace(row, fault=f"not listed in {self.name}")
        if image.is_link:  # may lead to files outside the source
            return replace(row, fault="a symbolic link; replace it by the file")
        return row if row.fault else _with_file(row, folder / image.path)

    def rows_without_image(self, images: Sequence[FoundImage]) -> Iterator[Row]:
        """A faulty row for each entry whose image does not exist."""
        there = {image.path.as_posix() for image in images}
        missing = (path for path in self._entries if path not in there)
        for position, path in enumerate(missing, start=len(images)):
            yield Row(position, path, None, None, None, fault=f"listed in {self.name}, but not in the folder")


def _below(table: Table, folder: str, columns: Columns) -> Table:
    """A table with those of its rows whose paths lead into a folder, relative to it."""
    column = _Described.of(table, columns, needs_label=False).path
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


# --- lists of files ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Entry:
    """One line of a list, as written; ``has_...`` tell whether the list has such a column."""

    path: str
    label: Any
    id: Any
    subject: Any
    has_label: bool
    has_id: bool


@dataclass(frozen=True, slots=True)
class _Described:
    """Which columns of a table say what about an image; None: no column does."""

    path: str
    label: str | None
    id: str | None
    subject: str | None

    @classmethod
    def of(cls, table: Table, columns: Columns, *, needs_label: bool) -> _Described:
        """Choose the columns of a table.

        Raises:
            InputError: a column that was named, or that is needed, does not exist.
        """
        named_image = columns.image if columns.image != _IMAGE else None
        named_label = columns.label if columns.label != _LABEL else None
        path = table.find_column(named_image, _PATH_COLUMNS, "--image-column")
        label = table.find_column(named_label, (_LABEL,), "--label-column")
        missing = [*([] if path else ["path"]), *([] if label or not needs_label else [_LABEL])]
        if path is None or missing:
            raise InputError(
                "The source lacks columns",
                got=f"no {_names(missing)} in {table.path} (there are: {_names(table.columns)})",
                next_step="name the columns with --image-column, --label-column, --id-column, --subject-column",
            )
        record_id = table.find_column(columns.id, () if columns.positions else ("id",), "--id-column")
        return cls(path, label, record_id, table.find_column(columns.subject, ("subject",), "--subject-column"))

    def entry(self, row: Mapping[str, Any]) -> _Entry:
        """What a row says."""
        label, record_id, subject = (
            row.get(c) if c is not None else None for c in (self.label, self.id, self.subject)
        )
        path = row.get(self.path)
        text = path if isinstance(path, str) else ""
        label = label.strip() if isinstance(label, str) else label
        return _Entry(text, label, record_id, subject, self.label is not None, self.id is not None)


def _classes_of(entries: Sequence[_Entry]) -> tuple[str, ...]:
    """Class names in a list, sorted; none if labels are indices, which only the workspace can name."""
    labels = {entry.label for entry in entries if isinstance(entry.label, (str, int)) and entry.label != ""}
    names = sorted(label for label in labels if isinstance(label, str))
    if len(names) < len(labels):
        return ()
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=int) if numbers else names)


def _from_list(table: Table, columns: Columns, split: str | None, follow_paths: bool) -> Source:
    """A list of image files, with paths relative to its folder."""
    described = _Described.of(table, columns, needs_label=True)
    hints: list[str] = []
    rows = list(table.rows)
    splits = sorted({str(row["split"]) for row in rows if not is_missing(row.get("split"))})
    if split is not None:
        rows = [row for row in rows if row.get("split") == split]
        if not rows:
            there = f"there are: {_names(splits)}" if splits else "it has no column split"
            raise InputError(
                "Split not found", got=f"{split!r} in {table.path} ({there})", next_step="check --split"
            )
    elif len(splits) > 1:
        hints.append(f"all splits of the list are read ({_names(splits)}); --split chooses one")
    entries = [described.entry(row) for row in rows]
    hints += _unused_columns(table.columns, (described.id, described.subject))
    base = table.path.parent

    def row(position: int, entry: _Entry) -> Row:
        record_id = entry.id if entry.has_id else entry.path
        record_id = f"{split or 'row'}-{position:08d}" if columns.positions and not entry.has_id else record_id
        named = _named_row(position, record_id, entry.subject, entry.label, entry.path)
        if named.fault:
            return named
        if not entry.path:
            return replace(named, fault="no path of an image file")
        file = _resolve(base, entry.path, anywhere=follow_paths)
        return replace(named, fault=file) if isinstance(file, str) else _with_file(named, file)

    stream = (row(position, entry) for position, entry in enumerate(entries))
    return Source(
        str(table.path), _classes_of(entries), len(rows), _readable(stream, str(table.path)), hints=hints
    )


def _resolve(base: Path, path: str, *, anywhere: bool) -> Path | str:
    """The file that a path in a source names, or what is wrong with the path.

    Args:
        base: the folder of the source.
        path: as written there.
        anywhere: whether it may lead out of the folder.
    """
    file = base / path
    if not os.path.lexists(file) and "\\" in path:  # written on Windows
        file = base / path.replace("\\", "/")
    try:
        inside = file.resolve().is_relative_to(base.resolve())
        if not inside and not anywhere:
            return "its path leads out of the folder of the source; --follow-paths reads such files"
        return file if file.is_file() else "no such file"
    except (OSError, ValueError, RuntimeError):  # a null character, a loop of links
        return "no such file"


def _with_file(row: Row, file: Path) -> Row:
    """The row with the content of its image file."""
    if (size := file.stat().st_size) > LARGEST_FILE:
        return replace(row, fault=f"a file of {size >> 20} MiB (the limit is {LARGEST_FILE >> 20} MiB)")
    return replace(row, image=file.read_bytes())


def _named_row(position: int, record_id: Any, subject: Any, label: Any, path: str) -> Row:
    """A row without its image; id, subject and label as they are in a cell."""
    if isinstance(label, float) and label.is_integer():  # what pandas makes of whole numbers beside missing ones
        label = int(label)
    label = label if isinstance(label, (int, str)) and not isinstance(label, bool) else None
    try:
        text = "" if is_missing(record_id) else as_text(record_id)
        person = None if is_missing(subject) else as_text(subject)
    except ValueError as error:
        return Row(position, str(record_id), None, label, None, fault=f"id or subject: {error}", path=path)
    earlier_id = None if text in ("", str(record_id)) else str(record_id)
    earlier_subject = None if person in (None, str(subject)) else str(subject)
    return Row(position, text, person, label, None, "", earlier_id, earlier_subject, path)


def _unused_columns(columns: Iterable[str], used: Iterable[str | None]) -> list[str]:
    """Hints at columns that look like ids or subjects and were not named."""
    used_id, used_subject = used
    hints = []
    for column in columns:
        plain = "".join(character for character in column.casefold() if character.isalnum())
        if plain in _SUBJECT_LIKE and used_subject is None:
            hints.append(
                f"the column {column!r} was not used; if it names the person that a record is about, import with "
                f"--subject-column {column}, so that all records of a person can be found"
            )
        elif plain in _ID_LIKE and used_id is None:
            hints.append(
                f"the column {column!r} was not used; if it is the record id, import with --id-column {column}"
            )
    return hints


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


# --- parquet files and datasets ------------------------------------------------------------------------------


def _from_parquet(files: list[Path], columns: Columns, name: str, split: str | None, follow_paths: bool) -> Source:
    table = open_parquet(files)
    wanted = _wanted(columns, table.columns, name)
    base = files[0].parent if follow_paths else None
    stem = split or "row"
    rows = (_row(position, raw, columns, stem, base) for position, raw in enumerate(table.read(wanted)))
    hints = _unused_columns(table.columns, (columns.id, columns.subject))
    classes = table.class_names.get(columns.label, ())
    return Source(name, classes, table.length, _readable(rows, name), hints=hints)


def _wanted(columns: Columns, there: Iterable[str], name: str) -> list[str]:
    """The columns to read.

    Raises:
        InputError: some of them do not exist.
    """
    wanted = list(dict.fromkeys([columns.image, columns.label, *filter(None, (columns.id, columns.subject))]))
    if missing := [column for column in wanted if column not in there]:
        raise InputError(
            "The source lacks columns",
            got=f"no {_names(missing)} in {name} (there are: {_names(there)})",
            next_step="name the columns with --image-column, --label-column, --id-column, --subject-column",
        )
    return wanted


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
    return _from_dataset(dataset, columns, name=name, split=split, local=False)


def _from_dataset(dataset: Any, columns: Columns, *, name: str, split: str | None, local: bool = True) -> Source:
    """An object of ``datasets``.

    Args:
        dataset: the object.
        columns: of it.
        name: in messages.
        split: begins the ids of rows without any.
        local: whether the caller made the object, so that the files that it names by their paths are the caller's.
    """
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
    wanted = _wanted(columns, features, name)
    label = features[columns.label]
    classes = tuple(label.names) if isinstance(label, ClassLabel) and label.names else ()
    if isinstance(features[columns.image], Image):
        dataset = dataset.cast_column(columns.image, Image(decode=False))
    length = len(dataset) if isinstance(dataset, Dataset) else None
    stem = split or str(dataset.split or "row")
    base = Path() if local else None
    rows = (
        _row(position, raw, columns, stem, base) for position, raw in enumerate(dataset.select_columns(wanted))
    )
    hints = _unused_columns(features, (columns.id, columns.subject))
    return Source(name, classes, length, _readable(rows, name), hints=hints)


def _readable(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """Pass ``rows`` on; any error while they are read is reported as an error of the source."""
    try:
        yield from rows
    except LmeraserError:
        raise
    except Exception as error:  # datasets and pyarrow raise many kinds: damaged pages, no network, vanished files
        raise InputError(
            "Cannot read source",
            got=f"{name}: {type(error).__name__}: {error}",
            next_step="check that its files are complete and readable",
        ) from error


def _row(position: int, raw: Mapping[str, Any], columns: Columns, stem: str, base: Path | None) -> Row:
    """A row of a table whose cells hold images.

    Args:
        position: of the row.
        raw: its cells.
        columns: of the table.
        stem: begins the id of a row without any.
        base: the folder that paths in cells are relative to; None: such paths are not followed.
    """
    path, image = _image(raw[columns.image])
    record_id: Any = path if path and not columns.positions else f"{stem}-{position:08d}"
    record_id = raw[columns.id] if columns.id is not None else record_id
    subject = raw[columns.subject] if columns.subject is not None else None
    row = _named_row(position, record_id, subject, raw[columns.label], path or "")
    if image is not None:
        too_large = f"an image of {len(image) >> 20} MiB (the limit is {LARGEST_FILE >> 20} MiB)"
        return replace(row, image=image) if len(image) <= LARGEST_FILE else replace(row, fault=too_large)
    if not path or row.fault:
        return row
    if base is None:
        return replace(row, fault="no image, only the path of a file; --follow-paths reads such files")
    file = _resolve(base, path, anywhere=True)
    return row if isinstance(file, str) else _with_file(row, file)  # without an image, the row has that fault


def _image(value: Any) -> tuple[str | None, bytes | None]:
    """Path and bytes of an image cell: a struct as ``datasets`` stores it, a path, or bare bytes."""
    if isinstance(value, bytes):
        return None, value
    if isinstance(value, str):
        return value, None
    if not isinstance(value, Mapping):
        return None, None
    path, data = value.get("path"), value.get("bytes")
    return (path if isinstance(path, str) else None), (data if isinstance(data, bytes) else None)
