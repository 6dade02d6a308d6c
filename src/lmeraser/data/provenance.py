"""Where a backbone comes from, and whether a private image was among what it was trained on (paper, Eq. 2).

A backbone that `pretraining` or `backbones.checkpoints` made is a folder with ``provenance.json``: source,
settings, versions, digests. A pre-trained one also has ``public.digests``: two SHA-256 digests of every public
image, of its file's bytes and of its decoded pixels. So a private image that is public as well is found, even if
it was saved again without loss. The file is what is left of a sorted set: 32 bytes a digest and nothing else.
Half as large as hexadecimal lines, and searched by bisection where it lies, so that a question costs no memory.

A digest that is not there says that the exact image was not used; a crop or a lossy copy is another image. Knows
nothing about torch, records or workspaces.
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

_NEXT = "restore the backbone's folder from where it came from; a damaged list would miss images"

Found = Literal["file", "pixels"]


def image_digests(data: bytes) -> tuple[bytes, bytes]:
    """SHA-256 of an image file's bytes, and of its decoded pixels.

    The second is over the width, the height and the RGB pixels; the two kinds share no input, so they can lie in
    one set.

    Raises:
        ImageError: the bytes are no image.
    """
    image = decode(data)
    shape = b"pixels %d %d:" % image.size
    return hashlib.sha256(data).digest(), hashlib.sha256(shape + image.tobytes()).digest()


def sorted_set(digests: bytes) -> bytes:
    """Digests one after the other in any order, as the content of a ``public.digests``: sorted, each once."""
    return np.unique(np.frombuffer(digests, dtype=f"S{_SIZE}")).tobytes()


def listed(path: Path, images: int) -> dict[str, Any]:
    """What a provenance says about a ``public.digests``."""
    return {"file": path.name, "images": images, "sha256": Digest.of_file(path)}


def provenance(folder: str | Path) -> Mapping[str, Any] | None:
    """What is known of a backbone's origin; None where ``folder`` is none, or a folder made elsewhere.

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
        raise CorruptError("A provenance is a JSON object.", got=f"{path}: {error}", next_step=_NEXT) from error
    return value


def public_images(folder: str | Path) -> PublicImages | None:
    """The list of a backbone's public images; None where it has none, so that nothing can be said about them.

    Raises:
        CorruptError: the list is missing or is not the one that the provenance names.
    """
    known = provenance(folder)
    told = known.get("public_records") if known is not None else None
    if told is None:
        return None
    path = Path(folder) / PUBLIC_DIGESTS
    found = Digest.of_file(path) if path.is_file() else "no such file"
    if not isinstance(told, dict) or told.get("sha256") != found:
        raise CorruptError(
            "The list of a backbone's public images is the one that its provenance names.",
            got=f"{path}: {found}",
            next_step=_NEXT,
        )
    return PublicImages(path)


class PublicImages:
    """An opened ``public.digests``: a sorted sequence of digests.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._length = path.stat().st_size // _SIZE
        with path.open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> bytes:
        return self._bytes[place * _SIZE : (place + 1) * _SIZE]

    def __contains__(self, digest: bytes) -> bool:
        place = bisect_left(self, digest)
        return place < len(self) and self[place] == digest

    def find(self, image: bytes) -> Found | None:
        """Whether an image file is public: the same file, the same pixels in another file, or neither (None).

        Raises:
            ImageError: it cannot be decoded.
        """
        file, pixels = image_digests(image)
        if file in self:
            return "file"
        return "pixels" if pixels in self else None
