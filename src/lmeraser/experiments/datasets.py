"""Data sets of the studies: those of the paper (Table I), texts, and how others are described.

A data set is read from ``FOLDER/NAME/train.parquet`` and ``test.parquet`` if these exist, otherwise from the
``datasets`` hub, or it is made by a function. The first rows are used, except where the rows of a subject are
near-duplicates or belong together: there, all rows of a subset of the subjects are used.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lmeraser.config.modalities import Modality
from lmeraser.data.sources import Columns
from lmeraser.errors import InputError

if TYPE_CHECKING:
    from datasets import Features, IterableDataset

SUBJECT = "subject"
LABEL = "label"


@dataclass(frozen=True)
class DataSet:
    """A labelled data set.

    Attributes:
        name: name of its folder, and on the command line.
        title: name in tables.
        sizes: numbers of training and test records in the published data set.
        hub: name and configuration on the hub; None: not available there in a usable form.
        subject: columns that together identify the subject of a record; empty: unknown.
        modality: what a record is; the column of that name holds it.
        length: numbers of a vector.
        make: gives the rows of split "train" or "test", instead of files: each has a column named as the modality
            (bytes of an image file, a text, or numbers), ``label`` (a class name) and the columns of ``subject``.
        classes: class names, where rows are made.
    """

    name: str
    title: str
    sizes: tuple[int, int]
    hub: tuple[str, ...] | None = None
    subject: tuple[str, ...] = ()
    modality: Modality = "image"
    length: int | None = None
    make: Callable[[str], Iterable[Mapping[str, Any]]] | None = None
    classes: tuple[str, ...] = ()

    @property
    def columns(self) -> Columns:
        """The column names of the rows that `rows` yields."""
        return Columns(positions=True, subject=SUBJECT if self.subject else None, payload=self.modality)

    @property
    def settings(self) -> dict[str, Any]:
        """The settings section ``[data]``."""
        return {"modality": self.modality, "length": self.length}


DATA_SETS = {
    data.name: data
    for data in (
        DataSet("cifar10", "CIFAR-10", (50_000, 10_000), ("uoft-cs/cifar10",)),
        DataSet("cifar100", "CIFAR-100", (50_000, 10_000), ("uoft-cs/cifar100",)),
        DataSet("svhn", "SVHN", (73_257, 26_032), ("ufldl-stanford/svhn", "cropped_digits")),
        DataSet("gtsrb", "GTSRB", (39_209, 12_630), subject=("label", "track")),
        # Texts: customers' questions (Casanueva et al., 2020), commands (Larson et al., 2019), and lines of a
        # television comedy, whose subjects are the speakers (Zahiri and Choi, 2018).
        DataSet("banking77", "Banking77", (10_003, 3_080), modality="text"),
        DataSet("clinc150", "CLINC150", (15_000, 4_500), modality="text"),
        DataSet("tv_dialogue", "TV dialogue", (1_344, 1_328), subject=(SUBJECT,), modality="text"),
    )
}
_HUB_COLUMNS = {"img": "image", "fine_label": LABEL}


def available(data: DataSet, root: Path | None, *, hub: bool = False) -> bool:
    """Whether the rows are made, the files are in ``root`` or, with ``hub``, the data set is on the hub."""
    here = root is not None and all(_file(data, root, split).is_file() for split in ("train", "test"))
    return data.make is not None or here or (hub and data.hub is not None)


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
        every = max(1, round(data.sizes[0] / count))
        stream = stream.filter(lambda row: zlib.crc32(row[SUBJECT].encode()) % every == 0)
    return stream.take(count)


def subject_of(data: DataSet, row: Mapping[str, Any]) -> str:
    """The subject of a row, as text."""
    return "-".join(str(row[column]) for column in data.subject)


def value_of(data: DataSet, row: Mapping[str, Any]) -> Any:
    """What a row's payload is made of: the bytes of an image file, a text, or numbers."""
    value = row[data.modality]
    return value["bytes"] if isinstance(value, Mapping) else value


def _file(data: DataSet, root: Path, split: str) -> Path:
    return root / data.name / f"{split}.parquet"


def _open(data: DataSet, root: Path | None, split: str) -> IterableDataset:
    from datasets import Image, load_dataset

    if data.make is not None:
        stream = _made(data, split)
    elif root is not None and (file := _file(data, root, split)).is_file():
        stream = load_dataset("parquet", data_files={split: str(file)}, split=split, streaming=True)
    else:
        stream = _from_hub(data, root, split)
    if isinstance(stream.features.get(data.modality), Image):
        stream = stream.cast_column(data.modality, Image(decode=False))
    return stream


def _made(data: DataSet, split: str) -> IterableDataset:
    from datasets import Dataset

    assert data.make is not None
    names = (data.modality, LABEL, *data.subject)
    try:
        made = [{name: row[name] for name in names} for row in data.make(split)]
        return Dataset.from_list(made, features=_features(data)).to_iterable_dataset()
    except Exception as error:  # the function may raise anything
        raise InputError(
            "The rows of a data set cannot be made",
            got=f"{data.name}, {split}: {type(error).__name__}: {str(error).partition(chr(10))[0]}",
            next_step=f"give each row {', '.join(names)}, and DataSet the names of all classes",
        ) from error


def _features(data: DataSet) -> Features:
    from datasets import ClassLabel, Features, Image, Value

    payloads: dict[str, Any] = {
        "image": Image(decode=False),
        "text": Value("string"),
        "vector": [Value("float32")],
    }
    own = {data.modality: payloads[data.modality], LABEL: ClassLabel(names=list(data.classes))}
    return Features({**dict.fromkeys(data.subject, Value("string")), **own})


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
            next_step=f"pass a folder with {data.name}/train.parquet and {data.name}/test.parquet with --folder",
        ) from error
    return stream.rename_columns({old: new for old, new in _HUB_COLUMNS.items() if old in stream.column_names})
