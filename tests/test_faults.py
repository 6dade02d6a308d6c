"""A command that is stopped at any durable operation leaves the state before it or after it, and no trace."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from faults import SCENARIOS

_QUICK = ("add", "train", "unlearn")


def tried(scenario: str, mode: str, folder: Path) -> int:
    command = [sys.executable, str(Path(__file__).with_name("faults.py")), scenario, mode, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert not result["failures"], "\n".join([*result["failures"], done.stderr])
    return int(result["points"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "scenario",
    [
        pytest.param(n, marks=pytest.mark.long) if n in ("unlearn_sampled", "unlearn_pending") else n
        for n in SCENARIOS
    ],
)
def test_killed_at_every_durable_operation(scenario: str, tmp_path: Path) -> None:
    assert tried(scenario, "kill", tmp_path) > 10


@pytest.mark.timeout(300)
@pytest.mark.parametrize("mode", ["full", pytest.param("deny", marks=pytest.mark.long)])
@pytest.mark.parametrize(
    "scenario", [name if name in _QUICK else pytest.param(name, marks=pytest.mark.long) for name in SCENARIOS]
)
def test_refused_by_the_disk_at_every_durable_operation(scenario: str, mode: str, tmp_path: Path) -> None:
    assert tried(scenario, mode, tmp_path) > 10
