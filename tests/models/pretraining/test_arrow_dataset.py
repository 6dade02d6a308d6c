"""Public images come back from one file, at any place, and a faulty source leaves none."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import png
from lmeraser.core.progress import silent
from lmeraser.data.provenance import PUBLIC_DIGESTS, PublicImages, image_digests
from lmeraser.data.sources import Example, Row, Source
from lmeraser.errors import SourceError
from lmeraser.models.pretraining.arrow_dataset import ArrowDataset, write_arrow_dataset

CLASSES = ("cat", "dog")


def image(number: int) -> bytes:
    return png(np.full((2, 2), number % 256)) + number.to_bytes(2, "big")  # what follows a PNG's end is no pixel


def source(rows: Iterator[Row] | list[Row]) -> Source:
    return Source("animals", CLASSES, None, rows)


def rows(count: int) -> list[Row]:
    return [Row(n, f"r{n}", None, CLASSES[n % 2] if n % 3 else n % 2, image(n)) for n in range(count)]


def written(folder: Path, opened: Source, *, skip_bad: bool = False) -> ArrowDataset:
    return write_arrow_dataset(opened, folder, skip_bad=skip_bad, progress=silent)


@pytest.mark.parametrize("count", [0, 1, 256, 257, 700])
def test_every_image_is_where_it_was(tmp_path: Path, count: int) -> None:
    images = written(tmp_path, source(rows(count)))
    assert len(images) == count
    for place in np.random.default_rng(0).permutation(count).tolist():
        assert images[place] == Example(place % 2, image(place))


def test_the_digests_of_all_images_are_listed(tmp_path: Path) -> None:
    written(tmp_path, source(rows(300)))
    public = PublicImages(tmp_path / PUBLIC_DIGESTS)
    assert len(public) == 300 + 256, "files, and pixels that some of them share"
    assert all(digest in public for number in range(300) for digest in image_digests(image(number)))
    assert hashlib.sha256(b"another").digest() not in public


def faulty() -> list[Row]:
    bad = {3: None, 299: b"no image"}
    return [Row(n, f"r{n}", None, "eel" if n == 7 else 0, bad.get(n, image(n))) for n in range(310)]


def test_every_fault_is_listed_and_nothing_is_left(tmp_path: Path) -> None:
    with pytest.raises(SourceError) as caught:
        written(tmp_path, source(faulty()))
    assert [fault.split(":")[0] for fault in caught.value.faults] == [f"row {n} (id 'r{n}')" for n in (3, 7, 299)]
    assert list(tmp_path.iterdir()) == []
    images = written(tmp_path, source(faulty()), skip_bad=True)
    assert [images[place].payload for place in range(len(images))] == [
        image(n) for n in range(310) if n not in (3, 7, 299)
    ]


def test_a_source_is_read_once(tmp_path: Path) -> None:
    def refusing() -> Iterator[Row]:
        raise AssertionError("it is there")
        yield

    written(tmp_path, source(rows(5)))
    assert len(written(tmp_path, source(refusing()))) == 5


def test_an_interrupted_reading_is_repeated(tmp_path: Path) -> None:
    def interrupted() -> Iterator[Row]:
        yield from rows(300)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        written(tmp_path, source(interrupted()))
    assert len(written(tmp_path, source(rows(20)))) == 20
