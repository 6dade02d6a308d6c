"""Prompts of texts: tokens in place of pixels, in the tuners that have one head for all clusters, or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmeraser.config.schema import Config, merge, parse
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.environment import deterministic
from lmeraser.models.modalities import input_encoder, load_backbone
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.base import Members, serial_map

pytest.importorskip("tokenizers")
from tiny_texts import TEXTS, save, settings  # needs tokenizers

CLASSES = 3


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return load_backbone(settings(save("bert", tmp_path_factory.mktemp("bert"))))


def chosen(kind: str, **changes: Any) -> Config:
    base = settings(Path("bert")).model_dump()
    own = {"constituent": {"kind": kind}, "tokens": {"count": 2}, "tuning": {"epochs": 2, "batch_size": 4}}
    return parse(merge(base, merge(own, changes)))


def tuned(config: Config, backbone: Backbone, numbers: tuple[int, ...] = (), count: int = 1) -> dict[str, Any]:
    ids = tuple(f"t{number}" for number in range(len(TEXTS)))
    texts = dict(zip(ids, (text.encode() for text in TEXTS), strict=True))
    inputs = input_encoder(config, backbone).members(
        ids, lambda some: [texts[i] for i in some], budget=10**8, parallel=serial_map
    )
    labels = tuple(number % CLASSES for number in range(len(ids)))
    with deterministic():
        return create_tuner(config, backbone).tune(Members(ids, labels, inputs, numbers, count), classes=CLASSES)


def test_one_head_of_one_cluster_is_the_head_of_that_cluster(backbone: Backbone) -> None:
    alone = tuned(chosen("tokens"), backbone)
    shared = tuned(chosen("shared_head"), backbone, (0,) * len(TEXTS))
    np.testing.assert_array_equal(shared["prompts"][0], alone["tokens"])
    np.testing.assert_array_equal(shared["head.weight"], alone["head.weight"])
    own = create_tuner(chosen("shared_head"), backbone).cluster_tensors(shared, 0)
    np.testing.assert_array_equal(own["tokens"], alone["tokens"])


def test_each_cluster_has_its_tokens_and_a_cluster_without_records_keeps_the_initial_ones(
    backbone: Backbone,
) -> None:
    config = chosen("shared_head", tokens={"weight_decay": 0.0})
    tensors = tuned(config, backbone, (0, 2, 0, 2, 0), 3)
    initial = tuned(merge_rates(config), backbone, (0, 2, 0, 2, 0), 3)["prompts"]
    first, second, third = tensors["prompts"]
    np.testing.assert_array_equal(second, initial[1])
    assert (first != initial[0]).any()
    assert (third != initial[2]).any()
    assert (first != third).any()


def merge_rates(config: Config) -> Config:
    """The same with tokens that are not tuned."""
    return parse(merge(config.model_dump(), {"tokens": {"learning_rate": 0.0}}))


@pytest.mark.parametrize("assign", ["activity", "members"])
def test_a_prompt_without_head_is_tuned_against_outputs_that_stay(backbone: Backbone, assign: str) -> None:
    config = chosen("mapping", mapping={"assign": assign, "noise_images": 8})
    tensors = tuned(config, backbone)
    np.testing.assert_array_equal(tensors["head.weight"].sum(axis=1), 1)
    assert len({int(row.argmax()) for row in tensors["head.weight"]}) == CLASSES
    assert not tensors["head.bias"].any()
    assert (tensors["tokens"] != tuned(merge_rates(config), backbone)["tokens"]).any()


def test_noise_depends_on_its_number_alone(backbone: Backbone) -> None:
    encoder = input_encoder(chosen("mapping"), backbone)
    first, again, other = (encoder.noise(number) for number in (0, 0, 4))
    assert (first == again).all()
    assert (first != other).any()
    assert first.shape[0] == backbone.micro_batch
    assert int(first.min()) >= 0
    assert int(first.max()) < backbone.vocabulary  # type: ignore[attr-defined]


def test_the_settings_of_tokens_are_part_of_the_cache_key_where_they_are_tuned() -> None:
    for kind in ("tokens", "mapping", "shared_head"):
        assert "tokens" in chosen(kind).sections_of_tuning
    for kind in ("head", "network"):  # keys of artifacts that exist stay as they are
        assert "tokens" not in chosen(kind).sections_of_tuning
    for kind in ("mapping", "shared_head", "prompt_head"):
        image = parse({"constituent": {"kind": kind}})
        assert image.sections_of_tuning == image.constituent.reads
