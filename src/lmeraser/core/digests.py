"""Digests and canonical JSON: how lmeraser identifies content.

Two things are the same if their digests are the same. A plain digest identifies public content (tensors,
settings); a keyed digest identifies private content (which records are in a cluster), so that nobody without the
workspace's secret can test a guess against it. Canonical JSON follows RFC 8785.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from pathlib import Path
from typing import Any, NoReturn, Self

import rfc8785
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lmeraser.errors import InputError

_PATTERN = re.compile(r"sha256:[0-9a-f]{64}")
_MOST = 2**53  # below it, every whole number is a number of JSON
_SEQUENCES = (list, tuple)
_PLAIN_JSON = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False)


class Digest(str):
    """A SHA-256 digest, written ``sha256:`` and 64 hexadecimal digits.

    >>> Digest.of(b"abc").hex[:8]
    'ba7816bf'
    """

    __slots__ = ()

    def __new__(cls, text: str) -> Self:
        """Parse ``text``; raises `InputError` unless it is a well-formed digest."""
        if not _PATTERN.fullmatch(text):
            raise InputError(
                "Malformed digest",
                got=repr(text),
                next_step="give 'sha256:' followed by 64 lower-case hexadecimal digits",
            )
        return super().__new__(cls, text)

    @classmethod
    def of(cls, *parts: bytes | memoryview) -> Self:
        """Digest of bytes, or of several parts as if they were one."""
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return cls("sha256:" + digest.hexdigest())

    @classmethod
    def of_file(cls, path: Path) -> Self:
        """Digest of a file's bytes, read in pieces.

        Raises:
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            return cls("sha256:" + hashlib.file_digest(file, "sha256").hexdigest())

    @classmethod
    def of_json(cls, value: Any) -> Self:
        """Digest of the canonical JSON of ``value``."""
        return cls.of(canonical_json(value))

    @property
    def hex(self) -> str:
        """The 64 hexadecimal digits."""
        return self.removeprefix("sha256:")

    @property
    def short(self) -> str:
        """The first 12 hexadecimal digits, for people."""
        return self.hex[:12]

    @classmethod
    def __get_pydantic_core_schema__(cls, source: type[Any], handler: GetCoreSchemaHandler) -> CoreSchema:
        text = core_schema.str_schema(pattern=f"^{_PATTERN.pattern}$")
        return core_schema.no_info_after_validator_function(cls, text)


def canonical_json(value: Any) -> bytes:
    """``value`` as canonical JSON (RFC 8785): equal values give equal bytes.

    Raises:
        ValueError: there is no such JSON, or it would be nested too deeply.
    """
    try:
        if _is_plain(value) and (text := _PLAIN_JSON.encode(value)).isascii():
            return text.encode()
        return rfc8785.dumps(value)
    except RecursionError as error:  # what `parse_json` just took, for instance in a ledger of somebody else's
        raise ValueError("nested too deeply") from error


def _is_plain(value: Any) -> bool:
    """Whether Python's own JSON is canonical if it is ASCII: names are texts, and numbers are whole.

    It is written in C. Fractions it writes in another way, and other names it puts in another order.
    """
    if isinstance(value, dict):
        for name, each in value.items():  # loops: as generators they would take longer, in every certificate
            if not isinstance(name, str) or not (isinstance(each, str) or _is_plain(each)):
                return False
        return True
    if isinstance(value, _SEQUENCES):
        for each in value:  # noqa: SIM110
            if not (isinstance(each, str) or _is_plain(each)):
                return False
        return True
    return value is None or isinstance(value, str) or (isinstance(value, int) and -_MOST < value < _MOST)


def parse_json(data: bytes | str) -> Any:
    """Parse JSON from an untrusted source; repeated names in an object and extreme nesting are refused.

    Parsers disagree on which of two equal names counts, so what one of them verified might not be what another
    reads.

    Raises:
        ValueError: the data is not such JSON.
    """
    try:
        return json.loads(data, object_pairs_hook=_unique_names, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError(f"repeated name among {', '.join(name for name, _ in pairs)}")
    return values


def keyed_digest(secret: bytes, value: Any) -> Digest:
    """HMAC-SHA-256 of the canonical JSON of ``value`` under ``secret``."""
    return Digest("sha256:" + hmac.digest(secret, canonical_json(value), "sha256").hex())
