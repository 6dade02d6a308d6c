"""Rows of sources: what every kind of source is read as, whatever it is stored in.

A source is a stream of `Row`, with the image bytes exactly as given. `check_row` says whether a row can be used.
"""

from __future__ import annotations

import functools
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any, SupportsInt, TypeVar, cast

from lmeraser.data.canonical_names import as_text, find_class, is_missing
from lmeraser.data.images import decode
from lmeraser.data.parquet_files import LARGEST_FILE
from lmeraser.errors import ImageError, InputError, LmeraserError

T = TypeVar("T")

IMAGE = "image"  # the usual names of columns
LABEL = "label"

_SHOWN_ID = 200  # characters of an id in a message; one may be a whole file in base64
_CHUNK_BYTES = 32 << 20  # of images that are handled together

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
        payload: column of the payload, whatever it is; None: ``image`` for images, else the usual names are tried.
    """

    image: str = IMAGE
    label: str = LABEL
    id: str | None = None
    subject: str | None = None
    positions: bool = False
    payload: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a source, as read.

    Attributes:
        position: 0, 1, 2, ... in the source.
        id: of the record.
        subject: the person that the record is about.
        label: an index or a name; None if it is missing.
        payload: bytes, for instance of the image file; None if they are missing.
        fault: why the row cannot be used, if that is known already.
        earlier_id: the id as versions before 0.2 wrote it, where they did so otherwise (17.0 for a float).
        earlier_subject: the same of the subject.
        path: of the image in the source; empty: it has none.
    """

    position: int
    id: str
    subject: str | None
    label: int | str | None
    payload: bytes | None
    fault: str = ""
    earlier_id: str | None = None
    earlier_subject: str | None = None
    path: str = field(default="", compare=False)


def check_image(payload: bytes) -> None:
    """Refuse bytes that are no image.

    Raises:
        ValueError: they cannot be decoded; says why.
    """
    try:
        decode(payload)
    except ImageError as error:
        raise ValueError(error.summary) from error


@dataclass(frozen=True)
class Source:
    """An open source.

    Attributes:
        name: of the source in messages.
        classes: class names in the order of their labels; empty if the source names none.
        length: number of rows; None if it is unknown before reading them.
        numbers: names of classes for a workspace that has none, where all labels are numbers and name no classes.
        rows: can be iterated once for each call of `open_source`.
        passed_over: how many files and folders of each kind are no part of it.
        hints: what the reader of a report should know; complete when all rows were read.
        check: refuses bytes that are no payload by a ValueError.
        noun: what a payload is called in messages.
    """

    name: str
    classes: tuple[str, ...]
    length: int | None
    rows: Iterable[Row]
    passed_over: Mapping[str, int] = field(default_factory=dict)
    hints: list[str] = field(default_factory=list)
    check: Callable[[bytes], None] = field(default=check_image)
    numbers: tuple[str, ...] = ()
    noun: str = "image"


@dataclass(frozen=True, slots=True)
class Example:
    """A usable row: the class index in the workspace's list, and the image bytes."""

    label: int
    payload: bytes


def check_row(
    row: Row,
    source_classes: Sequence[str],
    classes: Sequence[str],
    check: Callable[[bytes], None] = check_image,
) -> Example | str:
    """The row as an `Example`, or what is wrong with it.

    Args:
        row: as read.
        source_classes: class names by the source's label indices; empty: a number is the name of a class if all
            names are numbers, else an index in ``classes``.
        classes: the workspace's classes.
        check: refuses a payload by a ValueError; the default decodes it as an image.
    """
    if row.fault:
        return row.fault
    label = _label(row.label, source_classes, classes)
    if isinstance(label, str):
        return label
    if row.payload is None:
        return "no image" if check is check_image else "no payload"
    try:
        check(row.payload)
    except ValueError as error:
        return str(error)
    return Example(label, row.payload)


def describe_fault(row: Row, fault: str) -> str:
    """A line about a faulty row: its position, its id or the beginning of a long one, and the fault."""
    shown = row.id if len(row.id) <= _SHOWN_ID else f"{row.id[:_SHOWN_ID]}..."
    return f"row {row.position} (id {shown!r}): {fault}"


def chunks(items: Iterable[T], size: int = 256, *, weigh: Callable[[T], int] | None = None) -> Iterator[list[T]]:
    """Items in lists of at most ``size``.

    Args:
        items: any.
        size: largest number of items.
        weigh: bytes of an item; a list ends with the item that makes it 32 MiB or more.
    """
    chunk: list[T] = []
    weight = 0
    for item in items:
        chunk.append(item)
        weight += weigh(item) if weigh else 0
        if len(chunk) >= size or weight >= _CHUNK_BYTES:
            yield chunk
            chunk = []
            weight = 0
    if chunk:
        yield chunk


def row_chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows in lists that fit in memory, however large their images are."""
    return chunks(rows, weigh=lambda row: len(row.payload or b""))


def _label(label: int | str | None, source_classes: Sequence[str], classes: Sequence[str]) -> int | str:
    if label is None or label == "":
        return "no label"
    name = str(label)
    if isinstance(label, int) and (source_classes or not _are_numbers(tuple(classes))):
        names = source_classes or classes
        if not 0 <= label < len(names):
            return f"label {label} is outside 0..{len(names) - 1}"
        name = names[label]
    index = find_class(name, classes)
    return index if index is not None else f"unknown label {name!r}"


@functools.lru_cache(maxsize=8)
def _are_numbers(classes: tuple[str, ...]) -> bool:
    """Whether all classes are named by whole numbers, so that a number is the name of one and not its place.

    Their places are often other numbers: classes that are counted from 1, or folders, where 10 comes before 2.
    """
    return bool(classes) and all(is_whole_number(name) for name in classes)


def is_whole_number(name: str) -> bool:
    """Whether a name is a whole number in decimal digits.

    >>> is_whole_number("-1"), is_whole_number("1.5")
    (True, False)
    """
    return name.isascii() and name.removeprefix("-").isdigit()


def with_file(row: Row, file: Path, *, limit: int = LARGEST_FILE) -> Row:
    """The row with the content of its file, or why that is not read; ``limit``: the bytes of the largest."""
    try:
        if (size := file.stat().st_size) > limit:
            return replace(row, fault=f"a file of {size >> 20} MiB (the limit is {limit >> 20} MiB)")
        return replace(row, payload=file.read_bytes())
    except PermissionError:  # a file that vanished ends the import instead: the source changes
        return replace(row, fault="a file that this user may not read")


def choose_id(columns: Columns, position: int, stem: str, path: str | None, given: tuple[Any] | None) -> Any:
    """The id of a row: from its column if there is one, else the image's path, else the row's position.

    Args:
        columns: say whether positions are preferred to paths.
        position: of the row.
        stem: begins an id that is a position.
        path: of the image; None: it has none.
        given: the cell of the column of ids; None: there is no such column.
    """
    if given is not None:
        return given[0]
    return f"{stem}-{position:08d}" if path is None or columns.positions else path


def named_row(position: int, record_id: Any, subject: Any, label: Any, path: str) -> Row:
    """A row without its image; id, subject and label as they are in a cell."""
    if (whole := whole_number(label)) is not None:
        label = whole
    usable = isinstance(label, (int, str)) and not isinstance(label, bool)
    label_fault = "" if usable or is_missing(label) else f"label: {not_a_class(label)}"
    label = label if usable else None
    try:
        text = "" if is_missing(record_id) else as_text(record_id)
        person = None if is_missing(subject) else as_text(subject)
    except ValueError as error:
        return Row(position, str(record_id), None, label, None, fault=f"id or subject: {error}", path=path)
    earlier_id = None if text in ("", str(record_id)) else str(record_id)
    earlier_subject = None if person in (None, str(subject)) else str(subject)
    return Row(position, text, person, label, None, label_fault, earlier_id, earlier_subject, path)


def whole_number(value: object) -> int | None:
    """A whole number as an integer, also where it is stored as a float or a decimal; None: it is none.

    Floats are what pandas makes of integers beside missing values.

    >>> whole_number(2.0), whole_number(2.5), whole_number(True)
    (2, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, (Real, Decimal)) or is_missing(value):
        return None
    whole = int(cast("SupportsInt", value))
    return whole if value == whole else None


def classes_of_numbers(labels: Iterable[Any]) -> tuple[str, ...]:
    """Names of classes for labels that are whole numbers, in their order; none if any is something else.

    Negative ones name nothing: datasets mark rows without a label by -1.

    >>> classes_of_numbers([10, 2.0, None]), classes_of_numbers([0, -1])
    (('2', '10'), ())
    """
    numbers = [whole_number(label) for label in labels if not is_missing(label)]
    whole = [number for number in numbers if number is not None and number >= 0]
    return tuple(map(str, sorted(set(whole)))) if len(whole) == len(numbers) else ()


def not_a_class(label: object) -> str:
    """What is wrong with a cell that has something else than the name or the index of a class."""
    if isinstance(label, (Real, Decimal)) and not isinstance(label, bool):
        return "a number that is not whole is no class"
    return f"a value of type {type(label).__name__} is no class; give a text or a whole number"


def refuse_repeated(wanted: Iterable[str], there: Sequence[str], name: str) -> None:
    """Refuse a table in which a column that is to be read stands twice.

    Raises:
        InputError: one does; names it.
    """
    if repeated := [column for column in wanted if there.count(column) > 1]:
        raise InputError(
            "Several columns of the same name", got=f"{join_names(repeated)} in {name}", next_step="rename them"
        )


def unused_columns(columns: Iterable[str], used: Iterable[str | None]) -> list[str]:
    """Hints at columns that look like ids or subjects and were not named."""
    used_id, used_subject = used
    hints = []
    for column in columns:
        plain = "".join(character for character in column.casefold() if character.isalnum())
        if plain in _SUBJECT_LIKE and used_subject is None:
            hints.append(
                f"the column {column!r} was not used; if it names the person that a record is about, import with "
                f"--subject-column {shlex.quote(column)}, so that all records of a person can be found"
            )
        elif plain in _ID_LIKE and used_id is None:
            hints.append(
                f"the column {column!r} was not used; if it is the record id, import with --id-column "
                f"{shlex.quote(column)}"
            )
    return hints


def join_names(names: Iterable[str]) -> str:
    """Names in one line; one with white space around it is in quotes, because it would not be seen.

    >>> join_names(["path", " label"])
    "path, ' label'"
    """
    return ", ".join(name if name == name.strip() else repr(name) for name in names)


def readable(rows: Iterable[T], name: str) -> Iterator[T]:
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
