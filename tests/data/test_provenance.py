"""A private image that a backbone was trained on is found, and a list that is not whole is never believed."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import listing, png
from lmeraser.data.provenance import (
    PROVENANCE,
    PUBLIC_DIGESTS,
    PublicImages,
    image_digests,
    open_public_images,
    read_provenance,
    sort_digests,
)
from lmeraser.errors import CorruptError, ImageError

PIXELS = np.random.default_rng(0).integers(0, 256, (6, 4, 3), dtype=np.uint8)
DIGEST = st.binary(min_size=32, max_size=32) | st.sampled_from([bytes(32), bytes(31) + b"\1", b"\1" + bytes(31)])


@given(st.lists(DIGEST, min_size=1, max_size=60), st.lists(DIGEST, max_size=20))
def test_the_list_holds_exactly_its_digests(
    tmp_path_factory: pytest.TempPathFactory, held: list[bytes], others: list[bytes]
) -> None:
    path = tmp_path_factory.mktemp("list") / PUBLIC_DIGESTS
    path.write_bytes(sort_digests(b"".join(held)))
    found = PublicImages(path)
    assert len(found) == len(set(held))
    assert [found[position] for position in range(len(found))] == sorted(set(held))
    assert all(digest in found for digest in held)
    assert all((digest in found) == (digest in held) for digest in others)


def test_the_digests_are_of_the_bytes_and_of_the_pixels() -> None:
    data = png(PIXELS)
    file, pixels = image_digests(data)
    assert file == hashlib.sha256(data).digest()
    assert pixels == hashlib.sha256(b"pixels 4 6:" + PIXELS.tobytes()).digest()


def test_an_image_is_found_as_the_same_file_or_with_the_same_pixels(tmp_path: Path) -> None:
    public = open_public_images(listing(tmp_path, [png(PIXELS)]))
    assert public is not None
    saved_again, changed = io.BytesIO(), PIXELS.copy()
    Image.fromarray(PIXELS).save(saved_again, "BMP")
    changed[0, 0, 0] ^= 1
    assert public.find(png(PIXELS)) == "file"
    assert public.find(saved_again.getvalue()) == "pixels"
    assert public.find(png(changed)) is None
    assert public.find(png(PIXELS.reshape(4, 6, 3))) is None, "the same bytes in another shape"
    with pytest.raises(ImageError):
        public.find(b"no image")


def test_what_is_not_known_is_not_claimed(tmp_path: Path) -> None:
    assert read_provenance("efficientnet-lite0") is None
    assert open_public_images(tmp_path / "missing") is None
    (tmp_path / PROVENANCE).write_text('{"made_by": "lmeraser convert"}')
    assert open_public_images(tmp_path) is None


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_list_is_refused(tmp_path: Path, damage: str) -> None:
    path = listing(tmp_path, [png(PIXELS)]) / PUBLIC_DIGESTS
    data = path.read_bytes()
    path.unlink()
    if damage != "missing":
        path.write_bytes(data[:32] if damage == "cut" else bytes([data[0] ^ 1]) + data[1:])
    with pytest.raises(CorruptError, match="restore"):
        open_public_images(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", '{"a": 1, "a": 2}', "\udcff", '{"public_records": 3}'])
def test_a_damaged_provenance_is_refused(tmp_path: Path, text: str) -> None:
    listing(tmp_path, [png(PIXELS)])
    (tmp_path / PROVENANCE).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(CorruptError):
        open_public_images(tmp_path)
