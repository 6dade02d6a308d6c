"""The data sets of the paper's study (Table I): where they are, and which of their rows a study takes.

A data set is ``FOLDER/NAME/train.parquet`` and ``test.parquet`` where these exist, else its name on the
``datasets`` hub. Rows are taken in their order, but for data whose rows about one subject are near-duplicates:
there all rows of some subjects are taken. Knows nothing about methods.
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
        name: of its folder.
        title: in tables.
        hub: name and configuration on the hub; None: not there in a usable form.
        images: training and test images of the published data set.
        subject: columns that together name what an image shows; none: unknown.
    """

    name: str
    title: str
    hub: tuple[str, ...] | None
    images: tuple[int, int]
    subject: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        """What holds what, in the rows that `rows` gives."""
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
    """Whether its files are in ``root`` or, where the hub may be asked, it has a name there."""
    here = root is not None and all(_file(data, root, split).is_file() for split in ("train", "test"))
    return here or (hub and data.hub is not None)


def rows(data: DataSet, root: Path | None, split: str, count: int | None) -> IterableDataset:
    """So many rows of a split, as a stream; None: all of them.

    Raises:
        InputError: the data set is neither in ``root`` nor within reach.
    """
    from datasets import Features, Value

    stream = _opened(data, root, split)
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
    """What a row's image shows, as a text."""
    return "-".join(str(row[column]) for column in data.subject)


def _file(data: DataSet, root: Path, split: str) -> Path:
    return root / data.name / f"{split}.parquet"


def _opened(data: DataSet, root: Path | None, split: str) -> IterableDataset:
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
            raise FileNotFoundError("it is on no hub in a form that this can read")
        stream = load_dataset(*data.hub, split=split, streaming=True)
    except Exception as error:  # datasets raises many kinds: no network, no such name, no such split
        where = _file(data, root, split) if root else "no folder given"
        raise InputError(
            f"{data.title} is in the folder of the data sets or within reach.",
            got=f"{where}: not there; {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            next_step=f"give a folder with {data.name}/train.parquet and test.parquet with --data",
        ) from error
    return stream.rename_columns({old: new for old, new in _HUB_COLUMNS.items() if old in stream.column_names})
