"""The doctor passes a sound machine and finds an unsound one."""

from __future__ import annotations

import pytest
import torch

from conftest import tiny_config
from lmeraser.models.tuners.recorded_passes import RecordedPass
from lmeraser.pipeline import self_test
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.pipeline.self_test import measure, run_checks


@pytest.mark.parametrize(("kind", "checks"), [("prompt_head", 7), ("network", 7), ("shared_head", 7), ("head", 6)])
def test_this_machine_keeps_the_promise(kind: str, checks: int) -> None:
    config = tiny_config(constituent={"kind": kind})
    report = run_checks(LocalExecutor(config), config)
    assert report.sound
    assert len(report.checks) == checks
    assert report.to_json()["sound"] is True
    assert report.environment["torch"] == torch.__version__


def test_recorded_passes_are_compared_with_plain_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config()
    executor = LocalExecutor(config, in_flight=2)
    assert self_test._tuning_is_deterministic(executor, config)
    real = RecordedPass.finish
    monkeypatch.setattr(RecordedPass, "finish", lambda self: [result * 2 for result in real(self)])
    assert not self_test._tuning_is_deterministic(executor, config)


def test_speeds_are_measured_on_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    shortest = 0.3  # seconds; a measurement that counts takes longer
    monkeypatch.setattr(self_test, "MIN_SECONDS", shortest)
    config = tiny_config()
    speeds = measure(LocalExecutor(config), config)
    assert speeds.embedding > 0
    assert speeds.tuning is not None
    assert speeds.tuning == speeds.measured / speeds.seconds
    assert speeds.seconds >= shortest
    bare = config.model_copy(update={"constituent": config.constituent.model_copy(update={"kind": "none"})})
    assert measure(LocalExecutor(bare), bare).tuning is None


def test_a_backbone_that_looks_at_the_batch_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = LocalExecutor(tiny_config())
    real = executor.network.features

    def mixing(images: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        return real(images, prompt) + real(images, prompt).mean(dim=0)

    monkeypatch.setattr(executor.network, "features", mixing)
    report = run_checks(executor, tiny_config())
    assert not report.sound
    assert [check.passed for check in report.checks][:2] == [True, True]
    assert not report.checks[3].passed
