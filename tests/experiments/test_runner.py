"""Trials: cached steps give the same results, and unlearned and retrained models have the same digest."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import Template, digits
from lmeraser.experiments.profiles import PROFILES
from lmeraser.experiments.runner import TrialRunner
from lmeraser.experiments.trials import Trial

TINY = replace(
    PROFILES["tiny"],
    backbones={
        kind: (replace(backbones[0], records=24, test=8, epochs=1, curve_epochs=(1,)),)
        for kind, backbones in PROFILES["tiny"].backbones.items()
    },
)


TRIAL = Trial("cifar10", "lmeraser")


def _train_trial(root: Path) -> None:
    """Digits in the place of CIFAR-10, and the trial's model of them."""
    folder = root / "data" / "cifar10"
    folder.mkdir(parents=True)
    digits(range(30)).to_parquet(folder / "train.parquet")
    digits(range(30, 40)).to_parquet(folder / "test.parquet")
    TrialRunner(root / "out", TINY, root=root / "data").trained(TRIAL)


@pytest.fixture
def runner(template: Template, tmp_path: Path) -> TrialRunner:
    """A runner that finds the trial's trained model in its cache."""
    shutil.copytree(template("trial", _train_trial), tmp_path, dirs_exist_ok=True)
    return TrialRunner(tmp_path / "out", TINY, root=tmp_path / "data")


@pytest.mark.long
def test_unlearned_and_retrained_models_are_the_same(runner: TrialRunner) -> None:
    for forget in ("random", "class", "cluster", "sampled", "outliers"):
        unlearned, retrained = runner.unlearned(TRIAL, forget), runner.trained(TRIAL.vary(without=forget))
        assert unlearned.facts["digest"] == retrained.facts["digest"] != runner.trained(TRIAL).facts["digest"]
        assert np.array_equal(unlearned.private, retrained.private)
        assert unlearned.facts["records"] == 24 - len(runner.data("cifar10").sets[forget])


def test_results_are_cached(runner: TrialRunner, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = runner.trained(TRIAL)
    requests = runner.requests(TRIAL, 2)
    again = TrialRunner(tmp_path / "out", TINY, root=tmp_path / "data")
    monkeypatch.setattr(again, "_train", None)
    assert again.trained(TRIAL).facts == first.facts
    assert np.array_equal(again.trained(TRIAL).test, first.test)
    assert again.requests(TRIAL, 2) == requests
    assert [request["clusters"] >= 1 for request in requests] == [True, True]


def test_a_removed_workspace_is_trained_again_to_the_same_model(runner: TrialRunner, tmp_path: Path) -> None:
    digest = runner.trained(TRIAL).facts["digest"]
    shutil.rmtree(tmp_path / "out" / "workspaces")
    with runner.open_trained(TRIAL) as eraser:
        assert eraser.model_digest == digest


def test_halves_are_complements(runner: TrialRunner) -> None:
    halves = [runner.data(TRIAL.data).in_half(number) for number in range(4)]
    assert np.array_equal(halves[0], ~halves[1])
    assert np.array_equal(halves[2], ~halves[3])
    assert not np.array_equal(halves[0], halves[2])
    assert runner.trained(TRIAL.vary(half=1)).facts["records"] == 12


def test_a_share_of_the_records_is_unlearned(runner: TrialRunner) -> None:
    assert runner.unlearned(TRIAL, 0.5).facts["records"] == 12


def test_requests_leave_the_trained_workspace_as_it_was(runner: TrialRunner) -> None:
    digest = runner.trained(TRIAL).facts["digest"]
    runner.requests(TRIAL, 2)
    with runner.open_trained(TRIAL) as eraser:
        assert eraser.model_digest == digest
        assert eraser.status().records == 24


def test_probabilities_are_those_of_the_served_model(runner: TrialRunner) -> None:
    result = runner.trained(TRIAL)
    with runner.open_trained(TRIAL) as eraser:
        images = [bytes(image) for image in eraser.workspace.records.payloads(eraser.record_ids()[:3])]
        assert np.array_equal(eraser.predictor().batch(images).probabilities, result.private[:3])
    assert result.test.shape == (8, 10)
