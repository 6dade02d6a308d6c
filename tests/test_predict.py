"""Predictions of an image depend on the image and the model only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from conftest import DIGIT_COLUMNS, digits, tiny_config
from lmeraser import Eraser
from lmeraser.errors import NoModelError
from lmeraser.executors.local import LocalExecutor
from lmeraser.images import decode
from lmeraser.predict import Predictor
from lmeraser.tensors import from_bytes


def test_an_image_does_not_see_its_neighbours(eraser: Eraser) -> None:
    images = eraser.workspace.records.images(eraser.record_ids()[:11])
    predictor = eraser.predictor()
    together = predictor.batch(images)
    for place, image in enumerate(images):
        alone = predictor.batch([image])
        np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[place])
        np.testing.assert_array_equal(alone.features[0], together.features[place])
        np.testing.assert_array_equal(alone.clusters[0], together.clusters[place])
    assert len(set(together.clusters.ravel())) > 1, "clusters are mixed in one pass"


def test_probabilities_are_those_of_the_prompt_and_head_of_the_nearest_cluster(eraser: Eraser) -> None:
    """By hand: the nearest prototype, its prompt painted by indexing, its head as a product in float64."""
    import torch

    model = eraser.workspace.generations.require()
    store, backbone = eraser.workspace.store, eraser.executor().network
    image = eraser.workspace.records.images(["digit-0005"])
    batch = eraser.predictor().batch(image)
    prototypes = from_bytes(store.read(model.partition.artifact))["prototypes"].astype(np.float64)
    unit = batch.features[0] / np.linalg.norm(batch.features[0].astype(np.float64))
    number = int(np.linalg.norm(prototypes - unit, axis=1).argmin())
    assert batch.clusters.tolist() == [[number]]
    cluster = next(cluster for cluster in model.clusters if cluster.number == number)
    assert cluster.constituent is not None
    tensors = from_bytes(store.read(cluster.constituent.artifact))
    inputs = eraser.executor().look([decode(image[0])], "clean")[:1].repeat(backbone.micro_batch, 1, 1, 1)
    frame = np.ones((32, 32), dtype=bool)
    frame[4:-4, 4:-4] = False
    inputs[:, :, torch.from_numpy(frame)] += torch.from_numpy(tensors["prompt"])
    with torch.no_grad():
        features = backbone.features(inputs)[0].double().numpy()
    logits = tensors["head.weight"] @ (features / np.sqrt(np.square(features).mean())) + tensors["head.bias"]
    expected = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    np.testing.assert_allclose(batch.probabilities[0], expected, rtol=1e-4, atol=1e-6)
    assert batch.probabilities[0].sum() == pytest.approx(1)


def test_clusters_of_a_random_partition_vote(tmp_path: Path) -> None:
    with Eraser.create(tmp_path / "w", tiny_config(partition={"method": "random", "clusters": 3})) as eraser:
        eraser.add(digits(range(30)), columns=DIGIT_COLUMNS)
        eraser.train()
        image = eraser.workspace.records.images(["digit-0005"])
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
        images = eraser.workspace.records.images(eraser.record_ids())
        together = predictor.batch(images)
        np.testing.assert_allclose(together.probabilities.sum(axis=1), 1, rtol=1e-5)
        for place, image in enumerate(images):
            alone = predictor.batch([image])
            np.testing.assert_array_equal(alone.probabilities[0], together.probabilities[place])
            votes = [number for number in together.clusters[place] if number >= 0]
            assert [number for number in alone.clusters[0] if number >= 0] == votes
        places = eraser.workspace.records.places(predictor.model.partition.key)
        numbers = predictor.model.numbers(places)
        own = [
            numbers[record_id] in row for record_id, row in zip(sorted(numbers), together.clusters, strict=True)
        ]
        assert np.mean(own) > 0.9, "records are answered by the clusters that they tuned"
        assert len(predictor.predict(images[:1])[0].clusters) == sum(together.clusters[0] >= 0)


def test_a_quarantined_cluster_is_never_asked(eraser: Eraser) -> None:
    images = eraser.workspace.records.images(eraser.record_ids())
    model, store = eraser.workspace.generations.require(), eraser.workspace.store
    free = eraser.predictor().batch(images)
    hidden = int(free.clusters[0, 0])
    rest = Predictor(model, store, eraser.executor(), quarantined=[hidden]).batch(images)
    assert hidden not in rest.clusters
    moved = free.clusters[:, 0] == hidden
    np.testing.assert_array_equal(rest.rerouted, moved)
    np.testing.assert_array_equal(rest.probabilities[~moved], free.probabilities[~moved])
    with pytest.raises(NoModelError, match="every cluster"):
        Predictor(model, store, eraser.executor(), quarantined=[cluster.number for cluster in model.clusters])
