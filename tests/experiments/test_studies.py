"""Studies take what is at hand, and say what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmeraser.experiments.bench import Bench
from lmeraser.experiments.profiles import profile_of
from lmeraser.experiments.studies.accuracies import figure4
from lmeraser.experiments.studies.base import backbones_of, data_of, missing


def test_what_is_not_at_hand_is_left_out_and_named(tmp_path: Path) -> None:
    bench = Bench(tmp_path / "out", profile_of("small"), root=tmp_path)
    assert list(data_of(bench)) == []
    assert list(backbones_of(bench)) == [0]
    told = missing(bench)
    assert [sentence.split(" is ")[0] for sentence in told] == [
        *("CIFAR-10", "CIFAR-100", "SVHN", "GTSRB"),
        "The backbone small ViT",
    ]
    assert figure4(bench).notes == told
    (tmp_path / "weights" / "vit-small-saliency").mkdir(parents=True)
    (tmp_path / "svhn").mkdir()
    for split in ("train", "test"):
        (tmp_path / "svhn" / f"{split}.parquet").touch()
    assert list(data_of(bench)) == ["svhn"]
    assert list(backbones_of(bench)) == [0, 1]


@pytest.mark.parametrize("root", [None, Path("nothing")])
def test_the_hub_has_all_but_one(root: Path | None, tmp_path: Path) -> None:
    bench = Bench(tmp_path / "out", profile_of("small"), root=root, hub=True)
    assert list(data_of(bench)) == ["cifar10", "cifar100", "svhn"]
    assert list(backbones_of(bench)) == [0]
    assert list(backbones_of(Bench(tmp_path / "out", profile_of("full"), root=root))) == [0, 1, 2, 3]
