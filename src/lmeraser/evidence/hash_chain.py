"""The chain of a ledger: what an entry is, and when a sequence of entries is unbroken.

Each line is one entry as canonical JSON (RFC 8785). Rules:
1. position counts from 0 without gaps;
2. ``previous`` is the digest of the entry before, null in the first;
3. ``digest`` covers every other field;
4. the bytes of a line are those that writing the entry again gives.

A chain that was cut at its end is still a chain: a `LedgerHead` exported earlier finds it. Pure functions, all
that an outsider needs to check a ledger; know nothing about what entries mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from lmeraser.core.digests import Digest, canonical_json, parse_json
from lmeraser.errors import InputError, VerificationError


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        position: 0, 1, 2, ...
        previous: digest of the entry before.
        time: when it was noted, RFC 3339 in UTC.
        kind: what it tells of.
        body: the rest, by kind.
    """

    position: int
    previous: Digest | None
    time: str
    kind: str
    body: Mapping[str, Any]

    def _covered(self) -> dict[str, Any]:
        head = {"position": self.position, "previous": self.previous, "time": self.time, "kind": self.kind}
        return {**head, "body": self.body}

    @property
    def digest(self) -> Digest:
        """Digest of everything in it."""
        return Digest.of_json(self._covered())

    def line(self) -> bytes:
        """The entry's line, with its end."""
        return canonical_json({**self._covered(), "digest": self.digest}) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """The entry of a line.

        Raises:
            VerificationError: the line is not what writing an entry gives (rules 3 and 4).
        """
        try:
            values = parse_json(line)
            claimed, previous = values.pop("digest"), values.pop("previous")
            entry = cls(previous=None if previous is None else Digest(previous), **values)
            typed = type(entry.position) is int and isinstance(entry.time, str) and isinstance(entry.kind, str)
            sound = typed and isinstance(entry.body, dict) and entry.line() == line and claimed == entry.digest
        except (ValueError, TypeError, AttributeError, KeyError, InputError) as error:
            raise broken(f"not an entry: {line[:60]!r}") from error
        if not sound:
            raise broken(f"an entry whose digest does not cover it: {line[:60]!r}")
        return entry


@dataclass(frozen=True)
class LedgerHead:
    """Where a ledger ends, or ended at some time: the number of entries, and the digest of the last one."""

    entries: int
    digest: Digest | None

    def to_json(self) -> dict[str, object]:
        """The head as JSON values."""
        return {"entries": self.entries, "digest": self.digest}

    @classmethod
    def read(cls, path: Path) -> Self:
        """A head that was exported.

        Raises:
            InputError: the file is not an exported head.
        """
        try:
            values = parse_json(path.read_bytes())
            entries, digest = values["entries"], values["digest"]
            if type(entries) is not int or entries < 0 or (entries == 0) != (digest is None):
                raise ValueError(f"{entries!r} entries, the last one {digest!r}")
            return cls(entries, None if digest is None else Digest(digest))
        except (OSError, ValueError, TypeError, KeyError, InputError) as error:
            raise InputError(
                "A head is a file that 'lmeraser ledger --export-head FILE' wrote.", got=f"{path}: {error}"
            ) from error


def check(data: bytes, *, head: LedgerHead | None = None) -> list[Entry]:
    """The entries of a ledger's bytes, if they are a chain (rules 1 to 4) that contains ``head``.

    Raises:
        VerificationError: says where it breaks.
    """
    if data and not data.endswith(b"\n"):
        raise broken("its last line has no end")
    entries: list[Entry] = []
    for position, line in enumerate(data.splitlines(keepends=True)):
        try:
            entry = Entry.parse(line)
        except VerificationError as error:
            raise broken(f"entry {position}: {error.got}") from error
        if entry.position != position:  # rule 1
            raise broken(f"entry {position} says that it is entry {entry.position}")
        if entry.previous != (entries[-1].digest if entries else None):  # rule 2
            raise broken(f"entry {position} does not follow from the one before")
        entries.append(entry)
    if head is not None and head.entries:
        if len(entries) < head.entries:
            raise broken(f"{len(entries)} entries; there were {head.entries}: it was shortened")
        if entries[head.entries - 1].digest != head.digest:
            raise broken(f"entry {head.entries - 1} is not the one that was last when the head was exported")
    return entries


def broken(got: str) -> VerificationError:
    """The error of a ledger that does not hold."""
    return VerificationError(
        "A ledger is an unbroken chain of entries, none changed, moved or missing.",
        got=got,
        next_step="compare it with a copy or a head that was exported earlier",
    )
