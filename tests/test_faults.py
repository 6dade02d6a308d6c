"""A command that is stopped at any durable operation leaves the state before it or after it, and no trace.

The fast suite stops every command at a part of its operations, spread over the whole of it; the long one at all.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from faults import SCENARIOS, every

_SHORT = ("request", "extend", "cancel", "purge", "add", "confirm")  # tens of operations; the others have hundreds
_STEPS = {scenario: 10 if scenario in _SHORT else 20 for scenario in SCENARIOS} | {"unlearn_in_pages": 40}
_REFUSED = ("add", "train", "unlearn")


class Injector:
    """The process that stops commands."""

    def __init__(self) -> None:
        command = [sys.executable, str(Path(__file__).with_name("faults.py")), "-"]
        self.popen = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def points(self, scenario: str, mode: str, folder: Path, step: int = 1) -> int:
        """How many operations a command was stopped at; each of them has to end well."""
        assert self.popen.stdin
        assert self.popen.stdout
        self.popen.stdin.write(json.dumps([scenario, mode, str(folder), step]) + "\n")
        self.popen.stdin.flush()
        result = json.loads(self.popen.stdout.readline())
        assert not result["failures"], "\n".join(result["failures"])
        return int(result["points"])


@pytest.fixture(scope="module")
def injector() -> Iterator[Injector]:
    started = Injector()
    yield started
    with started.popen as process:
        process.communicate()
    assert process.returncode == 0


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_at_a_part_of_its_durable_operations(injector: Injector, scenario: str, tmp_path: Path) -> None:
    assert injector.points(scenario, "kill", tmp_path, _STEPS[scenario]) >= 1


@pytest.mark.parametrize("scenario", _REFUSED)
def test_refused_by_the_disk_at_a_part_of_its_durable_operations(
    injector: Injector, scenario: str, tmp_path: Path
) -> None:
    assert injector.points(scenario, "full", tmp_path, _STEPS[scenario]) >= 1


@pytest.mark.long
@pytest.mark.timeout(600)
@pytest.mark.parametrize("mode", ["kill", "full", "deny"])
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_stopped_at_every_durable_operation(injector: Injector, scenario: str, mode: str, tmp_path: Path) -> None:
    assert injector.points(scenario, mode, tmp_path) > 10


@pytest.mark.parametrize("step", [1, 10, 20])
def test_a_part_of_the_points_is_spread_over_all(step: int) -> None:
    for scenario in SCENARIOS:
        points = list(itertools.islice(every(step, scenario, "kill"), 4))
        assert 1 <= points[0] <= step
        assert points == list(range(points[0], points[0] + 4 * step, step))
