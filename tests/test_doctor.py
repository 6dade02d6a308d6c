"""The doctor passes a sound machine and finds an unsound one."""

from __future__ import annotations

import torch

from conftest import tiny_config
from lmeraser.doctor import examine
from lmeraser.executors.local import LocalExecutor


def test_this_machine_keeps_the_promise() -> None:
    report = examine(LocalExecutor(tiny_config()))
    assert report.sound
    assert len(report.checks) == 5
    assert report.to_json()["sound"] is True
    assert report.environment["torch"] == torch.__version__


def test_a_backbone_that_looks_at_the_batch_is_found() -> None:
    executor = LocalExecutor(tiny_config())
    real = executor.network.features

    def mixing(images: torch.Tensor, prompt: torch.Tensor | None = None) -> torch.Tensor:
        return real(images, prompt) + real(images, prompt).mean(dim=0)

    executor.network.features = mixing  # type: ignore[method-assign]
    report = examine(executor)
    assert not report.sound
    assert [check.passed for check in report.checks][:1] == [True]
    assert not report.checks[2].passed
