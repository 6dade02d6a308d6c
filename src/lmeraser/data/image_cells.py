"""Images in the cells of tables: the bytes of an image file, its path, or an image in memory."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmeraser.data.image_lists import PATH_COLUMNS, resolve_path
from lmeraser.data.modalities.image import ImageFormat
from lmeraser.data.parquet_files import LARGEST_FILE


class ImageCells(ImageFormat):
    """Images in a table that the caller has made, so that the files that its cells name are the caller's, too."""

    columns: tuple[str, ...] = ("image", *(name for name in PATH_COLUMNS if name != "image"))

    def path_of(self, value: Any) -> str | None:
        """The path of the image file, where the cell names one."""
        return path_and_bytes(value)[0] or None

    def payload(self, value: Any) -> bytes:
        """The bytes of an image file, also of one that is named by its path or made of an image in memory.

        Raises:
            ValueError: there is no such file, it is too large, or it is no image; says so.
        """
        path, data = path_and_bytes(value)
        if data is None and path:
            file = resolve_path(Path(), path, anywhere=True)
            if isinstance(file, str):
                raise ValueError(file)
            size = file.stat().st_size
            data = file.read_bytes() if size <= LARGEST_FILE else None
        else:
            data = super().payload(value if data is None else data)
            size = len(data)
        if data is None or size > LARGEST_FILE:
            raise ValueError(f"an image of {size >> 20} MiB (the limit is {LARGEST_FILE >> 20} MiB)")
        return data


def path_and_bytes(value: Any) -> tuple[str | None, bytes | None]:
    """Path and bytes of an image cell: a struct as ``datasets`` stores it, a path, or bare bytes."""
    if isinstance(value, bytes):
        return None, value
    if isinstance(value, (str, os.PathLike)):
        return os.fspath(value), None
    if not isinstance(value, Mapping):
        return None, None
    path, data = value.get("path"), value.get("bytes")
    return (path if isinstance(path, str) else None), (data if isinstance(data, bytes) else None)
