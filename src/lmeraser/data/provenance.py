"""Provenance of a backbone, and whether it was trained on a given private image (paper, Eq. 2).

A backbone made by `models.pretraining` or `models.backbones.checkpoints` is a folder with ``provenance.json``:
source, settings, versions, digests. A pre-trained one also has ``public.digests``: two SHA-256 digests of every
public image, of its file's bytes and of its decoded pixels. A private image that is public as well is therefore
found even if it was saved again without loss. The file holds the sorted digests, 32 bytes each and nothing else:
half as large as lines of hexadecimal digits, and searched by bisection in a memory map, so that a look-up takes no
memory.

What it does not cover: a missing digest only means that this exact image was not used; a crop or a lossy copy is
another image. Must not depend on torch.
"""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np

from lmeraser.core.atomic_files import read_file
from lmeraser.core.digests import Digest, parse_json
from lmeraser.data.images import decode
from lmeraser.errors import CorruptError

PROVENANCE = "provenance.json"
PUBLIC_DIGESTS = "public.digests"
_SIZE = 32  # bytes of a digest

_NEXT_STEP = "restore the backbone's folder from its origin; a damaged list would miss images"

PublicMatch = Literal["file", "pixels"]  # the same file, or the same pixels in another file


def image_digests(data: bytes) -> tuple[bytes, bytes]:
    """SHA-256 of an image file's bytes, and of its decoded pixels.

    The second covers the width, the height and the RGB pixels. No input gives the same digest of both kinds, so
    both can be kept in one set.

    Raises:
        ImageError: the bytes are not an image.
    """
    image = decode(data)
    shape = b"pixels %d %d:" % image.size
    return hashlib.sha256(data).digest(), hashlib.sha256(shape + image.tobytes()).digest()


def sort_digests(digests: bytes) -> bytes:
    """The content of a ``public.digests``: concatenated digests, sorted, each once."""
    return np.unique(np.frombuffer(digests, dtype=f"S{_SIZE}")).tobytes()


def describe_public_digests(path: Path, images: int) -> dict[str, Any]:
    """The description of a ``public.digests`` in a provenance file."""
    return {"file": path.name, "images": images, "sha256": Digest.of_file(path)}


def read_provenance(folder: str | Path) -> Mapping[str, Any] | None:
    """The provenance of a backbone; None if ``folder`` is not a folder or has no provenance file.

    Raises:
        CorruptError: the file is damaged.
    """
    path = Path(folder) / PROVENANCE
    if not path.is_file():
        return None
    try:
        value: Any = parse_json(read_file(path))
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise CorruptError("Malformed provenance", got=f"{path}: {error}", next_step=_NEXT_STEP) from error
    return value


def open_public_images(folder: str | Path) -> PublicImages | None:
    """The list of a backbone's public images; None if it has no list, so that they are unknown.

    Raises:
        CorruptError: the list is missing, or its digest is not the one in the provenance.
    """
    provenance = read_provenance(folder)
    description = provenance.get("public_records") if provenance is not None else None
    if description is None:
        return None
    path = Path(folder) / PUBLIC_DIGESTS
    found = Digest.of_file(path) if path.is_file() else "no such file"
    expected = description.get("sha256") if isinstance(description, dict) else None
    if expected != found:
        raise CorruptError(
            "The list of the backbone's public images does not match its provenance",
            got=f"{path}: {found} (expected {expected})",
            next_step=_NEXT_STEP,
        )
    return PublicImages(path)


class PublicImages:
    """An open ``public.digests``: a sorted sequence of digests.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._length = path.stat().st_size // _SIZE
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, position: int) -> bytes:
        return self._bytes[position * _SIZE : (position + 1) * _SIZE]

    def __contains__(self, digest: bytes) -> bool:
        position = bisect_left(self, digest)
        return position < len(self) and self[position] == digest

    def find(self, image: bytes) -> PublicMatch | None:
        """How an image matches a public one: the same file, the same pixels in another file, or not at all (None).

        Raises:
            ImageError: it cannot be decoded.
        """
        file, pixels = image_digests(image)
        if file in self:
            return "file"
        return "pixels" if pixels in self else None
