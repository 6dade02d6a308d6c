"""Texts as payloads: UTF-8, in NFC, with newlines as line feeds.

Rules:
1. a text is in NFC, so that composed and decomposed accents are one text; newlines are unified; a byte order mark at
   the start is dropped. Nothing else is changed: white space around it, emoji and directions of writing stay;
2. a text of white space alone is none; NUL and lone surrogates are no characters of a text;
3. a text has at most `LARGEST_TEXT` bytes.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmeraser.config.schema import Config
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.errors import InputError

LARGEST_TEXT = 1 << 20  # bytes of UTF-8

COLUMNS = ("text", "sentence", "content", "body", "utterance", "question", "message", "document", "review")

_SHOWN = 120  # characters of a text in one line


def text_payload(value: Any) -> bytes:
    """The payload of a text.

    Raises:
        ValueError: it is no text, or one that violates a rule; says which.
    """
    if not isinstance(value, str):
        raise ValueError(f"a value of type {type(value).__name__} instead of a text")
    if len(value) > LARGEST_TEXT:  # before anything is copied
        raise ValueError(_too_long(len(value), "characters"))
    text = value.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    text = unicodedata.normalize("NFC", text)
    if not text.strip():
        raise ValueError("the text is empty")
    if (place := text.find("\0")) >= 0:
        raise ValueError(f"the text has a NUL character at position {place}")
    try:
        payload = text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"the text has half of a surrogate pair at position {error.start}") from error
    if len(payload) > LARGEST_TEXT:
        raise ValueError(_too_long(len(payload), "bytes"))
    return payload


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


def _too_long(size: int, unit: str) -> str:
    return f"a text of {size} {unit} (the limit is {LARGEST_TEXT} bytes)"


class TextFormat(PayloadFormat):
    """Texts."""

    noun = "text"
    columns = COLUMNS
    suffix = ".txt"
    media_type = "text/plain; charset=utf-8"

    def payload(self, value: Any) -> bytes:
        """The payload of a string. Raises as `text_payload`."""
        return text_payload(value)

    def check(self, payload: bytes) -> None:
        """Refuse bytes that are no text. Raises as `check_text`."""
        check_text(payload)

    def describe(self, payload: bytes) -> str:
        """The beginning of the text."""
        text = " ".join(payload[: 8 * _SHOWN].decode(errors="ignore").split())
        shown = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
        return shown if len(shown) <= _SHOWN else f"{shown[: _SHOWN - 1]}\N{HORIZONTAL ELLIPSIS}"

    def probes(self, payload: bytes) -> Sequence[bytes]:
        """The text in UTF-8 and in UTF-16, as other programs may keep it."""
        text = payload.decode()
        return (payload, text.encode("utf-16-le"), text.encode("utf-16-be"))


def open_format(config: Config) -> TextFormat:
    """Texts have no settings."""
    return TextFormat()
