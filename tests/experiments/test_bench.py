"""Steps of a bench: the same outcome every time, unlearned and retrained models of the same digest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from conftest import digits
from lmeraser.experiments.bench import Bench
from lmeraser.experiments.cells import Cell
from lmeraser.experiments.profiles import PROFILES

TINY = replace(
    PROFILES["tiny"],
    backbones=(replace(PROFILES["tiny"].backbones[0], records=24, test=8, epochs=1, read_at=(1,)),),
)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A bench on digits in the place of CIFAR-10."""
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    digits(range(30)).to_parquet(folder / "train.parquet")
    digits(range(30, 40)).to_parquet(folder / "test.parquet")
    return Bench(tmp_path / "out", TINY, root=tmp_path / "data")


CELL = Cell("cifar10", "lmeraser")


def test_unlearned_and_retrained_models_are_the_same(bench: Bench) -> None:
    for forget in ("random", "class", "cluster", "sampled", "outliers"):
        unlearned, retrained = bench.forgotten(CELL, forget), bench.trained(CELL.but(without=forget))
        assert unlearned.facts["digest"] == retrained.facts["digest"] != bench.trained(CELL).facts["digest"]
        assert np.array_equal(unlearned.private, retrained.private)
        assert unlearned.facts["records"] == 24 - len(bench.data("cifar10").sets[forget])


def test_outcomes_are_kept(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.trained(CELL)
    requests = bench.requests(CELL, 2)
    again = Bench(tmp_path / "out", TINY, root=tmp_path / "data")
    monkeypatch.setattr(again, "_train", None)
    assert again.trained(CELL).facts == first.facts
    assert np.array_equal(again.trained(CELL).test, first.test)
    assert again.requests(CELL, 2) == requests
    assert [request["clusters"] >= 1 for request in requests] == [True, True]


def test_a_removed_workspace_is_trained_again_to_the_same_model(bench: Bench, tmp_path: Path) -> None:
    import shutil

    digest = bench.trained(CELL).facts["digest"]
    shutil.rmtree(tmp_path / "out" / "workspaces")
    with bench.opened(CELL) as eraser:
        assert eraser.model_digest == digest


def test_halves_are_complements(bench: Bench) -> None:
    halves = [bench.data(CELL.data).half(number) for number in range(4)]
    assert np.array_equal(halves[0], ~halves[1])
    assert np.array_equal(halves[2], ~halves[3])
    assert not np.array_equal(halves[0], halves[2])
    assert bench.trained(CELL.but(half=1)).facts["records"] == 12


def test_a_share_of_the_records_is_unlearned(bench: Bench) -> None:
    assert bench.forgotten(CELL, 0.5).facts["records"] == 12


def test_requests_leave_the_trained_workspace_as_it_was(bench: Bench) -> None:
    digest = bench.trained(CELL).facts["digest"]
    bench.requests(CELL, 2)
    with bench.opened(CELL) as eraser:
        assert eraser.model_digest == digest
        assert eraser.status().records == 24


def test_probabilities_are_those_of_the_served_model(bench: Bench) -> None:
    outcome = bench.trained(CELL)
    with bench.opened(CELL) as eraser:
        images = [bytes(image) for image in eraser.workspace.records.images(eraser.record_ids()[:3])]
        assert np.array_equal(eraser.predictor().batch(images).probabilities, outcome.private[:3])
    assert outcome.test.shape == (8, 10)
