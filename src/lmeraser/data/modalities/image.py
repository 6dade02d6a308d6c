"""Images as payloads: the bytes of an image file, exactly as given (`data.images` decodes them)."""

from __future__ import annotations

from typing import Any

from lmeraser.config.schema import Config
from lmeraser.data.images import decode, read_header
from lmeraser.data.modalities.base import PayloadFormat
from lmeraser.errors import ImageError


class ImageFormat(PayloadFormat):
    """Image files."""

    noun = "image"
    columns = ("image",)
    suffix = ""
    media_type = "application/octet-stream"
    in_files = True

    def payload(self, value: Any) -> bytes:
        """The bytes of an image file."""
        if not isinstance(value, bytes | bytearray | memoryview):
            raise ValueError(f"a value of type {type(value).__name__} instead of an image file's bytes")
        return bytes(value)

    def check(self, payload: bytes) -> None:
        """Refuse bytes that are no image."""
        try:
            decode(payload)
        except ImageError as error:
            raise ValueError(error.summary) from error

    def describe(self, payload: bytes) -> str:
        """Format and size."""
        try:
            header = read_header(payload)
        except ImageError as error:
            return error.summary
        return f"{header.format}, {header.width} x {header.height} px, {len(payload)} bytes"


def open_format(config: Config) -> ImageFormat:
    """Image files have no settings."""
    return ImageFormat()
