"""Studies take what is at hand, and say what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmeraser.experiments.profiles import profile_of
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.studies.accuracies import figure4
from lmeraser.experiments.studies.base import available_backbones, available_data_sets, missing_notes


def test_what_is_not_at_hand_is_left_out_and_named(tmp_path: Path) -> None:
    runner = TrialRunner(tmp_path / "out", profile_of("small"), root=tmp_path)
    assert list(available_data_sets(runner)) == []
    assert list(available_backbones(runner)) == [0]
    notes = missing_notes(runner)
    assert [sentence.split(" is ")[0] for sentence in notes] == [
        *("CIFAR-10", "CIFAR-100", "SVHN", "GTSRB"),
        "The backbone small ViT",
    ]
    assert figure4(runner).notes == notes
    (tmp_path / "weights" / "vit-small-saliency").mkdir(parents=True)
    (tmp_path / "svhn").mkdir()
    for split in ("train", "test"):
        (tmp_path / "svhn" / f"{split}.parquet").touch()
    assert list(available_data_sets(runner)) == ["svhn"]
    assert list(available_backbones(runner)) == [0, 1]


@pytest.mark.parametrize("root", [None, Path("nothing")])
def test_the_hub_has_all_but_one(root: Path | None, tmp_path: Path) -> None:
    runner = TrialRunner(tmp_path / "out", profile_of("small"), root=root, hub=True)
    assert list(available_data_sets(runner)) == ["cifar10", "cifar100", "svhn"]
    assert list(available_backbones(runner)) == [0]
    assert list(available_backbones(TrialRunner(tmp_path / "out", profile_of("full"), root=root))) == [0, 1, 2, 3]
