"""One thread while the body runs, and a fingerprint of what may change a bit."""

from __future__ import annotations

import pytest
import torch

from lmeraser.config.schema import parse
from lmeraser.models.environment import deterministic, fingerprint
from lmeraser.models.modalities import load_backbone


def test_the_body_runs_on_one_thread_and_the_caller_gets_theirs_back() -> None:
    before = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(3)
    with deterministic():
        assert torch.get_num_threads() == 1
        assert torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == 3
    with pytest.raises(KeyError), deterministic():
        raise KeyError
    assert torch.get_num_threads() == 3
    assert torch.are_deterministic_algorithms_enabled() == before[1]
    torch.set_num_threads(before[0])


def test_a_fingerprint_is_stable_and_knows_the_batch_shape() -> None:
    def of(micro_batch: int) -> str:
        return fingerprint(
            load_backbone(parse({"backbone": {"image_size": 32, "micro_batch": micro_batch}}))
        ).digest

    assert of(2) == of(2)
    assert of(2) != of(3)


def test_a_fingerprint_notices_other_arithmetic() -> None:
    backbone = load_backbone(parse({"backbone": {"image_size": 32, "micro_batch": 2}}))
    first = fingerprint(backbone)
    real = backbone.features
    factor = 1.0000001
    backbone.features = lambda inputs, prompt=None: real(inputs, prompt) * factor  # type: ignore[method-assign]
    assert fingerprint(backbone).canary != first.canary
