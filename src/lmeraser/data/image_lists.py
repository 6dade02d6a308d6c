"""Lists of image files: a table that names the path of each image, its label, and what else is known about it.

The columns are ``path`` and ``label``, and optionally ``id``, ``subject`` and ``split``; others can be named.
Paths are relative to the list. A list may come from anyone, so paths that lead out of its folder are faults unless
the caller asks to follow them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lmeraser.data.canonical_names import is_missing
from lmeraser.data.file_lists import Table
from lmeraser.data.modalities import of_another_modality
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
    unused_columns,
    with_file,
)
from lmeraser.errors import InputError

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_LONGEST_PATH = 4096  # characters
PATH_COLUMNS = ("path", "file_name", "image", "file")  # in the order of preference


@dataclass(frozen=True, slots=True)
class ListEntry:
    """One line of a list, as written; ``has_...`` tell whether the list has such a column."""

    path: str
    label: Any
    id: Any
    subject: Any
    has_label: bool
    has_id: bool


@dataclass(frozen=True, slots=True)
class ListColumns:
    """Which columns of a table say what about an image; None: no column does."""

    path: str
    label: str | None
    id: str | None
    subject: str | None

    @classmethod
    def of(cls, table: Table, columns: Columns, *, needs_label: bool) -> ListColumns:
        """Choose the columns of a table.

        Raises:
            InputError: a column that was named, or that is needed, does not exist.
        """
        named_image = columns.image if columns.image != IMAGE else None
        named_label = columns.label if columns.label != LABEL else None
        path = table.find_column(named_image, PATH_COLUMNS, "--image-column")
        label = table.find_column(named_label, (LABEL,), "--label-column")
        missing = [*([] if path else ["path"]), *([] if label or not needs_label else [LABEL])]
        if path is None or missing:
            raise InputError(
                "The source lacks columns",
                got=f"no {join_names(missing)} in {table.path} (there are: {join_names(table.columns)})",
                next_step="name the columns with --image-column, --label-column, --id-column, --subject-column"
                + ("" if path else of_another_modality(table.columns, "image")),
            )
        record_id = table.find_column(columns.id, () if columns.positions else ("id",), "--id-column")
        return cls(path, label, record_id, table.find_column(columns.subject, ("subject",), "--subject-column"))

    def entry(self, row: Mapping[str, Any]) -> ListEntry:
        """What a row says."""
        label, record_id, subject = (
            row.get(c) if c is not None else None for c in (self.label, self.id, self.subject)
        )
        path = row.get(self.path)
        text = path if isinstance(path, str) else ""
        label = label.strip() if isinstance(label, str) else label
        return ListEntry(text, label, record_id, subject, self.label is not None, self.id is not None)


def classes_of(entries: Sequence[ListEntry]) -> tuple[str, ...]:
    """Class names in a list, sorted; none if labels are indices, which only the workspace can name."""
    labels = {entry.label for entry in entries if isinstance(entry.label, (str, int)) and entry.label != ""}
    names = sorted(label for label in labels if isinstance(label, str))
    if len(names) < len(labels):
        return ()
    numbers = all(name.isascii() and name.isdigit() for name in names)
    return tuple(sorted(names, key=int) if numbers else names)


def open_list(table: Table, columns: Columns, split: str | None, follow_paths: bool) -> Source:
    """A list of image files, with paths relative to its folder."""
    described = ListColumns.of(table, columns, needs_label=True)
    hints: list[str] = []
    rows = list(table.rows)
    splits = sorted({str(row["split"]) for row in rows if not is_missing(row.get("split"))})
    if split is not None:
        rows = [row for row in rows if row.get("split") == split]
        if not rows:
            there = f"there are: {join_names(splits)}" if splits else "it has no column split"
            raise InputError(
                "Split not found", got=f"{split!r} in {table.path} ({there})", next_step="check --split"
            )
    elif len(splits) > 1:
        hints.append(f"all splits of the list are read ({join_names(splits)}); --split chooses one")
    entries = [described.entry(row) for row in rows]
    hints += unused_columns(table.columns, (described.id, described.subject))
    base = table.path.parent

    def row(position: int, entry: ListEntry) -> Row:
        given = (entry.id,) if entry.has_id else None
        record_id = choose_id(columns, position, split or "row", entry.path, given)
        named = named_row(position, record_id, entry.subject, entry.label, entry.path)
        if named.fault:
            return named
        if not entry.path:
            return replace(named, fault="no path of an image file")
        file = resolve_path(base, entry.path, anywhere=follow_paths)
        return replace(named, fault=file) if isinstance(file, str) else with_file(named, file)

    stream = (row(position, entry) for position, entry in enumerate(entries))
    return Source(
        str(table.path),
        classes_of(entries),
        len(rows),
        readable(stream, str(table.path)),
        hints=hints,
        numbers=classes_of_numbers(entry.label for entry in entries),
    )


def resolve_path(base: Path, path: str, *, anywhere: bool) -> Path | str:
    """The file that a path in a source names, or what is wrong with the path.

    Args:
        base: the folder of the source.
        path: as written there.
        anywhere: whether it may lead out of the folder.
    """
    if reason := not_a_path(path):
        return reason
    file = base / path
    if not os.path.lexists(file) and "\\" in path:  # written on Windows
        file = base / path.replace("\\", "/")
    try:
        inside = file.resolve().is_relative_to(base.resolve())
        if not inside and not anywhere:
            return "its path leads out of the folder of the source; --follow-paths reads such files"
        if file.is_file():
            return file
    except (OSError, ValueError, RuntimeError):  # a null character, a loop of links
        pass
    return "no such file" if Path(path).is_absolute() else f"no such file in {base.resolve()}"


def not_a_path(text: str) -> str:
    """Why a text in the place of an image is no path of a file, where that can be seen; empty: it cannot."""
    if match := _URL.match(text):
        return f"an address ({match[0]}...), and nothing is fetched; download the file"
    if text.startswith("data:") or len(text) > _LONGEST_PATH:
        return "text instead of an image file's bytes or path; base64 is not decoded"
    return ""
