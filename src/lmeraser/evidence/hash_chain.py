"""The hash chain of a ledger: its entries, and the rules by which a sequence of entries is unbroken.

Each line is one entry as canonical JSON (RFC 8785). Rules:
1. positions count from 0 without gaps;
2. ``previous`` is the digest of the entry before, null in the first entry;
3. ``digest`` covers every other field;
4. the bytes of a line are those that writing the parsed entry gives.

A chain that was cut at its end is still a chain: a `LedgerHead` exported earlier detects it. Pure functions, and
all that an outsider needs to check a ledger. What entries mean is defined in `entries`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, Self

from lmeraser.core.digests import Digest, canonical_json, parse_json
from lmeraser.core.time import to_text
from lmeraser.errors import InputError, VerificationError
from lmeraser.evidence.dsse import Envelope, PublicKey, SigningKey

HEAD_TYPE = "application/vnd.lmeraser.ledger-head+json"


@dataclass(frozen=True)
class Entry:
    """One entry.

    Attributes:
        position: 0, 1, 2, ...
        previous: digest of the entry before.
        time: when it was noted, RFC 3339 in UTC.
        kind: of the event that it records (`entries`).
        body: the fields of the event.
    """

    position: int
    previous: Digest | None
    time: str
    kind: str
    body: Mapping[str, Any]

    def _covered_fields(self) -> dict[str, Any]:
        head = {"position": self.position, "previous": self.previous, "time": self.time, "kind": self.kind}
        return {**head, "body": self.body}

    @cached_property
    def digest(self) -> Digest:
        """Digest of all other fields, computed once: an entry does not change."""
        return Digest.of_json(self._covered_fields())

    def line(self) -> bytes:
        """The entry's line, line end included."""
        return canonical_json({**self._covered_fields(), "digest": self.digest}) + b"\n"

    @classmethod
    def parse(cls, line: bytes) -> Self:
        """Parse a line.

        Raises:
            VerificationError: the line is not what writing an entry gives (rules 3 and 4).
        """
        try:
            values = parse_json(line)
            claimed_digest = values.pop("digest")
            previous = values.pop("previous")
            entry = cls(previous=None if previous is None else Digest(previous), **values)
            typed = type(entry.position) is int and isinstance(entry.time, str) and isinstance(entry.kind, str)
            well_formed = typed and isinstance(entry.body, dict)
            valid = well_formed and entry.line() == line and claimed_digest == entry.digest
        except (ValueError, TypeError, AttributeError, KeyError, InputError) as error:
            raise broken(f"not an entry: {line[:60]!r}") from error
        if not valid:
            raise broken(f"the digest of an entry does not cover it: {line[:60]!r}")
        return entry


@dataclass(frozen=True)
class LedgerHead:
    """The end of a ledger, now or at some time in the past.

    Attributes:
        entries: number of entries.
        digest: of the last entry; None if there is none.
    """

    entries: int
    digest: Digest | None

    def to_json(self) -> dict[str, object]:
        """The head as JSON values."""
        return {"entries": self.entries, "digest": self.digest}

    def sign(self, key: SigningKey, *, now: datetime) -> Envelope:
        """The head as it is exported: with the time, and signed, so that the workspace's owner stands by it."""
        return key.sign(canonical_json({**self.to_json(), "time": to_text(now)}), payload_type=HEAD_TYPE)

    @classmethod
    def of_json(cls, values: Any) -> Self:
        """From what `to_json` gave; other fields are ignored.

        Raises:
            ValueError: it is something else.
        """
        try:
            entries, digest = values["entries"], values["digest"]
            if type(entries) is not int or entries < 0 or (entries == 0) != (digest is None):
                raise ValueError(f"{entries!r} entries, the last one {digest!r}")
            return cls(entries, None if digest is None else Digest(digest))
        except (TypeError, KeyError, InputError) as error:
            raise ValueError(f"no head: {error}") from error

    @classmethod
    def read(cls, path: Path, *, key: PublicKey | None = None) -> Self:
        """Read an exported head; those of before 0.2 have no signature.

        Args:
            path: of the file.
            key: verifies the signature, where there is one; None: whoever kept the file vouches for it.

        Raises:
            InputError: the file is not an exported head.
            VerificationError: another key signed it.
        """
        try:
            data = path.read_bytes()
            values = parse_json(data)
            if "payloadType" in values:
                envelope = Envelope.parse(data)
                values = parse_json(key.verify(envelope, payload_type=HEAD_TYPE) if key else envelope.payload)
            return cls.of_json(values)
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                "Not an exported head of a ledger",
                got=f"{path}: {error}",
                next_step="give a file that 'lmeraser ledger --export-head FILE' wrote",
            ) from error


def check(data: bytes, *, head: LedgerHead | None = None) -> list[Entry]:
    """Parse a ledger and verify that it is a chain (rules 1 to 4) that contains ``head``.

    Args:
        data: bytes of the ledger.
        head: exported earlier from the same ledger.

    Returns:
        The entries.

    Raises:
        VerificationError: the chain is broken; says where.
    """
    if data and not data.endswith(b"\n"):
        raise broken("the last line has no line end")
    entries: list[Entry] = []
    for position, line in enumerate(data.splitlines(keepends=True)):
        try:
            entry = Entry.parse(line)
        except VerificationError as error:
            raise broken(f"entry {position}: {error.got}") from error
        if entry.position != position:  # rule 1
            raise broken(f"entry {position} has position {entry.position}")
        if entry.previous != (entries[-1].digest if entries else None):  # rule 2
            raise broken(f"entry {position} does not follow from the entry before it")
        entries.append(entry)
    if head is not None and head.entries:
        if len(entries) < head.entries:
            raise broken(f"{len(entries)} entries instead of at least {head.entries}: it was shortened")
        if entries[head.entries - 1].digest != head.digest:
            raise broken(f"entry {head.entries - 1} is not the last entry of the exported head")
    return entries


def broken(got: str) -> VerificationError:
    """The error for a ledger that fails verification.

    Args:
        got: what is wrong with it, and where.
    """
    return VerificationError(
        "Ledger verification failed",
        got=got,
        next_step="compare the ledger with a copy or a head that was exported earlier",
    )
