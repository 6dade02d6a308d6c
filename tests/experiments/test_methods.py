"""Methods get the study's backbone and budget, and differ in what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from lmeraser.config.schema import Config
from lmeraser.errors import InputError
from lmeraser.experiments.catalog import BUILT_IN
from lmeraser.experiments.datasets import DATA_SETS
from lmeraser.experiments.methods import METHODS, backbone_location, settings_of
from lmeraser.experiments.profiles import PROFILES, BackboneProfile, profile_of

SMALL = PROFILES["small"]


def settings(name: str, **differences: Any) -> Config:
    return settings_of(
        METHODS[name],
        DATA_SETS["cifar10"],
        SMALL.backbones["image"][0],
        SMALL,
        root=None,
        seed=3,
        records=600,
        differences=differences,
    )


@pytest.mark.parametrize("name", METHODS)
def test_backbone_seed_and_rates_are_the_studys(name: str) -> None:
    config = settings(name)
    assert (config.seed, config.backbone.name, config.backbone.image_size) == (3, "efficientnet-lite0", 48)
    assert config.tuning.prompt_learning_rate == SMALL.tuning["prompt_learning_rate"]


@pytest.mark.parametrize("name", METHODS)
def test_every_method_passes_over_the_records_equally_often(name: str) -> None:
    tuning = settings(name).tuning
    # Slice s is tuned on s / S of the records.
    passes = tuning.epochs * sum(range(1, tuning.slices + 1)) / tuning.slices
    assert passes == pytest.approx(SMALL.backbones["image"][0].epochs, abs=tuning.slices / 2)


def test_differences_come_last() -> None:
    assert settings("lmeraser", partition={"clusters": 7}).partition.clusters == 7


def test_all_methods_have_different_settings() -> None:
    every = [settings(name).model_settings() for name, method in METHODS.items() if not method.on_features]
    assert all(one != other for n, one in enumerate(every) for other in every[n + 1 :])


def test_a_backbone_beside_the_data(tmp_path: Path) -> None:
    backbone = BackboneProfile("small", {"name": "data:weights/vit"}, 1, 1, 1, (1,))
    assert backbone_location(backbone, tmp_path) == str(tmp_path / "weights" / "vit")
    with pytest.raises(InputError, match="--folder"):
        backbone_location(backbone, None)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match="lmeraser-paper"):
        BUILT_IN.method("magic")
    with pytest.raises(InputError, match="small"):
        profile_of("huge")
