"""Sources whose payloads lie in the cells of tables: texts, vectors.

A table is a CSV, TSV or JSON lines file, parquet files, arrays of numpy in files (.npz with the arrays X, y and,
optionally, ids and subjects; X.npy with y.npy beside it), a ``datasets`` object, a DataFrame, a tuple (X, y) of
equally long sequences, or any iterable of dictionaries. A folder of class folders is read by `image_folders`.

Rules:
- the columns ``label``, ``id`` and ``subject`` are used if no others are named; the column of the payload has one
  of the modality's usual names or is named;
- classes are those that the table declares, else the labels, sorted, numbers by their size; a label that is a
  number is the name that it is written as;
- a row without an id has the path of its file as the id or, if it has none, its position;
- a table is read twice, for its classes and for its rows, which are never all in memory if it is a file.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from lmeraser.data.arrays import open_arrays
from lmeraser.data.canonical_names import is_missing
from lmeraser.data.file_lists import stream_table
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.data.parquet_files import ParquetRows
from lmeraser.data.rows import (
    IMAGE,
    Columns,
    Row,
    Source,
    choose_id,
    is_whole_number,
    join_names,
    named_row,
    not_a_class,
    readable,
    refuse_repeated,
    unused_columns,
    whole_number,
)
from lmeraser.errors import InputError

Cells = Mapping[str, Any]

_SPLIT = "split"
_BATCH_ROWS = 256
_SHOWN_COLUMNS = 50


@dataclass(frozen=True)
class CellTable:
    """An open table.

    Attributes:
        name: in messages.
        columns: their names.
        length: number of rows; None: unknown.
        read: yields the rows with some of the columns; a cell without a value is None or missing.
        class_names: by column, of those that declare them.
        has_splits: whether a column ``split`` says which rows belong to a split.
        hints: what the reader of a report should know of it.
    """

    name: str
    columns: Sequence[str]
    length: int | None
    read: Callable[[Sequence[str]], Iterator[Cells]]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    has_splits: bool = False
    hints: Sequence[str] = ()


def open_table(table: CellTable, payloads: PayloadFormat, split: str | None, columns: Columns) -> Source:
    """The rows of a table as a source.

    Raises:
        InputError: a column is missing, or it is unclear which one holds the payloads.
    """
    chosen = _ChosenColumns.of(table, payloads, columns)
    hints = [*table.hints, *unused_columns(table.columns, (chosen.id, chosen.subject))]
    by_split = _SPLIT if table.has_splits and _SPLIT in table.columns else None
    if table.has_splits and split is not None and by_split is None:
        raise InputError(
            "Split not found", got=f"{split!r} in {table.name} (it has no column split)", next_step="check --split"
        )
    classes = table.class_names.get(chosen.label, ())
    length = table.length
    if not classes or by_split is not None:
        labels, splits, counted = _first_reading(table, chosen.label, by_split, split)
        classes = classes or class_names(labels)
        length = counted
        if split is not None and not counted:
            raise InputError(
                "Split not found",
                got=f"{split!r} in {table.name} (there are: {join_names(sorted(splits))})",
                next_step="check --split",
            )
        if split is None and len(splits) > 1:
            hints.append(f"all splits are read ({join_names(sorted(splits))}); --split chooses one")
    wanted = chosen.names(by_split)
    declared = chosen.label in table.class_names

    def rows() -> Iterator[Row]:
        position = 0
        for cells in table.read(wanted):
            if split is None or by_split is None or cells.get(by_split) == split:
                yield _row(position, cells, chosen, payloads, columns, split or "row", declared=declared)
                position += 1

    return Source(table.name, classes, length, readable(rows(), table.name), hints=hints)


def class_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Class names in the order of their labels: sorted, numbers by their size.

    >>> class_names({"10", "9", "-1"}), class_names({"b", "a"})
    (('-1', '9', '10'), ('a', 'b'))
    """
    names = sorted(set(labels))
    numbers = all(map(is_whole_number, names))
    return tuple(sorted(names, key=int) if numbers else names)


@dataclass(frozen=True, slots=True)
class _ChosenColumns:
    """Which columns hold what; None: no column does."""

    payload: str
    label: str
    id: str | None
    subject: str | None

    @classmethod
    def of(cls, table: CellTable, payloads: PayloadFormat, columns: Columns) -> _ChosenColumns:
        def find(named: str | None, usual: str | None) -> str | None:
            if named is not None and named not in table.columns:
                raise _lacks(table, named, payloads)
            return named if named is not None else usual if usual in table.columns else None

        named = columns.payload or (columns.image if columns.image != IMAGE else None)
        usual = [name for name in payloads.columns if name in table.columns]
        if named is None and len(usual) > 1:
            raise InputError(
                f"Several columns may hold the {payloads.noun}",
                got=f"{join_names(usual)} in {table.name}",
                next_step=f"name one with --{payloads.noun}-column",
            )
        payload = find(named, usual[0] if usual else None)
        label = find(columns.label, None)
        if payload is None or label is None:
            raise _lacks(table, f"column of the {payloads.noun} ({join_names(payloads.columns)})", payloads)
        record_id = find(columns.id, None if columns.positions else "id")
        chosen = cls(payload, label, record_id, find(columns.subject, "subject"))
        refuse_repeated(chosen.names(), table.columns, table.name)
        return chosen

    def names(self, *further: str | None) -> list[str]:
        return list(dict.fromkeys(filter(None, (self.payload, self.label, self.id, self.subject, *further))))


def _lacks(table: CellTable, what: str, payloads: PayloadFormat) -> InputError:
    there = [*table.columns[:_SHOWN_COLUMNS], *(["..."] if len(table.columns) > _SHOWN_COLUMNS else [])]
    return InputError(
        "The source lacks columns",
        got=f"no {what} in {table.name} (there are: {join_names(there)})",
        next_step=f"name the columns with --{payloads.noun}-column, --label-column, --id-column, --subject-column",
    )


def _first_reading(
    table: CellTable, label: str, by_split: str | None, split: str | None
) -> tuple[set[str], set[str], int]:
    """The labels of the rows of a split, the splits that there are, and the number of rows of the split.

    Raises:
        InputError: it has rows, none of which has a label.
    """
    faults: set[str] = set()
    labels: set[str] = set()
    splits: set[str] = set()
    count = 0
    for cells in readable_cells(table, list(dict.fromkeys(filter(None, (label, by_split))))):
        its_split = cells.get(by_split) if by_split is not None else None
        if not is_missing(its_split):
            splits.add(str(its_split))
        if split is not None and by_split is not None and its_split != split:
            continue
        count += 1
        cell = cells.get(label)
        if (name := label_name(cell)) is not None:
            labels.add(name)
        elif not labels:
            faults.add("no value" if is_missing(cell) or isinstance(cell, str) else not_a_class(cell))
    if count and not labels:
        raise InputError(
            "No row has a label",
            got=f"the column {label} of {table.name}: {join_names(sorted(faults))}",
            next_step="name the column of the labels with --label-column, or correct it",
        )
    return labels, splits, count


def readable_cells(table: CellTable, columns: Sequence[str]) -> Iterator[Cells]:
    """The rows of a table; any error while they are read is reported as an error of the source."""
    return readable(table.read(columns), table.name)


def label_name(value: Any) -> str | None:
    """The name of a class as a cell has it; None: it has none, or something that is no name."""
    if is_missing(value):
        return None
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if (whole := whole_number(value)) is not None:
        return str(whole)
    return value.strip() or None if isinstance(value, str) else None


def _row(
    position: int,
    cells: Cells,
    chosen: _ChosenColumns,
    payloads: PayloadFormat,
    columns: Columns,
    stem: str,
    *,
    declared: bool,
) -> Row:
    given = (cells.get(chosen.id),) if chosen.id is not None else None
    path = payloads.path_of(cells.get(chosen.payload))
    record_id = choose_id(columns, position, stem, path, given)
    subject = cells.get(chosen.subject) if chosen.subject is not None else None
    label = cells.get(chosen.label)
    if not (declared and isinstance(label, Integral)):  # an index of a class that the table declares
        label = label_name(label) or (None if isinstance(label, str) else label)
    row = named_row(position, record_id, subject, label, path or "")
    if row.fault:
        return row
    try:
        return replace(row, payload=payloads.payload(cells.get(chosen.payload)))
    except ValueError as error:
        return replace(row, fault=str(error))


# --- kinds of tables -----------------------------------------------------------------------------------------


def file_table(path: Path) -> CellTable:
    """A CSV, TSV or JSON lines file, which is read row by row."""
    columns: dict[str, None] = {}
    length = 0
    for row in stream_table(path):  # the whole file, so that it is refused before any of it is used
        columns.update(dict.fromkeys(row))
        length += 1
    if not length:
        raise InputError("File without rows", got=str(path), next_step="give a table with at least one row")
    return CellTable(str(path), list(columns), length, lambda _: stream_table(path), has_splits=True)


def parquet_table(files: ParquetRows, name: str) -> CellTable:
    """Parquet files."""

    def read(columns: Sequence[str]) -> Iterator[Cells]:
        for batch in files.batches(columns):
            yield from arrow_rows(batch)

    return CellTable(name, files.columns, files.length, read, files.class_names)


def arrays_table(path: Path) -> CellTable:
    """Arrays in a .npz file, or in .npy files."""
    arrays = open_arrays(path)
    hints = []
    if arrays.others:
        hints.append(f"arrays that were not read: {join_names(arrays.others)}; people are named by subjects")
    return CellTable(str(path), arrays.columns, arrays.length, arrays.read, hints=hints)


def object_table(source: Any, payloads: PayloadFormat, columns: Columns) -> CellTable:
    """An object in memory, or a stream of ``datasets``.

    Raises:
        InputError: it is no table.
    """
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return _frame_table(source)
    if type(source).__module__.partition(".")[0] == "datasets":
        return _dataset_table(source)
    if hasattr(source, "__arrow_c_stream__"):
        import pyarrow

        try:
            table = pyarrow.table(source)
        except pyarrow.ArrowException as error:
            raise _unsupported(source) from error

        def read(wanted: Sequence[str]) -> Iterator[Cells]:
            for batch in table.select(list(wanted)).to_batches(max_chunksize=_BATCH_ROWS):
                yield from arrow_rows(batch)

        return CellTable(type(source).__name__, table.column_names, table.num_rows, read)
    if isinstance(source, tuple) and source and not isinstance(source[0], Mapping):
        return _sequences_table(source, payloads, columns)
    return _rows_table(source)


def _frame_table(frame: Any) -> CellTable:
    # A level of the index with a name is a column, often that of the ids.
    levels = [
        level for level, name in enumerate(frame.index.names) if name is not None and name not in frame.columns
    ]
    if levels:
        frame = frame.reset_index(level=levels)
    names = [str(name) for name in frame.columns]

    def read(wanted: Sequence[str]) -> Iterator[Cells]:
        places = [names.index(name) for name in wanted]
        for start in range(0, len(frame), _BATCH_ROWS):
            part = frame.iloc[start : start + _BATCH_ROWS, places]
            cells = [series.astype(object).where(series.notna(), None).tolist() for _, series in part.items()]
            yield from (dict(zip(wanted, row, strict=True)) for row in zip(*cells, strict=True))

    return CellTable("DataFrame", names, len(frame), read)


def _dataset_table(source: Any) -> CellTable:
    from datasets import Dataset, IterableDataset
    from datasets.features import ClassLabel

    if not isinstance(source, (Dataset, IterableDataset)):
        raise InputError(
            "Unsupported type of dataset",
            got=f"{type(source).__name__} (possible are datasets.Dataset and datasets.IterableDataset)",
            next_step="choose a split, for instance dataset['train']",
        )
    features = source.features or dict.fromkeys(next(iter(source), {}))  # a stream need not declare its columns
    classes = {
        name: tuple(feature.names)
        for name, feature in features.items()
        if isinstance(feature, ClassLabel) and feature.names
    }

    def read(wanted: Sequence[str]) -> Iterator[Cells]:
        chosen = source.select_columns(list(wanted))
        if isinstance(source, IterableDataset):
            yield from chosen.with_format(None)
            return
        for batch in chosen.with_format("arrow").iter(batch_size=_BATCH_ROWS):
            yield from arrow_rows(batch)

    length = len(source) if isinstance(source, Dataset) else None
    return CellTable("dataset", list(features), length, read, classes)


def _sequences_table(source: tuple[Any, ...], payloads: PayloadFormat, columns: Columns) -> CellTable:
    """A tuple (X, y), (X, y, ids) or (X, y, ids, subjects)."""
    names = [
        columns.payload or payloads.columns[0],
        columns.label,
        columns.id or "id",
        columns.subject or "subject",
    ]
    parts = [_sequence(part) for part in source]
    shapes = [() if isinstance(part, np.ndarray) and part.ndim == 0 else (len(part),) for part in parts]
    if not 2 <= len(parts) <= len(names) or len(set(shapes)) != 1 or () in shapes:
        raise InputError(
            "Arrays that do not fit together",
            got=f"{len(parts)} of the lengths {join_names(str(*shape) or 'none' for shape in shapes)}",
            next_step="give (X, y), (X, y, ids) or (X, y, ids, subjects), all of one length",
        )
    names = names[: len(parts)]

    def read(wanted: Sequence[str]) -> Iterator[Cells]:
        chosen = [(name, parts[names.index(name)]) for name in wanted]
        for position in range(len(parts[0])):
            yield {name: part[position] for name, part in chosen}

    return CellTable("arrays", names, len(parts[0]), read)


def _sequence(part: Any) -> Any:
    """A list, a tuple or an array; masked values are None."""
    if isinstance(part, (list, tuple)):
        return part
    if np.ma.is_masked(part):
        values = part.data.astype(object)
        values[np.ma.getmaskarray(part)] = None
        return values
    if hasattr(part, "toarray") or not hasattr(part, "__len__"):
        raise InputError(
            "Values that are no array",
            got=f"{type(part).__name__}{', which is sparse' if hasattr(part, 'toarray') else ''}",
            next_step="give lists or arrays of numpy",
        )
    try:
        return np.asarray(part)
    except Exception as error:  # tensors on a device, with a gradient or of a type that numpy lacks
        raise InputError(
            "Values that are no array",
            got=f"{type(part).__name__}: {str(error).partition(chr(10))[0]}",
            next_step="give lists or arrays of numpy",
        ) from error


def _unsupported(source: Any) -> InputError:
    return InputError(
        "Unsupported kind of source",
        got=f"{type(source).__name__} (possible are a path, a DataFrame, a dataset, (X, y), or dictionaries)",
        next_step="give one of these",
    )


def _rows_table(source: Any) -> CellTable:
    """An iterable of dictionaries; one that can be read once only is kept in memory."""
    if isinstance(source, (str, bytes, Mapping)) or not isinstance(source, Iterable):
        raise _unsupported(source)
    rows = list(source)
    columns: dict[str, None] = {}
    for position, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise InputError(
                "Unsupported kind of row",
                got=f"row {position} is a {type(row).__name__}",
                next_step="give a dictionary for each row",
            )
        columns.update(dict.fromkeys(map(str, row)))
    if not rows:
        raise InputError("Source without rows", got="nothing", next_step="give at least one row")
    return CellTable("rows", list(columns), len(rows), lambda _: iter(rows))


def arrow_rows(batch: Any) -> Iterator[Cells]:
    """The rows of a batch or table of Arrow; lists of numbers become arrays of numpy."""
    names = batch.schema.names
    columns = [_arrow_cells(batch.column(place)) for place in range(len(names))]
    return (dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True))


def _arrow_cells(column: Any) -> Iterable[Any]:
    import pyarrow
    from pyarrow import types

    if isinstance(column, pyarrow.ChunkedArray):
        return (cell for chunk in column.chunks for cell in _arrow_cells(chunk))
    if isinstance(column, pyarrow.ExtensionArray):
        column = column.storage
    kind = column.type
    lists = types.is_list(kind) or types.is_large_list(kind)
    number = (lists or types.is_fixed_size_list(kind)) and (
        types.is_floating(kind.value_type) or types.is_integer(kind.value_type)
    )
    if not number:
        return (cell.as_py() for cell in column)  # one at a time: a cell stored once may stand in many rows
    values = column.values.to_numpy(zero_copy_only=False)
    there = column.is_valid().to_pylist()
    if lists:
        ends = column.offsets.to_numpy()
        pairs: Iterable[tuple[Any, Any]] = itertools.pairwise(ends)
    else:
        size = kind.list_size
        starts = range(column.offset * size, (column.offset + len(column)) * size, size or 1)
        pairs = zip(starts, (start + size for start in starts), strict=True)
    return (values[start:end] if valid else None for valid, (start, end) in zip(there, pairs, strict=True))
