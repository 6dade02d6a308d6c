"""The process that derives takes orders as lines, and ends when nobody gives any."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from faults import CLASSES, CONFIG
from lmeraser import Eraser
from lmeraser.service import derivation_process


@pytest.mark.sqlite
def test_the_process_ends_when_nobody_writes_to_it_any_more(tmp_path: Path) -> None:
    Eraser.create(tmp_path / "w", CONFIG, classes=CLASSES).close()
    command = [sys.executable, "-m", "lmeraser.service.derivation_process", str(tmp_path / "w")]
    order = json.dumps({"compute": {"device": "tpu"}}) + "\n"
    done = subprocess.run(command, input=order * 2, capture_output=True, text=True, check=True, timeout=120)
    assert [json.loads(line)["error"] for line in done.stdout.splitlines()] == ["ConfigError"] * 2


def test_when_nobody_listens_any_more_it_finishes_all_the_same() -> None:
    class Closed:
        def write(self, text: str) -> None:
            raise BrokenPipeError

    gone: Any = Closed()
    derivation_process._write(gone, {"step": "tuning"})
