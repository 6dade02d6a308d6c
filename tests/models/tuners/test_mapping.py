"""Prompts without head: classes read off outputs, as DAM-VP assigns them or as the members activate them."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import nn

from lmeraser.config.schema import Config, parse
from lmeraser.core.seeding import normal
from lmeraser.errors import BackboneError, ConfigError
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities.pixel_prompts import PromptShape
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.mapping import assign_outputs
from small import CLASSES, FEATURES, SIZE, Small, config, for_tuning, members, plain_loop, tuned


def settings(**changes: Any) -> Config:
    mapping = {"assign": "activity", "noise_images": 10, **changes.pop("mapping", {})}
    return config(constituent={"kind": "mapping"}, mapping=mapping, **changes)


def most_active_by_hand(count: int) -> list[int]:
    """The features that differ most over noise, one image at a time, in the order of their numbers."""
    drawn = [normal(0, f"noise {first}", 4 * 3 * SIZE * SIZE).reshape(4, 3, SIZE, SIZE) for first in (0, 4, 8)]
    images = torch.from_numpy(np.concatenate(drawn)[:10])
    features = torch.stack([Small().features_network(image[None])[0] for image in images]).double()
    return sorted(features.std(dim=0, unbiased=False).argsort(descending=True)[:count].tolist())


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
@pytest.mark.parametrize("count", [1, 21])
@pytest.mark.filterwarnings("ignore:.*lr_scheduler.*")
def test_it_is_what_a_plain_training_loop_gives(optimizer: str, count: int) -> None:
    chosen, known = settings(tuning={"optimizer": optimizer}), members(count)
    ours = tuned(known, chosen)
    network, outputs = Small().features_network, most_active_by_hand(CLASSES)
    mask = torch.ones(SIZE, SIZE, dtype=torch.bool)
    mask[3:-3, 3:-3] = False
    prompt = nn.Parameter(torch.zeros(3, SIZE, SIZE))
    prompt.data[:, mask] = torch.from_numpy(PromptShape.of(chosen).initial(0, 0.1))
    own = {"params": [prompt], "lr": chosen.tuning.prompt_learning_rate, "weight_decay": 0.0}
    plain_loop(known, chosen, [own], lambda images, ids: network(images + prompt * mask)[:, outputs])
    np.testing.assert_allclose(ours["prompt"], prompt.data[:, mask].numpy(), rtol=2e-3, atol=2e-4)
    np.testing.assert_array_equal(ours["head.weight"], np.eye(FEATURES, dtype=np.float32)[outputs])
    assert not ours["head.bias"].any()


def test_activity_looks_at_no_record() -> None:
    first, other = (tuned(members(count), settings())["head.weight"] for count in (3, 11))
    np.testing.assert_array_equal(first, other)


@given(st.integers(0, 2**32 - 1))
@examples(deadline=None, max_examples=40)
def test_members_are_given_the_outputs_that_they_activate_most_by_trying_all(seed: int) -> None:
    coins = np.random.default_rng(seed)
    outputs, labels = coins.standard_normal((9, 5)).astype(np.float32), coins.integers(0, 3, 9).tolist()
    chosen_outputs = assign_outputs(outputs, labels, 3)
    assert len(set(chosen_outputs.tolist())) == 3

    def gain(chosen: Any) -> float:
        means = [outputs[np.array(labels) == c].mean(axis=0) - outputs.mean(axis=0) for c in sorted(set(labels))]
        return float(sum(mean[chosen[c]] for c, mean in zip(sorted(set(labels)), means, strict=True)))

    assert gain(chosen_outputs) == pytest.approx(
        max(gain(chosen) for chosen in permutations(range(5), 3)), abs=1e-5
    )


@pytest.mark.parametrize("outputs", ["features", "classes"])
def test_the_outputs_of_the_members_may_be_public_classes(outputs: str) -> None:
    chosen = settings(mapping={"outputs": outputs, "assign": "members"}, tuning={"prompt_learning_rate": 0.0})
    known = members(12)
    weight = tuned(known, chosen)["head.weight"]
    vectors = np.eye(FEATURES, dtype=np.float32) if outputs == "features" else Small().class_vectors
    numbers = [int(np.flatnonzero((vectors == row).all(axis=1))[0]) for row in weight]
    assert len(set(numbers)) == CLASSES
    start = tuned(known, chosen)
    again = tuned(members(12, labels=[0] * 12), chosen, start=start)
    np.testing.assert_array_equal(again["head.weight"], weight, err_msg="what goes on keeps its mapping")


def test_there_are_as_many_outputs_as_classes() -> None:
    backbone, chosen = Small(), settings()
    with deterministic(), pytest.raises(BackboneError, match=f"{FEATURES} outputs for 9 classes"):
        create_tuner(chosen, backbone).tune(for_tuning(members(3), chosen, backbone), classes=9)


def test_public_classes_have_to_be_there() -> None:
    backbone = Small()
    backbone.class_vectors = None
    with pytest.raises(BackboneError, match="no classifier"):
        tuned(members(3), settings(mapping={"outputs": "classes"}), backbone)


def test_without_prompt_nothing_would_be_tuned() -> None:
    with pytest.raises(ConfigError, match="tunes only a prompt"):
        parse({"constituent": {"kind": "mapping"}, "prompt": {"kind": "none"}})
