"""Subjects of records that a source does not name in a column: by folder, by file name, or in a table beside it.

A person's records can only be found and deleted together if their subject is known, so a rule that finds no
subject for a row is a fault of the row, and a table that fits no record is an error.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath

from lmeraser.data.canonical_names import as_text, canonical_or_none, is_missing
from lmeraser.data.file_lists import read_table
from lmeraser.errors import InputError


@dataclass(frozen=True)
class SubjectRule:
    """How the subjects of records are found; one of these.

    Attributes:
        level: the folder in the path of an image whose name is the subject: 1 is the first, so that it is 2 for
            CLASS/PERSON/FILE.
        pattern: regular expression that is searched for in the path of an image; the subject is its group named
            ``subject``, else its first group.
        file: CSV or JSON lines file with the columns ``id`` and ``subject``.
    """

    level: int | None = None
    pattern: str | None = None
    file: str | os.PathLike[str] | None = None

    @classmethod
    def of(
        cls, *, level: int | None = None, pattern: str | None = None, file: str | os.PathLike[str] | None = None
    ) -> SubjectRule | None:
        """The rule that was given; None: none was."""
        given = (level, pattern, file) != (None, None, None)
        return cls(level, pattern, file) if given else None

    def __post_init__(self) -> None:
        if sum(rule is not None for rule in (self.level, self.pattern, self.file)) != 1:
            raise InputError(
                "Not exactly one rule for subjects",
                got=f"level {self.level}, pattern {self.pattern!r}, file {self.file}",
                next_step="give one of --subjects, --subject-level and --subject-pattern",
            )
        if self.level is not None and self.level < 1:
            raise InputError(
                "Folder level below 1", got=str(self.level), next_step="count the folders of a path from 1"
            )
        if self.pattern is not None:
            self._compile(self.pattern)

    @staticmethod
    def _compile(pattern: str) -> re.Pattern[str]:
        try:
            compiled = re.compile(pattern)
        except re.error as error:
            raise InputError(
                "Malformed pattern of subjects", got=f"{pattern!r}: {error}", next_step="give a regular expression"
            ) from error
        if not compiled.groups:
            raise InputError(
                "Pattern of subjects without a group",
                got=repr(pattern),
                next_step="put the part that is the subject in parentheses, for example '(p[0-9]+)_'",
            )
        return compiled

    @cached_property
    def by_id(self) -> dict[str, str]:
        """Subjects by canonical record id, from the file.

        Raises:
            InputError: it cannot be read, lacks a column, or gives a record two subjects.
        """
        assert self.file is not None
        path = Path(self.file)
        table = read_table(path)
        for column in ("id", "subject"):
            table.find_column(column, (), "--subjects; its columns are id and subject")
        found: dict[str, str] = {}
        for row in table.rows:
            if is_missing(row.get("subject")):
                continue
            try:
                record_id, subject = as_text(row.get("id") or ""), as_text(row["subject"])
            except ValueError as error:
                raise InputError("Malformed name", got=f"{path}: {error}", next_step="correct the file") from error
            record_id = canonical_or_none(record_id) or record_id
            if found.setdefault(record_id, subject) != subject:
                raise InputError(
                    "Record with two subjects",
                    got=f"{path}: id {record_id!r}",
                    next_step="give each record one subject",
                )
        return found

    def subject_of(self, record_id: str, path: str) -> str | None:
        """The subject of a record.

        Args:
            record_id: as written in the source.
            path: of its image in the source; empty: it has none.

        Returns:
            The subject; None: the file does not name one.

        Raises:
            ValueError: the path has none; says why.
        """
        if self.file is not None:
            return self.by_id.get(canonical_or_none(record_id) or record_id)
        if not path:
            raise ValueError("no path, so that no subject can be read from it")
        if self.level is not None:
            folders = PurePosixPath(path).parts[:-1]
            if len(folders) < self.level:
                raise ValueError(f"no subject, because its path has no folder at level {self.level}")
            return folders[self.level - 1]
        assert self.pattern is not None
        match = re.search(self.pattern, path)
        named = match is not None and "subject" in match.re.groupindex
        subject = match["subject" if named else 1] if match is not None else None
        if not subject:
            raise ValueError("no subject, because its path does not match the pattern")
        return subject
