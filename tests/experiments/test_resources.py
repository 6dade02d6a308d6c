"""What work takes is measured, or said to be unknown."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from lmeraser.experiments import resources
from lmeraser.experiments.resources import measure_resources


def test_the_result_and_the_seconds_of_some_work() -> None:
    def work() -> str:
        time.sleep(0.05)
        return "done"

    result, usage = measure_resources(work)
    assert result == "done"
    assert usage.seconds >= 0.05


def test_the_peak_holds_what_the_work_held() -> None:
    _, before = measure_resources(lambda: None)
    if before.peak_mb is None:
        pytest.skip("this system does not tell a peak of its own")
    held, usage = measure_resources(lambda: len(b"x" * 200 * 2**20))
    assert held == 200 * 2**20
    assert usage.peak_mb is not None
    assert usage.peak_mb >= before.peak_mb + 150
    _, after = measure_resources(lambda: None)
    assert after.peak_mb is not None
    assert after.peak_mb < usage.peak_mb  # a peak of its own


def test_energy_is_the_difference_of_the_counters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_RAPL", tmp_path)
    counters = [tmp_path / name / "energy_uj" for name in ("intel-rapl:0", "intel-rapl:1")]
    for counter in counters:
        counter.parent.mkdir()
        counter.write_text("1000000")

    def work() -> None:
        counters[0].write_text("3500000")

    assert measure_resources(work)[1].joules == pytest.approx(2.5)
    assert measure_resources(lambda: counters[1].write_text("0"))[1].joules is None  # the counter began anew
    counters[0].unlink()
    counters[1].unlink()
    assert measure_resources(lambda: None)[1].joules is None


def test_where_the_system_tells_no_peak_none_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "_PEAK", tmp_path / "none" / "clear_refs")
    assert measure_resources(lambda: None)[1].peak_mb is None  # nothing grew
