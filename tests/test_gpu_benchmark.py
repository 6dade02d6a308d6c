"""benchmarks/gpu.py runs on a CPU, and loses nothing when a step fails or the time is short."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import gpu

    return gpu


def results(folder: Path) -> dict[str, Any]:
    (file,) = folder.glob("*.json")
    return {name.removeprefix("gpu: "): result["rows"] for name, result in json.loads(file.read_text()).items()}


def test_a_failing_step_is_recorded_and_the_next_one_goes_on(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(machine: Any) -> dict[str, Any]:
        raise RuntimeError("CUDA error: an illegal memory access was encountered\nmore")

    environment, speed, product = gpu.STEPS[0], gpu.Step("tuning speed", fails, 0), gpu.Step("long", fails, 1e9)
    monkeypatch.setattr(gpu, "STEPS", (speed, product, environment))
    assert gpu.main(["--tiny", "--out", str(tmp_path), "--device", "cpu"]) == 1
    found = results(tmp_path)
    assert found["tuning speed"]["error"] == "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert "left out" in found["long"]
    assert found["environment"]["processor cores"] > 0


def test_the_first_step_is_exactness_and_its_result_is_there_at_once(
    gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    exactness = gpu.STEPS[1]
    seen: list[dict[str, Any]] = []

    def look(machine: Any) -> dict[str, Any]:
        seen.append(results(tmp_path))
        return {}

    monkeypatch.setattr(gpu, "STEPS", (exactness, gpu.Step("last", look, 0)))
    assert gpu.main(["--tiny", "--out", str(tmp_path)]) == 0
    (before,) = seen
    assert before["exactness bf16"]["sound"] is True
    assert before["exactness bf16"]["a cluster tuned alone, beside others, and again"] is True
    assert before["exactness bf16"]["fused attention, MATH"] is True


def test_a_machine_without_a_gpu_is_told_where_to_look(gpu: Any, tmp_path: Path, capsys: Any) -> None:
    if gpu.torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert gpu.main(["--out", str(tmp_path)]) == 2
    assert "lmeraser doctor --device cuda" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_every_step_runs_on_a_cpu(tmp_path: Path) -> None:
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), "--tiny", "--out", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    found = results(tmp_path)
    assert len(found) == 13
    assert not [name for name, rows in found.items() if "left out" in rows]
    models = [
        same for name in ("bf16", "fp32") for row, same in found[f"deletions {name}"].items() if "oracle" in row
    ]
    assert models == [True] * 6
    tuning = found["tuning speed"]
    assert [same for row, same in tuning.items() if row.endswith("same bits")] == [True] * 4
    assert found["request of CIFAR-100's size"]["records tuned again, median"] > 0
