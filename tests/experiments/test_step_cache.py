"""A step is done once for each key, whatever happens in between."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmeraser.experiments.step_cache import StepCache
from lmeraser.experiments.trials import StepResult


def test_a_step_is_run_once_for_each_key(tmp_path: Path) -> None:
    runs: list[int] = []

    def run() -> StepResult:
        runs.append(1)
        return StepResult({"number": len(runs)}, {"probabilities": np.ones((2, 3), np.float32)})

    first = StepCache(tmp_path).get_or_run("train", {"seed": 0}, run)
    again = StepCache(tmp_path).get_or_run("train", {"seed": 0}, run)
    assert (first.facts, again.facts, len(runs)) == ({"number": 1}, {"number": 1}, 1)
    assert np.array_equal(again.private, first.private)
    assert StepCache(tmp_path).get_or_run("train", {"seed": 1}, run).facts == {"number": 2}
    assert StepCache(tmp_path).get_or_run("forget", {"seed": 0}, run).facts == {"number": 3}


def test_an_interrupted_step_is_run_again(tmp_path: Path) -> None:
    def interrupted() -> StepResult:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        StepCache(tmp_path).get_or_run("train", {}, interrupted)
    assert StepCache(tmp_path).get_or_run("train", {}, lambda: StepResult({"done": True}, {})).facts == {
        "done": True
    }
