"""A step is done once for each key, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmeraser.experiments.cells import Outcome
from lmeraser.experiments.steps import Steps


def test_a_step_is_run_once_for_each_key(tmp_path: Path) -> None:
    runs: list[int] = []

    def run() -> Outcome:
        runs.append(1)
        return Outcome({"number": len(runs)}, {"probabilities": np.ones((2, 3), np.float32)})

    first = Steps(tmp_path).outcome("train", {"seed": 0}, run)
    again = Steps(tmp_path).outcome("train", {"seed": 0}, run)
    assert (first.facts, again.facts, len(runs)) == ({"number": 1}, {"number": 1}, 1)
    assert np.array_equal(again.private, first.private)
    assert Steps(tmp_path).outcome("train", {"seed": 1}, run).facts == {"number": 2}
    assert Steps(tmp_path).outcome("forget", {"seed": 0}, run).facts == {"number": 3}


def test_an_interrupted_step_is_run_again(tmp_path: Path) -> None:
    def interrupted() -> Outcome:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Steps(tmp_path).outcome("train", {}, interrupted)
    assert Steps(tmp_path).outcome("train", {}, lambda: Outcome({"done": True}, {})).facts == {"done": True}
