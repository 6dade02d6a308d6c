"""Tuning against a plain PyTorch training loop that shares no code with it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import png
from lmeraser.backbones.base import Backbone, channel_constants
from lmeraser.backbones.frozen import freeze
from lmeraser.config import Config, parse
from lmeraser.constituents.base import Members, serial
from lmeraser.constituents.descent import head_input
from lmeraser.constituents.prompt_head import PromptHead
from lmeraser.determinism import below, order
from lmeraser.environment import deterministic
from lmeraser.hashing import Digest
from lmeraser.images import Canvases

T = TypeVar("T")
R = TypeVar("R")
SIZE, SIDE, CLASSES, FEATURES = 16, 18, 3, 8


class Small(Backbone):
    """A frozen convolution and a mean over the image; fast, and differentiable like any other."""

    def __init__(self, micro_batch: int = 4, garbage: float = 0.0) -> None:
        torch.manual_seed(0)
        self.digest = Digest.of(b"small")
        self.image_size, self.micro_batch, self.feature_dim = SIZE, micro_batch, FEATURES
        self.device = torch.device("cpu")
        self._mean = channel_constants((0.5,) * 3, self.device)
        self._std = channel_constants((0.5,) * 3, self.device)
        self.network = freeze(nn.Sequential(nn.Conv2d(3, FEATURES, 5, stride=2), nn.Tanh()))
        self.garbage = garbage
        self.shapes: set[tuple[int, ...]] = set()

    def features(self, images: Tensor, prompt: Tensor | None = None) -> Tensor:
        self.shapes.add(tuple(images.shape))
        black = (images.detach() == -1).all(dim=(1, 2, 3))
        pooled: Tensor = self.network(images if prompt is None else images + prompt).mean(dim=(2, 3))
        return pooled + self.garbage * black[:, None]


def config(**changes: Any) -> Config:
    tuning = {"epochs": 3, "batch_size": 8, "head_learning_rate": 0.05, "prompt_learning_rate": 0.05}
    base = {
        "backbone": {"image_size": SIZE, "resize": SIDE, "micro_batch": 4},
        "prompt": {"width": 3, "init_scale": 0.1},
        "head": {"normalize": "none"},
        "tuning": {**tuning, **changes.pop("tuning", {})},
    }
    return parse({**base, **changes})


def members(count: int, labels: list[int] | None = None) -> Members[Canvases]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, SIDE, SIDE, 3), dtype=np.uint8)
    images = {f"r{number:02d}": png(picture) for number, picture in enumerate(pixels)}
    canvases = Canvases(tuple(images), lambda ids: [images[i] for i in ids], side=SIDE, budget=10**8)
    chosen = labels if labels is not None else [number % CLASSES for number in range(count)]
    return Members(tuple(images), tuple(chosen), canvases)


def tuned(
    known: Members[Canvases],
    chosen: Config,
    backbone: Backbone | None = None,
    parallel: Any = serial,
    **options: Any,
) -> dict[str, Any]:
    with deterministic():
        return PromptHead(backbone or Small(), chosen).tune(known, classes=CLASSES, parallel=parallel, **options)


def plain_loop(known: Members[Canvases], chosen: Config, start: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """What a PyTorch user would write: a prompt as a masked image, nn.Linear, torch's optimiser and scheduler."""
    network, tuning = Small().network, chosen.tuning
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    mask[3:-3, 3:-3] = False
    prompt = nn.Parameter(torch.zeros(3, SIZE, SIZE))
    prompt.data[:, mask] = torch.from_numpy(start)
    head = nn.Linear(FEATURES, CLASSES)
    nn.init.zeros_(head.weight)
    nn.init.zeros_(head.bias)
    groups: list[dict[str, Any]] = [
        {"params": [prompt], "lr": tuning.prompt_learning_rate, "weight_decay": 0.0},
        {"params": [head.weight], "lr": tuning.head_learning_rate, "weight_decay": tuning.head_weight_decay},
        {"params": [head.bias], "lr": tuning.head_learning_rate, "weight_decay": 0.0},
    ]
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups)
    if tuning.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=tuning.momentum)
    steps = math.ceil(len(known.ids) / tuning.batch_size)
    warm, total = steps, steps * tuning.epochs
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: (
            (step + 1) / warm
            if step < warm
            else 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, total - warm)))
        ),
    )
    for epoch in range(tuning.epochs):
        shuffled = order(0, "order", known.ids, epoch)
        for first in range(0, len(shuffled), tuning.batch_size):
            batch = shuffled[first : first + tuning.batch_size]
            images, labels = [], []
            for record_id in batch:
                row, column, mirror = below(0, "augment", (3, 3, 2), epoch, record_id)
                index = known.ids.index(record_id)
                view = known.given[[index]][0][row : row + SIZE, column : column + SIZE]
                image = torch.from_numpy(view.copy()).permute(2, 0, 1).float()
                images.append(image.flip(2) if tuning.flip and mirror else image)
                labels.append(known.labels[index])
            inputs = torch.stack(images) / 127.5 - 1 + prompt * mask
            loss = nn.functional.cross_entropy(head(network(inputs).mean(dim=(2, 3))), torch.tensor(labels))
            optimizer.zero_grad()
            torch.autograd.backward(loss)
            optimizer.step()
            scheduler.step()
    return {"prompt": prompt.data[:, mask], "head.weight": head.weight.data, "head.bias": head.bias.data}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("count", [1, 7, 8, 21])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_it_is_what_a_plain_training_loop_gives(optimizer: str, flip: bool, count: int) -> None:
    from lmeraser.prompts import PromptShape

    chosen = config(tuning={"optimizer": optimizer, "flip": flip})
    known = members(count)
    ours = tuned(known, chosen)
    theirs = plain_loop(known, chosen, PromptShape.of(chosen).initial(0, 0.1))
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value.numpy(), rtol=2e-3, atol=2e-4, err_msg=name)


@pytest.mark.parametrize("count", [1, 4, 7, 21])
def test_a_head_may_start_from_the_means_of_its_members(count: int) -> None:
    still = {"prompt_learning_rate": 0.0, "head_learning_rate": 0.0, "head_weight_decay": 0.0}
    chosen = config(tuning=still, head={"normalize": "none", "init": "class_means"})
    known = members(count)
    ours = tuned(known, chosen)
    prompt = torch.zeros(3, SIZE, SIZE)
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    mask[3:-3, 3:-3] = False
    prompt[:, mask] = torch.from_numpy(ours["prompt"])
    pixels = known.given[list(range(count))][:, 1:-1, 1:-1].copy()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    features = Small().network(images + prompt).mean(dim=(2, 3)).detach()
    for label in set(known.labels):
        mean = features[[given == label for given in known.labels]].mean(dim=0)
        np.testing.assert_allclose(ours["head.weight"][label], mean / FEATURES**0.5, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(
            ours["head.bias"][label], -(mean @ mean) / (2 * FEATURES**0.5), rtol=1e-4, atol=1e-5
        )
    again = tuned(known, chosen, parallel=lambda f, items: [f(item) for item in items], start=ours)
    for name, value in ours.items():
        np.testing.assert_array_equal(again[name], value, err_msg="what goes on does not start anew")


def test_the_mapping_of_micro_batches_to_workers_changes_no_bit() -> None:
    def backwards(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        done = [function(item) for item in reversed(list(items))]
        return done[::-1]

    def threads(function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))

    chosen = config(tuning={"batch_size": 16})
    known = members(19)
    first = tuned(known, chosen)
    for parallel in (backwards, threads):
        other = tuned(known, chosen, parallel=parallel)
        assert all(np.array_equal(first[name], other[name]) for name in first)


def test_padding_has_no_influence_and_every_pass_has_one_shape() -> None:
    known = members(5)
    clean, dirty = Small(), Small(garbage=7.0)
    first, second = (
        tuned(known, config(prompt={"kind": "none"}), clean),
        tuned(known, config(prompt={"kind": "none"}), dirty),
    )
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert clean.shapes == {(4, 3, SIZE, SIZE)}


def test_the_backbone_stays_as_it_was() -> None:
    backbone = Small()
    before = [parameter.clone() for parameter in backbone.network.parameters()]
    tuned(members(6), config(), backbone)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in backbone.network.parameters())


@pytest.mark.parametrize("kind", ["padding", "fixed_patch", "random_patch", "none"])
def test_every_kind_of_prompt_is_tuned(kind: str) -> None:
    tensors = tuned(members(9), config(prompt={"kind": kind, "width": 3}))
    assert tensors["prompt"].shape == (3, {"padding": 156, "none": 0}.get(kind, 9))
    assert kind == "none" or np.abs(tensors["prompt"]).max() > 0
    assert np.abs(tensors["head.weight"]).max() > 0
    assert all(tensor.dtype == np.float32 for tensor in tensors.values())


def test_a_member_more_leaves_the_coins_of_the_others_alone() -> None:
    """The same member sees the same crops in any company: with no order effect the results would be equal."""
    chosen = config()
    crops = [below(0, "augment", (3, 3, 2), epoch, "r03") for epoch in range(3)]
    assert [below(chosen.seed, "augment", (3, 3, 2), epoch, "r03") for epoch in range(3)] == crops


def test_without_crop_only_the_centre_is_seen() -> None:
    known = members(6)
    chosen = config(tuning={"crop": False})
    first = tuned(known, chosen)
    framed = np.zeros((6, SIDE, SIDE, 3), np.uint8)
    framed[:, 1:-1, 1:-1] = known.given[range(6)][:, 1:-1, 1:-1]  # another border, the same centre
    images = {record_id: png(picture) for record_id, picture in zip(known.ids, framed, strict=True)}
    canvases = Canvases(known.ids, lambda ids: [images[i] for i in ids], side=SIDE, budget=10**8)
    second = tuned(Members(known.ids, known.labels, canvases), chosen)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_one_class_is_learnt() -> None:
    tensors = tuned(members(6, labels=[1] * 6), config())
    assert tensors["head.bias"].argmax() == 1


def test_steps_are_told_and_may_stop_the_work() -> None:
    counts: list[int] = []
    tuned(members(19), config(), on_step=counts.append)
    assert counts == [8, 8, 3] * 3

    def stop(records: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tuned(members(19), config(), on_step=stop)


def test_features_may_be_normalised_each_for_itself() -> None:
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0)) * 9
    scaled = head_input(features, config(head={"normalize": "unit_rms"}))
    torch.testing.assert_close(scaled.square().mean(dim=1), torch.ones(5))
    assert torch.equal(head_input(features[:2], config(head={"normalize": "unit_rms"})), scaled[:2])
    assert torch.equal(head_input(features, config()), features)
