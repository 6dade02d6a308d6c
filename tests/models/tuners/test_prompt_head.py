"""Tuning against a plain PyTorch training loop that shares no code with it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from conftest import png
from lmeraser.config.schema import Config
from lmeraser.core.seeding import below
from lmeraser.data.canvases import Canvases
from lmeraser.models.modalities.pixel_prompts import PromptShape
from lmeraser.models.tuners.base import Members
from lmeraser.models.tuners.gradient_tuner import head_input
from small import FEATURES, SIDE, SIZE, Small, config, linear_head, members, plain_loop, tuned

T = TypeVar("T")
R = TypeVar("R")


def plain_prompt(known: Members[Canvases], chosen: Config, start: np.ndarray[Any, Any]) -> dict[str, Tensor]:
    """What a PyTorch user would write: a prompt as a masked image, and nn.Linear."""
    network, tuning = Small().features_network, chosen.tuning
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    mask[3:-3, 3:-3] = False
    prompt = nn.Parameter(torch.zeros(3, SIZE, SIZE))
    prompt.data[:, mask] = torch.from_numpy(start)
    head, groups = linear_head(chosen)
    own = {"params": [prompt], "lr": tuning.prompt_learning_rate, "weight_decay": 0.0}
    plain_loop(known, chosen, [own, *groups], lambda images, ids: head(network(images + prompt * mask)))
    return {"prompt": prompt.data[:, mask], "head.weight": head.weight.data, "head.bias": head.bias.data}


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("flip", [True, False])
@pytest.mark.parametrize("count", [1, 7, 8, 21])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_it_is_what_a_plain_training_loop_gives(optimizer: str, flip: bool, count: int) -> None:
    chosen = config(tuning={"optimizer": optimizer, "flip": flip})
    known = members(count)
    ours = tuned(known, chosen)
    theirs = plain_prompt(known, chosen, PromptShape.of(chosen).initial(0, 0.1))
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
    pixels = known.inputs[list(range(count))][:, 1:-1, 1:-1].copy()
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
    features = Small().features_network(images + prompt).detach()
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


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_tuning_may_stop_early_on_the_schedule_of_all_epochs(schedule: str) -> None:
    known, steps = members(9), list[int]()
    early = tuned(known, config(tuning={"stop_after": 2, "schedule": schedule}), on_step=steps.append)
    assert sum(steps) == 2 * 9
    shorter = tuned(known, config(tuning={"epochs": 2, "schedule": schedule}))
    same = all(np.array_equal(early[name], shorter[name]) for name in early)
    assert same == (schedule == "constant"), "with a cosine, the rates are those of three epochs"


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
    before = [parameter.clone() for parameter in backbone.features_network.parameters()]
    tuned(members(6), config(), backbone)
    assert all(torch.equal(a, b) for a, b in zip(before, backbone.features_network.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in backbone.features_network.parameters())


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
    framed[:, 1:-1, 1:-1] = known.inputs[range(6)][:, 1:-1, 1:-1]  # another border, the same centre
    images = {record_id: png(picture) for record_id, picture in zip(known.ids, framed, strict=True)}
    canvases = Canvases(known.ids, lambda ids: [images[i] for i in ids], side=SIDE, budget=10**8)
    second = tuned(Members(known.ids, known.labels, canvases), chosen)
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_one_class_is_learnt() -> None:
    tensors = tuned(members(6, labels=[1] * 6), config())
    assert tensors["head.bias"].argmax() == 1


def test_steps_are_reported_and_may_stop_the_work() -> None:
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
