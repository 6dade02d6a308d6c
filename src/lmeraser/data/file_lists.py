"""Tables in text files, CSV or JSON lines: lists of image files, metadata of a folder, subjects of records.

Rules:
- the first line of a CSV file names its columns; each line of a JSON lines file is one object;
- cells are taken literally, with all their white space; an empty cell of a CSV file has no value;
- a table that is malformed anywhere is refused with the number of the line, so that none of it is used.

Knows nothing about records.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmeraser.errors import InputError

SUFFIXES = {".csv", ".tsv", ".jsonl", ".ndjson"}
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")  # as the Hugging Face hub's imagefolder names them

_DELIMITERS = ",;\t"
_LARGEST = 1 << 30  # bytes of a table, which is held in memory


@dataclass(frozen=True)
class Table:
    """A table that was read.

    Attributes:
        path: of the file.
        columns: their names, in the order of their first appearance.
        rows: a cell by its column; a cell without a value is None or missing.
    """

    path: Path
    columns: Sequence[str]
    rows: Sequence[Mapping[str, Any]]

    def find_column(self, wanted: str | None, candidates: Sequence[str], option: str) -> str | None:
        """The column that was named or, if none was, the first one of ``candidates`` that there is.

        Args:
            wanted: named by the caller; None: choose.
            candidates: in the order of preference.
            option: by which columns are named, for the message.

        Raises:
            InputError: the named column does not exist.
        """
        if wanted is None:
            return next((name for name in candidates if name in self.columns), None)
        if wanted not in self.columns:
            raise InputError(
                "The source lacks columns",
                got=f"no {wanted} in {self.path} (there are: {', '.join(self.columns)})",
                next_step=f"name the column with {option}",
            )
        return wanted


def read_table(path: Path) -> Table:
    """Read a CSV file (.csv, .tsv) or a file of JSON lines (.jsonl, .ndjson).

    Raises:
        InputError: the file cannot be read, is not UTF-8, or is malformed; names the line.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError("Cannot read file", got=f"{path}: no regular file", next_step="give a file")
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise InputError(
            "Table too large",
            got=f"{path}: {path.stat().st_size >> 20} MiB (the limit is {_LARGEST >> 20} MiB)",
            next_step="divide it into several",
        )
    lines = _json_lines if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_lines
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(lines(path, file))
    except UnicodeDecodeError as error:
        raise InputError(
            "File is not UTF-8 text", got=f"{path}: {error.reason}", next_step="save it with the encoding UTF-8"
        ) from error
    except OSError as error:
        raise InputError(
            "Cannot read file", got=f"{path}: {error.strerror}", next_step="check the path and its permissions"
        ) from error
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        raise InputError("File without rows", got=str(path), next_step="give a table with at least one row")
    return Table(path, columns, rows)


def _malformed(path: Path, line: int, why: str) -> InputError:
    return InputError("Malformed table", got=f"{path}, line {line}: {why}", next_step="correct this line")


def _csv_lines(path: Path, file: Any) -> Iterator[Mapping[str, Any]]:
    header = file.readline()
    file.seek(0)
    delimiter = max(_DELIMITERS, key=header.count)  # the comma, if there is none
    reader = csv.reader(file, delimiter=delimiter, strict=True)
    try:
        names = next(reader, [])
        if len(set(names)) != len(names) or not all(names):
            raise _malformed(path, 1, "column names are empty or repeated")
        for cells in reader:
            if not cells:  # an empty line
                continue
            if len(cells) != len(names):
                raise _malformed(path, reader.line_num, f"{len(cells)} cells (expected {len(names)})")
            yield {name: cell or None for name, cell in zip(names, cells, strict=True)}
    except csv.Error as error:
        raise _malformed(path, reader.line_num, str(error)) from error


def _json_lines(path: Path, file: Any) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _malformed(path, number, "not JSON") from error
        if not isinstance(value, dict):
            raise _malformed(path, number, "not a JSON object")
        yield value
