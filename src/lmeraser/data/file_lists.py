"""Tables in text files, CSV or JSON lines: lists of image files, metadata of a folder, subjects of records.

Rules:
- a file is UTF-8, or UTF-16 with a byte order mark;
- the first line of a CSV file names its columns; one without a name, such as the index that pandas writes, is not
  read; each line of a JSON lines file is one object;
- a first line ``sep=;``, as for Excel, says what divides the cells;
- cells are taken literally, with all their white space; an empty cell of a CSV file has no value;
- a table that is malformed anywhere is refused with the number of the line, so that none of it is used.

Knows nothing about records.
"""

from __future__ import annotations

import codecs
import csv
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from lmeraser.errors import InputError

SUFFIXES = {".csv", ".tsv", ".tab", ".jsonl", ".ndjson"}
METADATA_NAMES = ("metadata.csv", "metadata.jsonl")  # as the Hugging Face hub's imagefolder names them

_DELIMITERS = ",;\t|"
_LARGEST = 1 << 30  # bytes of a table that is held in memory
_LARGEST_LINE = 64 << 20  # characters of a line, or of a cell of a CSV file
_EXCEL_DELIMITER = re.compile("sep=(.)")
_NAMES = {"utf-16": "UTF-16", "utf-8-sig": "UTF-8"}


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
            from lmeraser.data.rows import join_names  # loads numpy, which files of ids do not need

            raise InputError(
                "The source lacks columns",
                got=f"no {wanted} in {self.path} (there are: {join_names(self.columns)})",
                next_step=f"name the column with {option}",
            )
        return wanted


def read_table(path: Path) -> Table:
    """Read a CSV file (.csv, .tsv, .tab) or a file of JSON lines (.jsonl, .ndjson).

    Raises:
        InputError: the file cannot be read, is too large, is no UTF-8 or UTF-16, or is malformed; names the line.
    """
    if path.is_file() and path.stat().st_size > _LARGEST:
        raise InputError(
            "Table too large",
            got=f"{path}: {path.stat().st_size >> 20} MiB (the limit is {_LARGEST >> 20} MiB)",
            next_step="divide it into several",
        )
    rows = list(stream_table(path))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    if not rows:
        raise InputError("File without rows", got=str(path), next_step="give a table with at least one row")
    return Table(path, columns, rows)


def stream_table(path: Path) -> Iterator[Mapping[str, Any]]:
    """The rows of such a file, one by one, however large it is.

    Raises:
        InputError: as `read_table`, when the faulty line is reached.
    """
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise InputError("Cannot read file", got=f"{path}: no regular file", next_step="give a file")
    rows = _json_lines if path.suffix.lower() in (".jsonl", ".ndjson") else _csv_lines
    try:
        encoding = text_encoding(path)
        with path.open(encoding=encoding, newline="") as file:
            yield from rows(path, _lines(path, file))
    except UnicodeDecodeError as error:
        raise InputError(
            f"File is not {_NAMES[encoding]} text",
            got=f"{path}, {_place_of_fault(path, encoding)}: {error.reason}",
            next_step="save it with the encoding UTF-8",
        ) from error
    except OSError as error:
        raise InputError(
            "Cannot read file", got=f"{path}: {error.strerror}", next_step="check the path and its permissions"
        ) from error


def text_encoding(path: Path) -> str:
    """UTF-16 if the file begins with its byte order mark, else UTF-8."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _place_of_fault(path: Path, encoding: str) -> str:
    """Line and byte at which a file cannot be decoded, both counted from 1."""
    decoder = codecs.getincrementaldecoder(encoding)()
    lines = 1
    read = 0
    with path.open("rb") as file:
        while True:
            block = file.read(1 << 16)
            read += len(block)
            try:
                lines += decoder.decode(block, final=not block).count("\n")
            except UnicodeDecodeError as error:
                good = error.object[: error.start].decode(encoding, "ignore")
                return f"line {lines + good.count(chr(10))}, byte {read - len(error.object) + error.start + 1}"
            if not block:
                return "at its end"


def _lines(path: Path, file: TextIO) -> Iterator[str]:
    """The lines of a file, with their ends; a line larger than any cell is refused before it is in memory."""
    number = 0
    while line := file.readline(_LARGEST_LINE):
        number += 1
        if len(line) == _LARGEST_LINE:
            raise _malformed(path, number, f"longer than {_LARGEST_LINE >> 20} Mi characters")
        yield line


def _malformed(path: Path, line: int, why: str) -> InputError:
    return InputError("Malformed table", got=f"{path}, line {line}: {why}", next_step="correct this line")


def _csv_lines(path: Path, lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    first = []  # empty lines, and the one that names the columns
    for line in lines:
        first.append(line)
        if line.strip():
            break
    header = first[-1] if first else ""
    excel = _EXCEL_DELIMITER.fullmatch(header.strip("\r\n"))  # a line that Excel reads, before the columns
    if "\0" in header:
        raise _malformed(path, len(first), "null characters; UTF-16 has to begin with a byte order mark")
    tabs = path.suffix.lower() in (".tsv", ".tab") and "\t" in header
    delimiter = "\t" if tabs else max(_DELIMITERS, key=header.count)  # the comma, if there is none
    delimiter = excel[1] if excel else delimiter
    csv.field_size_limit(max(csv.field_size_limit(), _LARGEST_LINE))  # of the process; 128 KiB is less than a text
    reader = csv.reader(itertools.chain(first, lines), delimiter=delimiter, strict=True)
    try:
        full = (cells for cells in reader if cells)
        if excel:
            next(full)
        names = next(full, [])
        named = [name for name in names if name]
        if len(set(named)) != len(named) or (names and not named):
            raise _malformed(path, len(first), "column names are empty or repeated")
        for cells in reader:
            if not cells:  # an empty line
                continue
            if len(cells) != len(names):
                raise _malformed(path, reader.line_num, f"{len(cells)} cells (expected {len(names)})")
            yield {name: cell or None for name, cell in zip(names, cells, strict=True) if name}
    except csv.Error as error:
        raise _malformed(path, reader.line_num, str(error)) from error


class _RepeatedNameError(ValueError):
    """Which of two values is meant cannot be told (RFC 8259, section 4)."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise _RepeatedNameError
    return value


def _json_lines(path: Path, lines: Iterator[str]) -> Iterator[Mapping[str, Any]]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line, object_pairs_hook=_object)
        except _RepeatedNameError as error:
            raise _malformed(path, number, "a name stands twice in an object") from error
        except (ValueError, RecursionError) as error:
            raise _malformed(path, number, "not JSON") from error
        if not isinstance(value, dict):
            raise _malformed(path, number, "not a JSON object")
        yield value
