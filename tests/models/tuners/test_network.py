"""Whole networks: tuned like in a plain PyTorch loop, from public or random weights, in any thread."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import tiny_config
from lmeraser.config.schema import Config
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities import Backbone, load_backbone
from lmeraser.models.modalities.image import to_input
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.models.tuners.network import NetworkTuner, random_weights
from small import Small, config, for_tuning, linear_head, members, plain_loop, save_transformer, tuned

NAMES = {"network.0.weight", "network.0.bias", "head.weight", "head.bias"}


def settings(**changes: Any) -> Config:
    network = {"learning_rate": 0.02, "weight_decay": 0.1, **changes.pop("network", {})}
    return config(constituent={"kind": "network"}, network=network, **changes)


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("start", ["public", "random"])
@pytest.mark.parametrize("count", [1, 7, 21])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_it_is_what_a_plain_training_loop_gives(optimizer: str, start: str, count: int) -> None:
    chosen, known = settings(tuning={"optimizer": optimizer}, network={"start": start}), members(count)
    ours = tuned(known, chosen)
    network = Small().network()
    if start == "random":
        network.load_state_dict(random_weights(network, 0))
    network.requires_grad_(True)
    head, groups = linear_head(chosen)
    kernel, bias = network.parameters()
    own = [
        {"params": [kernel], "lr": 0.02, "weight_decay": 0.1},
        {"params": [bias], "lr": 0.02, "weight_decay": 0.0},
    ]
    plain_loop(known, chosen, [*own, *groups], lambda images, ids: head(network(images)))
    theirs = {f"network.{name}": value for name, value in network.named_parameters()}
    theirs |= {f"head.{name}": value for name, value in head.named_parameters()}
    assert ours.keys() == theirs.keys() == NAMES
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value.detach().numpy(), rtol=2e-3, atol=2e-4, err_msg=name)


def test_threads_change_no_bit_and_the_backbone_stays_as_it_was() -> None:
    def threads(function: Any, items: Any) -> Any:
        with ThreadPoolExecutor(3, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(function, items))

    chosen, known, backbone = settings(tuning={"batch_size": 16}), members(19), Small()
    before = [value.clone() for value in backbone.features_network.parameters()]
    first = tuned(known, chosen, backbone)
    for _ in range(3):
        other = tuned(known, chosen, backbone, parallel=threads)
        assert all(np.array_equal(first[name], other[name]) for name in first)
    assert all(map(torch.equal, before, backbone.features_network.parameters()))
    assert not np.array_equal(first["network.0.weight"], before[0].numpy())


@pytest.mark.parametrize("start", ["public", "random"])
def test_a_tuning_leaves_nothing_behind_for_the_next(start: str) -> None:
    chosen, known = settings(network={"start": start}), members(9)
    tuner = NetworkTuner(Small(), chosen)
    with deterministic():
        first, again = (tuner.tune(for_tuning(known, tuner.config, tuner.backbone), classes=3) for _ in range(2))
    assert all(np.array_equal(first[name], again[name]) for name in NAMES)


def test_what_goes_on_starts_from_all_weights() -> None:
    known, still = members(9), {"head_learning_rate": 0.0, "head_weight_decay": 0.0}
    first = tuned(known, settings())
    again = tuned(known, settings(tuning=still, network={"learning_rate": 0.0}), start=first)
    assert all(np.array_equal(first[name], again[name]) for name in NAMES)


def test_networks_answer_one_after_the_other_and_images_do_not_see_each_other() -> None:
    backbone, chosen = Small(), settings()
    constituents = [tuned(members(count), chosen, backbone) for count in (5, 9, 13)]
    pixels = members(4).inputs[range(4)][:, 1:-1, 1:-1]
    chosen_heads = np.array([2, 0, 1, 2])
    with deterministic(), torch.inference_mode():
        predictor = NetworkTuner(backbone, chosen).predictor(constituents)
        together = predictor.classify(QueryBatch(to_input(pixels, backbone)), chosen_heads)
        for row in range(4):
            alone = to_input(pixels[row : row + 1], backbone)
            result = predictor.classify(QueryBatch(alone), chosen_heads[row : row + 1])
            np.testing.assert_array_equal(result[0], together[row])
            network = backbone.network()
            tensors = {name: torch.from_numpy(value) for name, value in constituents[chosen_heads[row]].items()}
            network.load_state_dict({n[8:]: v for n, v in tensors.items() if n.startswith("network.")})
            logits = nn.functional.linear(network(alone)[0], tensors["head.weight"], tensors["head.bias"])
            np.testing.assert_allclose(together[row], logits.softmax(0).numpy(), rtol=1e-4, atol=1e-6)


def backbones(folder: Path, name: str) -> Backbone:
    size = {"image_size": 32, "micro_batch": 2}
    where = {} if name == "efficientnet" else {"name": str(save_transformer(folder / name, name))}
    return load_backbone(tiny_config(backbone={**size, **where}))


@pytest.mark.parametrize("name", ["efficientnet", "vit", "swin"])
def test_a_network_to_tune_is_the_backbone_and_learns_in_all_weights(tmp_path: Path, name: str) -> None:
    backbone = backbones(tmp_path, name)
    network, images = backbone.network(), torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))
    features = network(images)
    np.testing.assert_allclose(
        features.detach().numpy(), backbone.features(images).numpy(), rtol=1e-3, atol=3e-5, err_msg=name
    )
    gradients = torch.autograd.grad(features.square().sum(), list(network.parameters()))
    assert all(gradient.abs().max() > 0 for gradient in gradients), "no weight is left out"
    assert not any(module.training for module in network.modules())


@pytest.mark.parametrize("name", ["efficientnet", "vit", "swin"])
def test_random_weights_keep_signals_and_depend_on_the_seed_alone(tmp_path: Path, name: str) -> None:
    backbone = backbones(tmp_path, name)
    network = backbone.network()
    first, again, other = (random_weights(backbone.network(), seed) for seed in (0, 0, 1))
    known = dict(network.named_parameters())
    assert first.keys() == known.keys()
    for key, value in first.items():
        assert value.shape == known[key].shape
        assert torch.equal(value, again[key])
        assert value.ndim == 1 or not torch.equal(value, other[key])
    network.load_state_dict(first, strict=False)
    spread = network(torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(0))).std()
    assert 0.01 < spread < 10
