"""Studies take what is at hand, and say what is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmeraser.experiments.catalog import Catalog
from lmeraser.experiments.datasets import DATA_SETS
from lmeraser.experiments.features import SoftmaxRegression
from lmeraser.experiments.methods import METHODS, Method
from lmeraser.experiments.profiles import profile_of
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.studies.accuracies import accuracies, figure4
from lmeraser.experiments.studies.base import available_backbones, available_data_sets, missing_notes
from lmeraser.experiments.trials import Trial


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
    assert accuracies(runner).notes == notes
    (tmp_path / "weights" / "vit-small-saliency").mkdir(parents=True)
    (tmp_path / "svhn").mkdir()
    for split in ("train", "test"):
        (tmp_path / "svhn" / f"{split}.parquet").touch()
    assert list(available_data_sets(runner)) == ["svhn"]
    assert list(available_backbones(runner)) == [0, 1]


def test_methods_are_those_of_the_study_or_those_that_are_chosen_and_run_on_the_data(tmp_path: Path) -> None:
    method = Method("mine", "Mine", on_features=SoftmaxRegression())
    catalog = Catalog({**METHODS, "mine": method}, DATA_SETS, frozenset({"mine"}))

    def names(methods: list[str] | None, data: str | None) -> list[str]:
        runner = TrialRunner(tmp_path, profile_of("text"), root=None, catalog=catalog, methods=methods)
        return [method.name for method in runner.methods(("instant", "lmeraser-tree", "dam-vp"), data)]

    assert names(None, None) == ["instant", "lmeraser-tree", "dam-vp", "mine"]
    assert names(None, "banking77") == ["instant", "dam-vp", "mine"]  # no public classes of a text network
    assert names(["linear", "lmeraser-tree"], "cifar10") == ["linear", "lmeraser-tree"]
    assert names(["linear", "lmeraser-tree"], "clinc150") == ["linear"]


@pytest.mark.parametrize("name", [name for name in METHODS if METHODS[name].runs_on("text")])
def test_methods_on_texts_have_the_studys_network_and_tokens(name: str, tmp_path: Path) -> None:
    config = TrialRunner(tmp_path, profile_of("text"), root=None).config(Trial("tv_dialogue", name))
    assert (config.data.modality, config.backbone.name) == ("text", "all-MiniLM-L6-v2")
    assert config.tokens.count == 10
    assert config.tokens.learning_rate == 0.01


@pytest.mark.parametrize("root", [None, Path("nothing")])
def test_the_hub_has_all_but_one(root: Path | None, tmp_path: Path) -> None:
    runner = TrialRunner(tmp_path / "out", profile_of("small"), root=root, hub=True)
    assert list(available_data_sets(runner)) == ["cifar10", "cifar100", "svhn"]
    assert list(available_backbones(runner)) == [0]
    assert list(available_backbones(TrialRunner(tmp_path / "out", profile_of("full"), root=root))) == [0, 1, 2, 3]
