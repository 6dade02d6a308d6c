"""StudyData sets of the study: which rows are taken, and what is said where they are missing."""

from __future__ import annotations

from pathlib import Path

import datasets
import pytest
from datasets import ClassLabel, Dataset, Features, Image, IterableDataset, Value

from conftest import DIGIT_CLASSES, digits
from lmeraser.data.sources import Columns
from lmeraser.errors import InputError
from lmeraser.experiments.datasets import DATA_SETS, DataSet, available, rows, value_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with digits in the place of two data sets; those of the second show six subjects."""
    for split, numbers in (("train", range(30)), ("test", range(30, 40))):
        (tmp_path / "cifar10").mkdir(exist_ok=True)
        digits(numbers).to_parquet(tmp_path / "cifar10" / f"{split}.parquet")
        (tmp_path / "gtsrb").mkdir(exist_ok=True)
        signs = [
            {**row, "track": number % 3}
            for number, row in enumerate(digits(numbers).cast_column("image", Image(decode=False)))
        ]
        features = {"image": Image(), "label": ClassLabel(names=DIGIT_CLASSES), "track": Value("int64")}
        kept = [{name: row[name] for name in features} for row in signs]
        Dataset.from_list(kept, features=Features(features)).to_parquet(tmp_path / "gtsrb" / f"{split}.parquet")
    return tmp_path


def test_rows_are_the_first_ones(root: Path) -> None:
    data = DATA_SETS["cifar10"]
    assert available(data, root)
    taken = list(rows(data, root, "train", 7))
    assert [row["label"] for row in taken] == digits(range(7))["label"]
    assert taken[0]["image"]["bytes"].startswith(b"\x89PNG")
    assert len(list(rows(data, root, "test", None))) == 10


def test_of_subjects_all_rows_are_taken_or_none(root: Path) -> None:
    data = DATA_SETS["gtsrb"]
    taken = list(rows(data, root, "train", 20_000))  # every second subject
    every = list(rows(data, root, "train", None))
    subjects = {row["subject"] for row in taken}
    assert 0 < len(subjects) < len({row["subject"] for row in every})
    assert taken == [row for row in every if row["subject"] in subjects]


def test_texts_and_their_speakers(root: Path) -> None:
    lines = [{"id": f"u{n}", "text": f"line {n}", "label": n % 2, "subject": f"person {n % 5}"} for n in range(20)]
    features = Features(
        {"id": Value("string"), "text": Value("string"), "label": ClassLabel(names=["joy", "fear"])}
        | {"subject": Value("string")}
    )
    (root / "tv_dialogue").mkdir()
    for split in ("train", "test"):
        Dataset.from_list(lines, features=features).to_parquet(root / "tv_dialogue" / f"{split}.parquet")
    data = DATA_SETS["tv_dialogue"]
    assert available(data, root)
    assert data.columns == Columns(positions=True, subject="subject", payload="text")
    taken = list(rows(data, root, "train", 500))  # all lines of some speakers
    speakers = {row["subject"] for row in taken}
    assert 0 < len(speakers) < 5
    assert [value_of(data, row) for row in taken] == [
        line["text"] for line in lines if line["subject"] in speakers
    ]


def made(split: str) -> list[dict[str, object]]:
    return [
        {"vector": [n, 2.0], "label": "ab"[n % 2], "who": f"p{n}"} for n in range(6 if split == "train" else 2)
    ]


def test_rows_that_a_function_makes() -> None:
    data = DataSet("m", "M", (6, 2), None, ("who",), "vector", 2, made, ("a", "b"))
    assert available(data, None)
    taken = list(rows(data, None, "test", 5))
    assert [(value_of(data, row), row["label"], row["subject"]) for row in taken] == [
        ([0.0, 2.0], 0, "p0"),
        ([1.0, 2.0], 1, "p1"),
    ]
    with pytest.raises(InputError, match="rows of a data set cannot be made: m, train: KeyError"):
        rows(DataSet("m", "M", (6, 2), None, ("where",), "vector", 2, made, ("a", "b")), None, "train", 5)


def test_a_missing_data_set_is_explained(tmp_path: Path) -> None:
    assert not available(DATA_SETS["gtsrb"], tmp_path)
    assert not available(DATA_SETS["gtsrb"], tmp_path, hub=True)  # it is on no hub in a usable form
    assert not available(DATA_SETS["cifar10"], None)
    with pytest.raises(InputError, match=r"gtsrb/train\.parquet"):
        rows(DATA_SETS["gtsrb"], tmp_path, "train", 5)


def test_the_hub_is_asked_for_what_is_missing(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's names of columns become ours; nothing is fetched for what is there."""
    asked = []
    there = Dataset.from_parquet(str(root / "cifar10" / "test.parquet"))

    def load(*name: str, split: str, streaming: bool, **options: object) -> IterableDataset:
        asked.append((*name, split))
        columns = {"image": "img", "label": "fine_label"} if "cifar100" in name[0] else {}
        return there.rename_columns(columns).to_iterable_dataset()

    assert available(DATA_SETS["cifar100"], root, hub=True)
    monkeypatch.setattr(datasets, "load_dataset", load)
    taken = list(rows(DATA_SETS["cifar100"], root, "test", 3))
    assert [row["label"] for row in taken] == there["label"][:3]
    assert taken[0]["image"]["bytes"].startswith(b"\x89PNG")
    assert list(rows(DATA_SETS["svhn"], None, "train", 2))
    assert asked == [("uoft-cs/cifar100", "test"), ("ufldl-stanford/svhn", "cropped_digits", "train")]
