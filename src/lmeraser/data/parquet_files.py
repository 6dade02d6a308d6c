"""Reading of parquet files in small batches, with limits that hold before anything is unpacked.

A parquet file of a few kilobytes can unpack to gigabytes: pages are compressed, and a value that is stored once
can stand in any number of rows. So:

1. a column of a row group is refused by its entry in the file's footer if it would unpack to too much for what is
   stored (`_MAX_UNPACKED` and `_MAX_RATIO`), or if its cells are larger than any image file on average;
2. rows are read in batches whose cells fit in memory even if all were as large as the largest possible one.

Knows nothing about images or records.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmeraser.errors import InputError

LARGEST_FILE = 128 << 20  # bytes of one image file

_BATCH_BYTES = 16 << 20  # cells that are unpacked at once
_BATCH_ROWS = 256
_MAX_UNPACKED = 256 << 20  # bytes of a column in a row group that may unpack at any ratio
_MAX_RATIO = 100  # of unpacked to stored bytes; image files do not compress, and text compresses less


@dataclass(frozen=True)
class ParquetRows:
    """Several parquet files as one table.

    Attributes:
        files: in their order.
        columns: names of the columns that all files have.
        length: number of rows.
        class_names: by column, in the order of the labels; of columns that declare them.
    """

    files: Sequence[Path]
    columns: Sequence[str]
    length: int
    class_names: Mapping[str, tuple[str, ...]]

    def read(self, columns: Sequence[str]) -> Iterator[Mapping[str, Any]]:
        """The rows of all files with these columns, as Python values.

        Raises:
            InputError: a file would unpack to more than is plausible.
        """
        for batch in self._batches(columns, shared=False):
            yield from batch.to_pylist()

    def batches(self, columns: Sequence[str]) -> Iterator[Any]:
        """The same as batches of Arrow, in which a text that is stored once is held once, so that they are larger.

        Raises:
            InputError: a file would unpack to more than is plausible.
        """
        yield from self._batches(columns, shared=True)

    def _batches(self, columns: Sequence[str], *, shared: bool) -> Iterator[Any]:
        import pyarrow.parquet as parquet

        for path in self.files:
            once = _texts(parquet.read_schema(path), columns) if shared else []
            # With pre_buffer, what was read would be held until the file is closed.
            with parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False, read_dictionary=once) as file:
                size = _batch_size(path, file.metadata, columns, average=shared)
                yield from file.iter_batches(batch_size=size, columns=list(columns), use_threads=False)


def open_parquet(files: Sequence[Path]) -> ParquetRows:
    """Read the footers of parquet files.

    Raises:
        InputError: a file cannot be read, or the files declare different classes.
    """
    import pyarrow
    import pyarrow.parquet as parquet

    columns: list[str] = []
    classes: dict[str, tuple[str, ...]] = {}
    length = 0
    for number, path in enumerate(files):
        try:
            with parquet.ParquetFile(path) as file:
                length += file.metadata.num_rows
                schema = file.schema_arrow
        except (pyarrow.ArrowException, OSError, ValueError) as error:
            raise InputError(
                "Cannot read parquet file", got=f"{path}: {error}", next_step="check that the file is complete"
            ) from error
        columns = [name for name in schema.names if number == 0 or name in columns]
        for column, names in _declared_classes(schema.metadata or {}).items():
            if classes.setdefault(column, names) != names:
                raise InputError(
                    "Parquet files declare different classes",
                    got=f"{path}: {', '.join(names)} (before: {', '.join(classes[column])})",
                    next_step="import them one by one",
                )
    return ParquetRows(files, columns, length, classes)


def _texts(schema: Any, columns: Sequence[str]) -> list[str]:
    """Those of the columns that hold texts or bytes."""
    from pyarrow import types

    kinds = (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    return [name for name in columns if any(kind(schema.field(name).type) for kind in kinds)]


def _declared_classes(metadata: Mapping[bytes, bytes]) -> dict[str, tuple[str, ...]]:
    """Class names by column, as the library ``datasets`` writes them into a schema."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        found = {
            column: feature["names"]
            for column, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel" and feature.get("names")
        }
        return {column: tuple(map(str, names)) for column, names in found.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _batch_size(path: Path, metadata: Any, columns: Sequence[str], *, average: bool) -> int:
    """How many rows may be unpacked at once.

    Args:
        path: in messages.
        metadata: the file's footer.
        columns: that are read.
        average: whether cells are as large as on average; else one may stand in all rows, however large it is.
    """
    largest = 1
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for column in map(group.column, range(group.num_columns)):
            if column.path_in_schema.partition(".")[0] not in columns:
                continue
            unpacked = column.total_uncompressed_size
            stored = max(1, column.total_compressed_size)
            cells = max(1, min(group.num_rows, column.num_values))
            if average and column.num_values > group.num_rows:  # a list of numbers, which may be stored once
                unpacked = max(unpacked, 8 * column.num_values)
            if unpacked > max(_MAX_UNPACKED, _MAX_RATIO * stored) or unpacked > cells * LARGEST_FILE:
                raise InputError(
                    "Parquet file unpacks to too much",
                    got=f"{path}: column {column.path_in_schema}, {stored} bytes to {unpacked}",
                    next_step=f"write it again, with image files of at most {LARGEST_FILE >> 20} MiB",
                )
            cell = -(-unpacked // max(1, group.num_rows)) if average else unpacked
            largest = max(largest, min(cell, LARGEST_FILE))
    return max(1, min(_BATCH_ROWS, _BATCH_BYTES // largest))
