"""The data sets of the paper's study (Table I): where they come from, and which rows a study uses.

A data set is read from ``FOLDER/NAME/train.parquet`` and ``test.parquet`` if these exist, otherwise from the
``datasets`` hub. The first rows are used, except where the rows of a subject are near-duplicates: there, all rows
of a subset of the subjects are used.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser.data.sources import Columns
from lmeraser.errors import InputError

if TYPE_CHECKING:
    from datasets import IterableDataset

SUBJECT = "subject"


@dataclass(frozen=True)
class DataSet:
    """A labelled image data set.

    Attributes:
        name: name of its folder.
        title: name in tables.
        hub: name and configuration on the hub; None: not available there in a usable form.
        images: numbers of training and test images in the published data set.
        subject: columns that together identify the subject of an image; empty: unknown.
    """

    name: str
    title: str
    hub: tuple[str, ...] | None
    images: tuple[int, int]
    subject: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        """The column names of the rows that `rows` yields."""
        return Columns(positions=True, subject=SUBJECT if self.subject else None)


DATA_SETS = {
    data.name: data
    for data in (
        DataSet("cifar10", "CIFAR-10", ("uoft-cs/cifar10",), (50_000, 10_000)),
        DataSet("cifar100", "CIFAR-100", ("uoft-cs/cifar100",), (50_000, 10_000)),
        DataSet("svhn", "SVHN", ("ufldl-stanford/svhn", "cropped_digits"), (73_257, 26_032)),
        DataSet("gtsrb", "GTSRB", None, (39_209, 12_630), subject=("label", "track")),
    )
}
_HUB_COLUMNS = {"img": "image", "fine_label": "label"}


def available(data: DataSet, root: Path | None, *, hub: bool = False) -> bool:
    """Whether the files are in ``root`` or, with ``hub``, the data set is on the hub."""
    here = root is not None and all(_file(data, root, split).is_file() for split in ("train", "test"))
    return here or (hub and data.hub is not None)


def rows(data: DataSet, root: Path | None, split: str, count: int | None) -> IterableDataset:
    """Stream ``count`` rows of a split; None: all rows.

    Raises:
        InputError: the data set is neither in ``root`` nor on the hub, or the hub cannot be reached.
    """
    from datasets import Features, Value

    stream = _open(data, root, split)
    if data.subject:
        features = Features({**stream.features, SUBJECT: Value("string")})
        stream = stream.map(lambda row: {SUBJECT: subject_of(data, row)}, features=features)
    if count is None:
        return stream
    if data.subject and split == "train":
        every = max(1, round(data.images[0] / count))
        stream = stream.filter(lambda row: zlib.crc32(row[SUBJECT].encode()) % every == 0)
    return stream.take(count)


def subject_of(data: DataSet, row: Mapping[str, Any]) -> str:
    """The subject of a row's image, as text."""
    return "-".join(str(row[column]) for column in data.subject)


def _file(data: DataSet, root: Path, split: str) -> Path:
    return root / data.name / f"{split}.parquet"


def _open(data: DataSet, root: Path | None, split: str) -> IterableDataset:
    from datasets import Image, load_dataset

    if root is not None and (file := _file(data, root, split)).is_file():
        stream = load_dataset("parquet", data_files={split: str(file)}, split=split, streaming=True)
    else:
        stream = _from_hub(data, root, split)
    return stream.cast_column("image", Image(decode=False))


def _from_hub(data: DataSet, root: Path | None, split: str) -> IterableDataset:
    from datasets import load_dataset

    try:
        if data.hub is None:
            raise FileNotFoundError("not on the hub in a readable form")
        stream = load_dataset(*data.hub, split=split, streaming=True)
    except Exception as error:  # the library raises many types: no network, unknown name or split
        source = f"{_file(data, root, split)} does not exist" if root else "no folder was given"
        raise InputError(
            "Data set not found",
            got=f"{data.title}: {source}; {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            next_step=f"pass a folder with {data.name}/train.parquet and {data.name}/test.parquet with --data",
        ) from error
    return stream.rename_columns({old: new for old, new in _HUB_COLUMNS.items() if old in stream.column_names})
