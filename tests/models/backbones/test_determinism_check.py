"""What is not deterministic is refused by the name of its layer; what was checked here is not checked again."""

from __future__ import annotations

import copy
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from lmeraser.core.digests import Digest
from lmeraser.errors import BackboneError
from lmeraser.models.backbones import determinism_check
from lmeraser.models.backbones.determinism_check import (
    check_determinism,
    draws_random_numbers,
    require_deterministic,
)
from lmeraser.pipeline.executors.local import LocalExecutor
from small import Pool, Small, config

HERE, THERE = Digest.of(b"here"), Digest.of(b"there")


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x + torch.rand_like(x)


class DrawsInPython(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        random.random()
        return x


class DrawsInNumpy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        np.random.random()  # noqa: NPY002 - as networks do
        return x


class OwnGenerator(nn.Module):
    """Noise that no state of a global generator shows."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = np.random.default_rng(0)

    def forward(self, x: Tensor) -> Tensor:
        return x * float(self.generator.random())


class CentredBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x - x.mean(dim=0, keepdim=True)


class Places(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.arange(1.0, 1.0 + len(x)).reshape(-1, 1, 1, 1)


class NotANumber(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sum(dim=(2, 3), keepdim=True).sqrt() * x


class Dead(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 0


def with_layer(layer: nn.Module) -> Small:
    """The small backbone with one more layer, before the last."""
    backbone = Small()
    convolution, tanh, pool = backbone.features_network.children()
    backbone.features_network = nn.Sequential(convolution, tanh, nn.Sequential(nn.Identity(), layer), pool).eval()
    return backbone


FAULTS = [
    (Noisy, "layer '2.1' (Noisy) draws random numbers"),
    (DrawsInPython, "layer '2.1' (DrawsInPython) draws random numbers"),
    (DrawsInNumpy, "layer '2.1' (DrawsInNumpy) draws random numbers"),
    (OwnGenerator, "two passes over the same images differ, first in layer '2.1' (OwnGenerator)"),
    (CentredBatch, "beside other images, first in layer '2.1' (CentredBatch)"),
    (Places, "at another place of the batch, first in layer '2.1' (Places)"),
    (NotANumber, "not finite"),
    (Dead, "features are the same whatever the input is"),
]


@pytest.mark.parametrize(("layer", "reason"), FAULTS, ids=[layer.__name__ for layer, _ in FAULTS])
def test_a_fault_is_named_with_its_layer(layer: type[nn.Module], reason: str) -> None:
    with pytest.raises(BackboneError) as caught:
        check_determinism(with_layer(layer()), "a name")
    assert reason in caught.value.got
    assert "a name" in caught.value.got


class NotBackwards(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.requires_grad:
            raise RuntimeError("a view is being modified inplace\nand more")
        return x


def test_what_is_wrong_is_not_called_chance() -> None:
    for layer in (NotANumber(), Dead()):
        with pytest.raises(BackboneError, match="features are of no use"):
            check_determinism(with_layer(layer), "a name")
    with pytest.raises(BackboneError, match="cannot compute features and gradients") as caught:
        check_determinism(with_layer(NotBackwards()), "a name")
    assert caught.value.got == "a name: a view is being modified inplace"


def test_a_sound_backbone_passes_and_no_generator_moves() -> None:
    backbone = with_layer(nn.Identity())
    before = random.getstate(), torch.get_rng_state()
    check_determinism(backbone, "a name")
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert not any(module._forward_hooks for module in backbone.features_network.modules())


def test_random_numbers_of_other_threads_are_not_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """One pass beside a thread that draws proves nothing; a network that draws does so in every pass."""
    backbone = Small()
    passes: list[int] = []
    original = backbone.features

    def beside_another_thread(images: Tensor, prompt: Tensor | None = None) -> Tensor:
        if not passes:
            random.random()
        passes.append(1)
        return original(images, prompt)

    monkeypatch.setattr(backbone, "features", beside_another_thread)
    assert not draws_random_numbers(backbone)


def test_a_backbone_is_checked_once_for_each_environment_and_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path))
    checked: list[str] = []
    monkeypatch.setattr(determinism_check, "check_determinism", lambda backbone, name: checked.append(name))
    other = copy.copy(Small())
    other.digest = Digest.of(b"other weights")
    for _ in range(2):
        require_deterministic(Small(), HERE, "one")
        require_deterministic(Small(), THERE, "elsewhere")
        require_deterministic(other, HERE, "other")
    assert checked == ["one", "elsewhere", "other"]
    for file in (tmp_path / "checks").iterdir():
        file.write_bytes(b"{damaged")
    require_deterministic(Small(), HERE, "again")
    assert checked[3:] == ["again"]


def test_where_nothing_can_be_kept_it_is_checked_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path / "file"))
    for _ in range(2):
        with pytest.raises(BackboneError):
            require_deterministic(with_layer(Noisy()), HERE, "a name")
        require_deterministic(Small(), HERE, "a name")


def test_a_failure_is_never_remembered_as_a_success(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path))
    for _ in range(2):
        with pytest.raises(BackboneError):
            require_deterministic(with_layer(Noisy()), HERE, "a name")


def test_nothing_trains_predicts_or_audits_on_such_a_backbone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them work with an executor, and there is none."""
    monkeypatch.setenv("LMERASER_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match="unlearned exactly"):
        LocalExecutor(config(), with_layer(OwnGenerator()))
    LocalExecutor(config(), Small())


def test_a_network_without_gradients_is_refused() -> None:
    backbone = with_layer(nn.Identity())
    backbone.features_network = nn.Sequential(nn.Threshold(1e9, 0.0), nn.Conv2d(3, 8, 5), Pool())

    def without_gradients(images: Tensor, prompt: Tensor | None = None) -> Tensor:
        features: Tensor = backbone.features_network(images).detach()
        return features

    setattr(backbone, "features", without_gradients)  # noqa: B010
    with pytest.raises(BackboneError, match="gradients"):
        LocalExecutor(config(), backbone)
