"""Predictions of an image depend on the image and the model only."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import DIGIT_COLUMNS, chosen, digits, tiny_config
from lmeraser import Eraser
from lmeraser.config.modalities import View
from lmeraser.core.tensors import from_bytes
from lmeraser.data.images import decode
from lmeraser.errors import NoModelError
from lmeraser.inference.predictor import Batch, Predictor
from lmeraser.inference.quarantine import Quarantine
from lmeraser.models.environment import deterministic
from lmeraser.pipeline.executors.local import LocalExecutor


def test_an_image_does_not_see_its_neighbours(eraser: Eraser) -> None:
    images = eraser.workspace.records.payloads(eraser.record_ids()[:11])
    predictor = eraser.predictor()
    together = predictor.batch(images)
    for place, image in enumerate(images):
        alone = predictor.batch([image])
        np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[place])
        np.testing.assert_array_equal(alone.features[0], together.features[place])
        np.testing.assert_array_equal(alone.clusters[0], together.clusters[place])
    assert len(set(together.clusters.ravel())) > 1, "clusters are mixed in one pass"


def test_probabilities_are_those_of_the_prompt_and_head_of_the_nearest_cluster(eraser: Eraser) -> None:
    image = eraser.workspace.records.payloads(["digit-0005"])
    batch = eraser.predictor().batch(image)
    number, expected = of_the_nearest_cluster(eraser, image[0], batch.features[0])
    assert batch.clusters.tolist() == [[number]]
    np.testing.assert_allclose(batch.probabilities[0], expected, rtol=1e-4, atol=1e-6)
    assert batch.probabilities[0].sum() == pytest.approx(1)


def of_the_nearest_cluster(eraser: Eraser, image: bytes, feature: Any) -> tuple[int, Any]:
    """By hand: the nearest prototype, its prompt painted by indexing, its head as a product in float64."""
    import torch

    model = eraser.workspace.generations.require()
    store, backbone = eraser.workspace.store, eraser.executor().network
    prototypes = from_bytes(store.read(model.partition.artifact))["prototypes"].astype(np.float64)
    unit = feature / np.linalg.norm(feature.astype(np.float64))
    number = int(np.linalg.norm(prototypes - unit, axis=1).argmin())
    cluster = next(cluster for cluster in model.clusters if cluster.number == number)
    assert cluster.constituent is not None
    tensors = from_bytes(store.read(cluster.constituent.artifact))
    inputs = eraser.executor().encoder.input([decode(image)], "clean")[:1].repeat(backbone.micro_batch, 1, 1, 1)
    frame = np.ones((32, 32), dtype=bool)
    frame[4:-4, 4:-4] = False
    inputs[:, :, torch.from_numpy(frame)] += torch.from_numpy(tensors["prompt"])
    with torch.no_grad(), deterministic():
        features = backbone.features(inputs)[0].double().numpy()
    logits = tensors["head.weight"] @ (features / np.sqrt(np.square(features).mean())) + tensors["head.bias"]
    return number, softmax(logits)


def softmax(logits: Any) -> Any:
    return np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()


def test_clusters_of_a_random_partition_vote(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", tiny_config(partition={"method": "random", "clusters": 3})) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
        image = eraser.workspace.records.payloads(["digit-0005"])
        model = eraser.workspace.generations.require()
        store, executor = eraser.workspace.store, eraser.executor()
        alone = [
            Predictor(model.model_copy(update={"clusters": (cluster,)}), store, executor)
            .batch(image)
            .probabilities
            for cluster in model.clusters
        ]
        batch = eraser.predictor().batch(image)
        np.testing.assert_allclose(batch.probabilities, np.mean(alone, axis=0), rtol=1e-6)
        assert batch.clusters.tolist() == [[0, 1, 2]]


@pytest.mark.parametrize("aggregation", [{"combine": "vote"}, {"route": "one"}])
def test_other_aggregations_serve_the_same_constituents(tmp_path: Path, aggregation: dict[str, str]) -> None:
    random = {"method": "random", "clusters": 3}
    with Eraser.create(tmp_path / "w", tiny_config(partition=random, aggregation=aggregation)) as eraser:
        eraser.add(digits(range(20)), columns=DIGIT_COLUMNS)
        eraser.train()
        predictor = eraser.predictor()
        images = eraser.workspace.records.payloads(eraser.record_ids()[:8])
        together = predictor.batch(images)
        asked_ = {tuple(row) for row in together.clusters.tolist()}
        assert asked_ == ({(0, 1, 2)} if "combine" in aggregation else {(0,), (1,), (2,)})
        for place, image in enumerate(images):
            alone = predictor.batch([image])
            np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[place])
            np.testing.assert_array_equal(alone.clusters[0], together.clusters[place])
        model = predictor.model.model_copy(update={"clusters": predictor.model.clusters[1:]})
        rest = Predictor(model, eraser.workspace.store, eraser.executor()).batch(images)
        if "route" in aggregation:
            kept = together.clusters[:, 0] != 0
            np.testing.assert_array_equal(rest.clusters[kept], together.clusters[kept])


def test_a_model_predicts_with_the_backbone_it_was_tuned_on(eraser: Eraser) -> None:
    model = eraser.workspace.generations.require()
    other = model.model_copy(update={"backbone": model.partition.artifact})
    with pytest.raises(NoModelError, match="backbone"):
        Predictor(other, eraser.workspace.store, LocalExecutor(tiny_config()))


@pytest.mark.parametrize(
    "partition",
    [
        {"method": "class_tree", "max_records": 8},
        {"clusters": 3, "max_records": 6},
        {"clusters": 3, "fitted": "public", "max_records": 12},
    ],
    ids=["class tree", "divided by hash", "public prototypes"],
)
def test_images_with_different_numbers_of_votes_do_not_see_each_other(
    tmp_path: Path, partition: dict[str, object]
) -> None:
    with Eraser.create(tmp_path / "w", tiny_config(partition={"clusters": None, **partition})) as eraser:
        eraser.add(digits(range(40)), columns=DIGIT_COLUMNS)
        eraser.train()
        predictor = eraser.predictor()
        images = eraser.workspace.records.payloads(eraser.record_ids())
        together = predictor.batch(images)
        np.testing.assert_allclose(together.probabilities.sum(axis=1), 1, rtol=1e-5)
        for place, image in list(enumerate(images))[:: chosen(fast=4, explore=1)]:
            alone = predictor.batch([image])
            np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[place])
            votes = [number for number in together.clusters[place] if number >= 0]
            assert [number for number in alone.clusters[0] if number >= 0] == votes
        places = eraser.workspace.records.derived.trie_keys(predictor.model.partition.key)
        numbers = predictor.model.cluster_numbers(places)
        own = [
            numbers[record_id] in row for record_id, row in zip(sorted(numbers), together.clusters, strict=True)
        ]
        assert np.mean(own) > 0.9, "records are answered by the clusters that they tuned"
        assert len(predictor.predict(images[:1])[0].clusters) == sum(together.clusters[0] >= 0)


def test_a_quarantined_cluster_is_never_asked(eraser: Eraser) -> None:
    images = eraser.workspace.records.payloads(eraser.record_ids())
    model, store = eraser.workspace.generations.require(), eraser.workspace.store
    free = eraser.predictor().batch(images)
    hidden = int(free.clusters[0, 0])
    rest = Predictor(model, store, eraser.executor(), Quarantine(frozenset([hidden]))).batch(images)
    assert hidden not in rest.clusters
    moved = free.clusters[:, 0] == hidden
    np.testing.assert_array_equal(rest.rerouted, moved)
    np.testing.assert_array_equal(rest.probabilities[~moved], free.probabilities[~moved])
    everything = Quarantine(frozenset(cluster.number for cluster in model.clusters))
    with pytest.raises(NoModelError, match="every part depends on records"):
        Predictor(model, store, eraser.executor(), everything)


# --- the global head, heads on codes, and no constituents at all --------------------------------------------

_KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "prompts and global head": {"global_head": {"weight": 0.3}, "embedding": {"views": ["whole", "clean"]}},
    "heads": {"constituent": {"kind": "head"}, "embedding": {"views": ["far"]}},
    "heads that vote, and global head": {
        "partition": {"clusters": 4, "max_records": 12},
        "constituent": {"kind": "head"},
        "global_head": {"weight": 0.5},
    },
    "heads of a class tree, and global head": {
        "partition": {"method": "class_tree", "clusters": None, "max_records": 8},
        "constituent": {"kind": "head"},
        "embedding": {"views": ["mirror", "near", "frame"]},
        "global_head": {"weight": 0.5},
    },
    "instant": {
        "partition": {"method": "single", "clusters": None},
        "constituent": {"kind": "none"},
        "embedding": {"views": ["clean", "whole", "near"]},
        "global_head": {"weight": 1.0},
    },
}
Make = Callable[[str], Eraser]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Make]:
    """Trained workspaces of 40 digits, one of each kind; only read by the tests."""
    made: dict[str, Eraser] = {}

    def of_kind(kind: str) -> Eraser:
        if kind not in made:
            opened = Eraser.create(tmp_path_factory.mktemp("kind") / "w", tiny_config(**_KINDS[kind]))
            made[kind] = opened
            opened.add(digits(range(40)), columns=DIGIT_COLUMNS)
            opened.train()
        return made[kind]

    yield of_kind
    for opened in made.values():
        opened.close()


def features_of(eraser: Eraser, image: bytes, view: View) -> Any:
    with deterministic():
        return eraser.executor().encoder.features([decode(image)], [view])[0, 0].astype(np.float64)


def code_by_hand(eraser: Eraser, image: bytes) -> Any:
    """The image's features, one view after the other, averaged in float64 and rounded to codes."""
    seen = []
    for view in eraser.workspace.config.embedding.views:
        features = features_of(eraser, image, view)
        seen.append(features / np.sqrt(np.square(features).mean()))
    mean = np.mean(seen, axis=0)
    return np.append(np.rint(mean / np.sqrt(np.square(mean).mean()) * 1024) / 1024, 1.0)


def of_the_global_head(eraser: Eraser, image: bytes) -> Any:
    """By hand: the scores of the code, made sharper."""
    model, settings = eraser.workspace.generations.require(), eraser.workspace.config.global_head
    assert model.global_head is not None
    weight = from_bytes(eraser.workspace.store.read(model.global_head.artifact))["weight"].astype(np.float64)
    return softmax(settings.sharpness * (weight @ code_by_hand(eraser, image)))


def test_the_global_head_is_mixed_with_the_constituents_by_its_weight(make: Make) -> None:
    eraser = make("prompts and global head")
    images = eraser.workspace.records.payloads(eraser.record_ids()[:5])
    batch = eraser.predictor().batch(images)
    for place, image in enumerate(images):
        number, tuned = of_the_nearest_cluster(eraser, image, batch.features[place])
        assert batch.clusters[place].tolist() == [number]
        mixed = 0.3 * of_the_global_head(eraser, image) + 0.7 * tuned
        np.testing.assert_allclose(batch.probabilities[place], mixed, rtol=0, atol=1e-5)
        np.testing.assert_allclose(batch.parts["constituents"][place], tuned, rtol=0, atol=1e-5)
    alone = np.stack([of_the_global_head(eraser, image) for image in images])
    np.testing.assert_allclose(batch.parts["global_head"], alone, rtol=0, atol=1e-5)
    assert np.abs(batch.parts["global_head"] - batch.parts["constituents"]).max() > 0.01, "they are told apart"


def test_a_head_on_codes_answers_for_the_images_of_its_cluster(make: Make) -> None:
    eraser = make("heads")
    model, store = eraser.workspace.generations.require(), eraser.workspace.store
    images = eraser.workspace.records.payloads(eraser.record_ids()[:5])
    batch = eraser.predictor().batch(images)
    assert len(set(batch.clusters.ravel())) > 1, "clusters are mixed in one pass"
    assert list(batch.parts) == ["constituents"]
    for place, image in enumerate(images):
        prototypes = from_bytes(store.read(model.partition.artifact))["prototypes"].astype(np.float64)
        clean = features_of(eraser, image, "clean")
        number = int(np.linalg.norm(prototypes - clean / np.linalg.norm(clean), axis=1).argmin())
        assert batch.clusters[place].tolist() == [number]
        constituent = model.clusters[number].constituent
        assert constituent is not None
        weight = from_bytes(store.read(constituent.artifact))["weight"].astype(np.float64)
        expected = softmax(weight @ code_by_hand(eraser, image))
        np.testing.assert_allclose(batch.probabilities[place], expected, rtol=0, atol=1e-5)


def test_without_constituents_the_global_head_answers_alone_and_no_cluster_is_named(make: Make) -> None:
    eraser = make("instant")
    images = eraser.workspace.records.payloads(eraser.record_ids()[:6])
    batch = eraser.predictor().batch(images)
    expected = np.stack([of_the_global_head(eraser, image) for image in images])
    np.testing.assert_allclose(batch.probabilities, expected, rtol=0, atol=1e-5)
    assert batch.clusters.shape == (6, 0)
    assert not batch.rerouted.any()
    assert list(batch.parts) == ["global_head"]
    answers = eraser.predict(images)
    assert [answer.clusters for answer in answers] == [()] * 6
    assert [answer.label for answer in answers] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("kind", _KINDS)
def test_images_do_not_see_each_other_whatever_answers(make: Make, kind: str) -> None:
    predictor = make(kind).predictor()
    images = make(kind).workspace.records.payloads(make(kind).record_ids()[:10])
    together, turned = predictor.batch(images), predictor.batch(images[::-1])
    np.testing.assert_allclose(together.probabilities.sum(axis=1), 1, rtol=1e-5)
    for place, image in enumerate(images):
        alone = predictor.batch([image])
        for other, row in ((alone, 0), (turned, len(images) - 1 - place)):
            np.testing.assert_array_equal(other.probabilities[row], together.probabilities[place])
            np.testing.assert_array_equal(other.features[row], together.features[place])
            assert asked(other, row) == asked(together, place)
            assert other.parts.keys() == together.parts.keys()
            for name, shares in together.parts.items():
                np.testing.assert_array_equal(other.parts[name][row], shares[place])


def asked(batch: Batch, place: int) -> list[int]:
    """The clusters that one image was answered by."""
    return [int(number) for number in batch.clusters[place] if number >= 0]


@pytest.mark.parametrize("kind", [kind for kind in _KINDS if "global_head" in _KINDS[kind]])
def test_with_every_cluster_in_quarantine_the_global_head_still_answers(make: Make, kind: str) -> None:
    eraser = make(kind)
    model = eraser.workspace.generations.require()
    images = eraser.workspace.records.payloads(eraser.record_ids()[:6])
    hidden = [cluster.number for cluster in model.clusters]
    predictor = Predictor(model, eraser.workspace.store, eraser.executor(), Quarantine(frozenset(hidden)))
    batch = predictor.batch(images)
    assert batch.clusters.shape == (6, 0)
    np.testing.assert_array_equal(batch.probabilities, eraser.predictor().batch(images).parts["global_head"])
    assert batch.rerouted.all() == (kind != "instant")
    assert [answer.clusters for answer in predictor.predict(images)] == [()] * 6


def test_with_every_cluster_in_quarantine_heads_alone_cannot_answer(make: Make) -> None:
    eraser = make("heads")
    model = eraser.workspace.generations.require()
    hidden = [cluster.number for cluster in model.clusters]
    with pytest.raises(NoModelError, match="every part depends on records"):
        Predictor(model, eraser.workspace.store, eraser.executor(), Quarantine(frozenset(hidden)))


def test_another_global_head_may_stand_in(make: Make) -> None:
    eraser = make("instant")
    model = eraser.workspace.generations.require()
    images = eraser.workspace.records.payloads(eraser.record_ids()[:3])
    uniform = {"weight": np.zeros((10, 1281), np.float32)}
    predictor = Predictor(model, eraser.workspace.store, eraser.executor(), Quarantine(global_head=uniform))
    np.testing.assert_allclose(predictor.batch(images).probabilities, np.full((3, 10), 0.1), rtol=1e-6)


def test_whether_an_image_is_rerouted_does_not_depend_on_its_neighbours(make: Make) -> None:
    """A cluster of two parts, one of them hidden: nobody in the micro-batch has two votes any more."""
    eraser = make("heads that vote, and global head")
    model, store = eraser.workspace.generations.require(), eraser.workspace.store
    part = next(cluster.number for cluster in model.clusters if "/" in cluster.path)
    predictor = Predictor(model, store, eraser.executor(), Quarantine(frozenset([part])))
    images = eraser.workspace.records.payloads(eraser.record_ids()[:8])
    together = predictor.batch(images).rerouted.tolist()
    free = eraser.predictor().batch(images)
    assert together == [part in asked(free, place) for place in range(len(images))]
    assert together == [bool(predictor.batch([image]).rerouted[0]) for image in images]


@pytest.mark.parametrize("kind", _KINDS)
def test_leaving_out_in_memory_is_the_same_as_not_loading(make: Make, kind: str) -> None:
    eraser = make(kind)
    model, store = eraser.workspace.generations.require(), eraser.workspace.store
    images = eraser.workspace.records.payloads(eraser.record_ids()[:9])
    loaded, free = eraser.predictor(), eraser.predictor().batch(images)
    hidden = {part for place in range(2) for part in asked(free, place)}
    uniform = {"weight": np.zeros((10, 1281), np.float32)} if model.global_head else None
    for left_out in (
        Quarantine(frozenset(hidden)),
        Quarantine(frozenset(hidden), without_head=True),
        Quarantine(),
    ):
        if uniform and left_out.without_head:
            left_out = Quarantine(left_out.clusters, without_head=True, global_head=uniform)
        same(
            Predictor(model, store, eraser.executor(), left_out).batch(images),
            loaded.without(left_out).batch(images),
        )
    same(loaded.batch(images), free)


def same(one: Batch, other: Batch) -> None:
    for name in ("probabilities", "features", "clusters", "rerouted"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.parts.keys() == other.parts.keys()


def test_decoded_images_have_the_answers_of_their_files(make: Make) -> None:
    eraser = make("instant")
    images = eraser.workspace.records.payloads(eraser.record_ids()[:9])
    same(eraser.predictor().batch([decode(image) for image in images]), eraser.predictor().batch(images))
