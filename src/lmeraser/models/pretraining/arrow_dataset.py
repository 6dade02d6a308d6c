"""A data set of public images in one Arrow file, for random access during a pre-training.

A source is a stream, but training reads the images in a new order in every epoch, and reads them again when a
stopped training continues. So they are written once into an Arrow file that is mapped into memory, with their
bytes as given, and beside it the list of their digests (`data.provenance`). Public images only: a workspace
encrypts private ones. Knows nothing about networks.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from lmeraser.core.atomic_files import SHARED, TEMPORARY, flush_folder, storage_errors, write_atomic
from lmeraser.core.progress import Progress, track
from lmeraser.data.provenance import PUBLIC_DIGESTS, image_digests, sort_digests
from lmeraser.data.rows import describe_fault
from lmeraser.data.sources import Example, Source, check_row, chunks
from lmeraser.errors import SourceError

_IMAGES = "images.arrow"
_BATCH = 256  # images in one Arrow batch
_SCHEMA = pa.schema([("image", pa.large_binary()), ("label", pa.int32())])


def write_arrow_dataset(source: Source, folder: Path, *, skip_bad: bool, progress: Progress) -> ArrowDataset:
    """Write the images of a source and their digests into a folder, unless they are there already.

    Args:
        source: labelled images and the names of their classes.
        folder: existing folder.
        skip_bad: leave faulty rows out, instead of refusing the source.
        progress: reports the number of rows read.

    Returns:
        The written data set.

    Raises:
        SourceError: faulty rows, all of them listed; nothing is written.
        StorageError: the disk refused.
    """
    path = folder / _IMAGES
    if not path.exists():
        faults: list[str] = []
        digests = bytearray()
        temporary = folder / f"{TEMPORARY}{_IMAGES}"
        with storage_errors(folder):
            with pa.OSFile(str(temporary), "wb") as sink, pa.ipc.new_file(sink, _SCHEMA) as writer:
                for chunk in chunks(_valid_examples(source, faults, progress), _BATCH):
                    digests += b"".join(digest for example in chunk for digest in image_digests(example.payload))
                    columns = [[example.payload for example in chunk], [example.label for example in chunk]]
                    arrays = [pa.array(c, f.type) for c, f in zip(columns, _SCHEMA, strict=True)]
                    writer.write_batch(pa.record_batch(arrays, schema=_SCHEMA))
            if faults and not skip_bad:
                temporary.unlink()
                raise SourceError(
                    "The source has faulty rows",
                    faults=faults,
                    next_step=f"correct {source.name}, or leave these rows out with --skip-bad",
                )
            write_atomic(folder / PUBLIC_DIGESTS, sort_digests(bytes(digests)), mode=SHARED)
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
            temporary.replace(path)  # last: where this file exists, so do the digests
            flush_folder(folder)
    return ArrowDataset(folder)


def _valid_examples(source: Source, faults: list[str], progress: Progress) -> Iterator[Example]:
    """Examples of the valid rows of a source; appends the faults of the others to ``faults``."""
    for row in track(source.rows, "reading public images", source.length, progress):
        example = check_row(row, source.classes, source.classes)
        if isinstance(example, str):
            faults.append(describe_fault(row, example))
        else:
            yield example


class ArrowDataset:
    """Random access to the images that `write_arrow_dataset` wrote.

    Args:
        folder: the folder that they are in.
    """

    def __init__(self, folder: Path) -> None:
        self._file = pa.ipc.open_file(pa.memory_map(str(folder / _IMAGES)))
        batches = self._file.num_record_batches
        last: int = self._file.get_batch(batches - 1).num_rows if batches else 0
        self._length: int = max(0, batches - 1) * _BATCH + last

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> Example:
        batch = self._file.get_batch(index // _BATCH)
        image, label = (batch.column(name)[index % _BATCH].as_py() for name in ("image", "label"))
        return Example(label, image)
