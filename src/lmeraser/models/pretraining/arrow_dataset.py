"""The public images of a pre-training in one file, so that a source is read once and then in any order.

A source is a stream; training wants its images shuffled anew in every epoch, and a stopped training wants them
again. They are written into an Arrow file that is mapped into memory, with the image bytes as given, beside the
list of their digests (`public`). This is for public images only: private ones are sealed in a workspace
(`records`). Knows nothing about networks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lmeraser.core.atomic_files import TEMPORARY, flush_folder, storage_errors, write_atomic
from lmeraser.core.progress import Progress, counted
from lmeraser.data.provenance import PUBLIC_DIGESTS, image_digests, sorted_set
from lmeraser.data.sources import Example, Source, check, chunks
from lmeraser.errors import SourceError

_IMAGES = "images.arrow"
_TOGETHER = 256  # images of one Arrow batch
_SCHEMA = pa.schema([("image", pa.large_binary()), ("label", pa.int32())])


def write_arrow_dataset(source: Source, folder: Path, *, skip_bad: bool, progress: Progress) -> ArrowDataset:
    """Write a source's images and their digests into ``folder``, unless they are there.

    Args:
        source: labelled images; it names its classes.
        folder: where to; it exists.
        skip_bad: leave faulty rows out, instead of refusing the source.
        progress: told the number of rows read.

    Raises:
        SourceError: faults, all of them listed.
        StorageError: the disk refused.
    """
    path = folder / _IMAGES
    if not path.exists():
        faults: list[str] = []
        digests, temporary = bytearray(), folder / f"{TEMPORARY}{_IMAGES}"
        with storage_errors(folder):
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
                for chunk in chunks(_usable(source, faults, progress), _TOGETHER):
                    digests += b"".join(digest for example in chunk for digest in image_digests(example.image))
                    columns = [[example.image for example in chunk], [example.label for example in chunk]]
                    arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
                    writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
            if faults and not skip_bad:
                temporary.unlink()
                raise SourceError(
                    f"Every row of a source is a decodable image with a known label ({source.name}).",
                    faults=faults,
                    next_step="correct the source, or leave these rows out with --skip-bad",
                )
            write_atomic(folder / PUBLIC_DIGESTS, sorted_set(bytes(digests)))
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)  # last: where it is, the digests are
            flush_folder(folder)
    return ArrowDataset(folder)


def _usable(source: Source, faults: list[str], progress: Progress) -> Iterator[Example]:
    for row in counted(source.rows, "reading public images", source.length, progress):
        example = check(row, source.classes, source.classes)
        if isinstance(example, str):
            faults.append(f"row {row.position} (id {row.id!r}): {example}")
        else:
            yield example


class ArrowDataset:
    """Written images, read where they lie.

    Args:
        folder: where `write_arrow_dataset` wrote them.
    """

    def __init__(self, folder: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(folder / _IMAGES)))
        batches = self._file.num_record_batches
        last: int = self._file.get_batch(batches - 1).num_rows if batches else 0
        self._length: int = max(0, batches - 1) * _TOGETHER + last

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, place: int) -> Example:
        batch = self._file.get_batch(place // _TOGETHER)
        image, label = (batch.column(name)[place % _TOGETHER].as_py() for name in (0, 1))
        return Example(label, image)
