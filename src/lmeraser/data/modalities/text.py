"""Texts as payloads: UTF-8, in NFC, with newlines as line feeds.

Rules:
1. a text is in NFC, so that composed and decomposed accents are one text; newlines are unified; a byte order mark
   at the start is dropped. Nothing else is changed: white space around it, emoji and directions of writing stay;
2. a text of white space alone is none; NUL and lone surrogates are no characters of a text;
3. a text has at most `LARGEST_TEXT` bytes, and at most 256 combining marks in a row, because normalising a pile of
   them takes time with the square of its height.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lmeraser.config.schema import Config
from lmeraser.data.canonical_names import is_missing
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.errors import InputError

LARGEST_TEXT = 1 << 20  # bytes of UTF-8

COLUMNS = ("text", "sentence", "content", "body", "utterance", "question", "message", "document", "review")

_BYTE_ORDER_MARK = "\ufeff"
_MOST_MARKS = 256  # combining marks in a row; 30 suffice for all writing (UAX 15, stream-safe text)
_ABOVE_LATIN = re.compile(rf"[\u0300-\U0010ffff]{{{_MOST_MARKS + 1},}}")  # all combining marks are there
_SURROGATES = re.compile("[\ud800-\udfff]")
_WORDS = (
    "a",
    "balance",
    "call",
    "card",
    "payment",
    "please",
    "refund",
    "the",
    "transfer",
    "when",
    "why",
    "yesterday",
)
_SHOWN = 120  # characters of a text in one line


def text_payload(value: Any) -> bytes:
    """The payload of a text.

    Raises:
        ValueError: it is no text, or one that violates a rule; says which.
    """
    if is_missing(value):
        raise ValueError("the text is empty" if value == "" else "no text")
    if not isinstance(value, str):
        raise ValueError(f"a value of type {type(value).__name__} instead of a text")
    if len(value) > 2 * LARGEST_TEXT:  # before anything is copied
        raise ValueError(_too_long(len(value), "characters"))
    text = value.lstrip(_BYTE_ORDER_MARK).replace("\r\n", "\n").replace("\r", "\n")
    if (place := text.find("\0")) >= 0:
        raise ValueError(f"the text has a NUL character {_place(text, place)}")
    if surrogate := _SURROGATES.search(text):
        raise ValueError(f"the text has half of a surrogate pair {_place(text, surrogate.start())}")
    if not text.isascii():
        _refuse_piles(text)
        text = unicodedata.normalize("NFC", text)
    if not text.strip():
        raise ValueError("the text is empty")
    payload = text.encode()
    if len(payload) > LARGEST_TEXT:
        raise ValueError(_too_long(len(payload), "bytes"))
    return payload


def _refuse_piles(text: str) -> None:
    """Refuse text whose normalisation would take time with the square of its length.

    Raises:
        ValueError: it has more combining marks in a row than any writing; says where.
    """
    for run in _ABOVE_LATIN.finditer(text):
        marks = 0
        for place, character in enumerate(run.group(), start=run.start()):
            marks = marks + 1 if unicodedata.combining(character) else 0
            if marks > _MOST_MARKS:
                raise ValueError(
                    f"the text has more than {_MOST_MARKS} combining marks in a row {_place(text, place)}"
                )


def _place(text: str, index: int) -> str:
    line = text.count("\n", 0, index) + 1
    return f"at line {line}, character {index - text.rfind(chr(10), 0, index)}"


def check_text(payload: bytes) -> None:
    """Refuse bytes that are not the payload of a text.

    Raises:
        ValueError: they are none; says why.
    """
    if len(payload) > LARGEST_TEXT:
        raise ValueError(_too_long(len(payload), "bytes"))
    try:
        text = payload.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 at byte {error.start}") from error
    if text_payload(text) != payload:
        raise ValueError("not in NFC, or with other newlines than line feeds")


def text_of(payload: bytes) -> str:
    """The text of a payload."""
    return payload.decode()


def read_text(value: Any) -> str:
    """A text to classify: a string, the bytes of a payload, or the path of a text file.

    Raises:
        InputError: it is none, or violates a rule.
    """
    try:
        if isinstance(value, bytes | bytearray | memoryview):
            value = bytes(value).decode()
        elif isinstance(value, os.PathLike):
            path = Path(value)
            if path.stat().st_size > 4 * LARGEST_TEXT:
                raise ValueError(_too_long(path.stat().st_size, "bytes"))
            value = path.read_text(encoding="utf-8")
        return text_payload(value).decode()
    except (ValueError, OSError) as error:
        reason = f"not UTF-8 at byte {error.start}" if isinstance(error, UnicodeDecodeError) else str(error)
        raise InputError("Not a text", got=reason, next_step="give a text that is not empty, as UTF-8") from error


def _names_a_file(text: str) -> bool:
    try:
        return bool(Path(text).suffix) and Path(text).is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False


def _too_long(size: int, unit: str) -> str:
    return f"a text of {size} {unit} (the limit is {LARGEST_TEXT} bytes)"


class TextFormat(PayloadFormat):
    """Texts."""

    noun = "text"
    columns = COLUMNS
    suffix = ".txt"
    wire_field = "texts"
    wire_bytes = 6 * LARGEST_TEXT  # each character as an escape

    def payload(self, value: Any) -> bytes:
        """The payload of a string. Raises as `text_payload`."""
        return text_payload(value)

    def check(self, payload: bytes) -> None:
        """Refuse bytes that are no text. Raises as `check_text`."""
        check_text(payload)

    def noise(self, count: int) -> list[bytes]:
        """Texts of random words, of a few to some hundred of them."""
        generator = np.random.default_rng(0)
        return [" ".join(generator.choice(_WORDS, size=4 << (number % 5))).encode() for number in range(count)]

    def queries(self, arguments: Sequence[str], passed_over: Counter[str]) -> list[tuple[str, Any]]:
        """The arguments are the texts.

        Raises:
            InputError: one is no text, or the name of a file with a suffix: its content was meant.
        """
        for argument in arguments:
            if _names_a_file(argument):
                raise InputError(
                    "A text is the name of a file",
                    got=argument,
                    next_step='give the text itself, for instance "$(cat FILE)"',
                )
        return [(self.describe(read_text(argument).encode()), argument) for argument in arguments]

    def describe(self, payload: bytes) -> str:
        """The beginning of the text."""
        text = " ".join(payload[: 8 * _SHOWN].decode(errors="ignore").split())
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"

    def of_file(self, data: bytes) -> bytes | None:
        """The text of a file in UTF-8."""
        try:
            return text_payload(data.decode())
        except ValueError:
            return None

    def of_json(self, value: Any) -> bytes:
        """The payload of a JSON string. Raises as `text_payload`."""
        return text_payload(value)

    def json_schema(self) -> dict[str, Any]:
        """A string."""
        return {
            "type": "string",
            "minLength": 1,
            "maxLength": LARGEST_TEXT,
            "description": f"At most {LARGEST_TEXT} bytes of UTF-8, and not of white space alone.",
            "examples": ["My card was charged twice."],
        }

    def encodings(self, payload: bytes) -> Mapping[str, bytes]:
        """The text in UTF-8 and in UTF-16, as other programs may keep it."""
        text = payload.decode()
        return {"UTF-8": payload, "UTF-16 LE": text.encode("utf-16-le"), "UTF-16 BE": text.encode("utf-16-be")}


def open_format(config: Config) -> TextFormat:
    """Texts have no settings."""
    return TextFormat()
