"""Measured speeds: kept, found again with the same settings, and never a reason to stop."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmeraser.config.schema import parse
from lmeraser.pipeline.calibration import MIN_SECONDS, Calibration


@pytest.fixture
def calibration(tmp_path: Path) -> Calibration:
    return Calibration(tmp_path / "calibration.json")


def test_a_speed_is_known_once_it_was_measured(calibration: Calibration) -> None:
    config = parse({})
    assert calibration.speed(config) is None
    calibration.note(config, records=300, seconds=2.0)
    assert calibration.speed(config) == 150
    calibration.note(config, records=500, seconds=2.0)
    assert calibration.speed(config) == 250


def test_settings_that_change_the_speed_have_their_own(calibration: Calibration) -> None:
    calibration.note(parse({}), records=300, seconds=2.0)
    assert calibration.speed(parse({"backbone": {"image_size": 64}})) is None
    assert calibration.speed(parse({"compute": {"workers": 7}})) is None
    assert calibration.speed(parse({"seed": 5, "tuning": {"epochs": 3}})) == 150


def test_what_is_too_short_to_tell_is_passed_over(calibration: Calibration) -> None:
    calibration.note(parse({}), records=3, seconds=MIN_SECONDS / 2)
    calibration.note(parse({}), records=0, seconds=5.0)
    assert calibration.speed(parse({})) is None


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"a": "b"}', '{"a": null}'])
def test_a_damaged_file_is_as_good_as_none(calibration: Calibration, content: str) -> None:
    calibration._file.write_text(content)
    assert calibration.speed(parse({})) is None
    calibration.note(parse({}), records=300, seconds=2.0)
    assert calibration.speed(parse({})) == 150
