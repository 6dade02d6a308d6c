"""Prediction: embed the image, find its cluster, classify with the cluster's constituent and the global head.

Where the partition gives an image several clusters, their answers are combined (`aggregation`); the global head's
probabilities are mixed in with a fixed weight. Clusters with records whose deletion was accepted can be left out
(quarantine), and the global head replaced by one without them. Reads only the manifest and artifacts, never the
records.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lmeraser.config.schema import View
from lmeraser.core.lda import probabilities
from lmeraser.core.sufficient_statistics import embedding
from lmeraser.core.tensors import from_bytes
from lmeraser.data.images import decode
from lmeraser.errors import NoModelError
from lmeraser.inference.quarantine import NOTHING, Quarantine
from lmeraser.inference.voting import combined
from lmeraser.models.manifest import Cluster, Model
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.base import Router
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.storage.artifacts import Artifacts

Seen = bytes | Image.Image  # an image file, or what `decode` made of one


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    Attributes:
        label: index of the most probable class.
        class_name: its name.
        probability: of that class.
        clusters: numbers of the clusters that were asked.
        rerouted: whether other clusters would have been asked, had they not been quarantined.
    """

    label: int
    class_name: str
    probability: float
    clusters: tuple[int, ...]
    rerouted: bool = False


@dataclass(frozen=True)
class Batch:
    """Answers for many images.

    Attributes:
        probabilities: float32 [n, classes].
        features: of the clean views, float32 [n, d].
        clusters: cluster numbers that were asked, int64 [n, votes], -1 where there are fewer.
        rerouted: whether quarantined clusters would have been asked, bool [n].
        parts: probabilities of the constituents alone and of the global head alone, where the model has them.
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    clusters: NDArray[np.int64]
    rerouted: NDArray[np.bool_]
    parts: Mapping[str, NDArray[np.float32]]


class Predictor:
    """A served model in memory.

    Args:
        model: the manifest.
        store: holds its artifacts.
        executor: with the backbone of the model.
        left_out: what is not used; each image goes to the nearest of the other clusters.

    Raises:
        NoModelError: nothing is left to answer, or the model belongs to another backbone.
    """

    def __init__(
        self,
        model: Model,
        store: Artifacts,
        executor: LocalExecutor,
        left_out: Quarantine = NOTHING,
    ) -> None:
        self.model = model
        self._config = model.config()
        self._executor = executor
        self._require_model()
        self._served = [cluster for cluster in model.clusters if cluster.constituent is not None]
        self._loaded = [cluster for cluster in self._served if cluster.number not in left_out.clusters]
        self._own_head = None
        if model.global_head is not None and not left_out.without_head:
            self._own_head = from_bytes(store.read(model.global_head.artifact))
        self._partition = partition_of(self._config)
        self._fitted = from_bytes(store.read(model.partition.artifact))
        self._route_served, self._served_numbers = self._router(self._served), _numbers(self._served)
        constituents = [c.constituent.artifact for c in self._loaded if c.constituent]
        self._answers = None
        if constituents:
            kind = create_tuner(self._config, executor.network)
            numbered = zip(map(from_bytes, store.read_all(constituents)), self._loaded, strict=True)
            self._answers = kind.predictor([kind.cluster_tensors(tensors, c.number) for tensors, c in numbered])
        wanted: tuple[View, ...] = self._config.embedding.views if self._config.needs_statistics else ()
        self._views: list[View] = ["clean", *(view for view in wanted if view != "clean")]
        self._embedded = [self._views.index(view) for view in wanted]
        self._leave_out(left_out)

    def without(self, left_out: Quarantine) -> Self:
        """The same model in the same memory, which leaves out other clusters; takes no time worth naming.

        Args:
            left_out: what is not used, besides what was left out when the model was loaded.

        Raises:
            NoModelError: nothing is left to answer.
        """
        other = copy.copy(self)
        other._leave_out(left_out)
        return other

    def _leave_out(self, left_out: Quarantine) -> None:
        places = [n for n, cluster in enumerate(self._loaded) if cluster.number not in left_out.clusters]
        self._head = left_out.global_head
        if self._head is None and not left_out.without_head:
            self._head = self._own_head
        if not places and self._head is None:
            raise NoModelError(
                "A prediction needs a cluster or a global head that is not quarantined.",
                got="all that would answer was made of records whose deletion was accepted",
                next_step="carry the requests out with 'lmeraser unlearn'",
            )
        self._used = [self._loaded[place] for place in places]
        self._trie_keys, self._used_numbers = _and_none(places), _numbers(self._used)
        self._route_used = self._router(self._used)

    def _router(self, clusters: Sequence[Cluster]) -> Router:
        return self._partition.router(self._fitted, [cluster.path for cluster in clusters])

    def _require_model(self) -> None:
        if not self.model.clusters:
            raise NoModelError(
                "A prediction needs at least one cluster.",
                got="an empty model: no record is left to learn from",
                next_step="add records and train again",
            )
        present, needed = self._executor.backbone, self.model.backbone
        if present != needed:
            raise NoModelError(
                "A model predicts with the backbone it was tuned on.",
                got=f"backbone {present.short}; the model was tuned on {needed.short}",
                next_step="restore the backbone's files, or run 'lmeraser train'",
            )

    def predict(self, images: Sequence[Seen]) -> list[Prediction]:
        """Class, probability and cluster of each image (bytes of an image file, or decoded)."""
        if not images:
            return []
        batch = self.batch(images)
        return [
            Prediction(
                label=int(label),
                class_name=self.model.classes[label],
                probability=float(shares[label]),
                clusters=tuple(int(number) for number in numbers if number >= 0),
                rerouted=bool(rerouted),
            )
            for shares, numbers, rerouted in zip(batch.probabilities, batch.clusters, batch.rerouted, strict=True)
            for label in [int(shares.argmax())]
        ]

    def batches(self, images: Iterable[Sequence[Seen]]) -> Iterator[Batch]:
        """Answers for lists of images, in their order."""
        yield from map(self.batch, images)

    def batch(self, images: Sequence[Seen]) -> Batch:
        """Probabilities, features and clusters of each image; at least one."""
        micro = self._config.backbone.micro_batch
        parts = [images[start : start + micro] for start in range(0, len(images), micro)]
        done = list(self._executor.stream(self._pass, parts))
        return Batch(
            probabilities=np.concatenate([part.probabilities for part in done]),
            features=np.concatenate([part.features for part in done]),
            clusters=_stacked([part.clusters for part in done]),
            rerouted=np.concatenate([part.rerouted for part in done]),
            parts={name: np.concatenate([part.parts[name] for part in done]) for name in done[0].parts},
        )

    @torch.inference_mode()
    def _pass(self, images: Sequence[Seen]) -> Batch:
        """At most one micro-batch, on one thread."""
        decoded = [decode(image) if isinstance(image, bytes) else image for image in images]
        inputs = [self._executor.look(decoded, view) for view in self._views]
        features = self._executor.features_of(inputs, len(images))
        embedded = embedding(features[:, self._embedded]) if self._embedded else None
        clean: NDArray[np.float32] = np.ascontiguousarray(features[:, 0])
        pixels: NDArray[np.float32] = inputs[0][: len(images)].float().cpu().numpy()
        routes = self._route_used(clean, pixels) if self._used else np.zeros((len(images), 0), np.int64)
        parts = self._parts(QueryBatch(inputs[0], embedded), self._trie_keys[routes])
        clusters = self._used_numbers[routes]
        rerouted = np.zeros(len(images), dtype=np.bool_)
        if len(self._used) < len(self._served):
            wanted = self._served_numbers[self._route_served(clean, pixels)]
            pairs = zip(clusters.tolist(), wanted.tolist(), strict=True)
            rerouted = np.array([{*one} - {-1} != {*other} - {-1} for one, other in pairs], dtype=np.bool_)
        return Batch(self._mixed(parts), clean, clusters, rerouted, parts)

    def _parts(self, asked: QueryBatch, places: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Probabilities of each part of the model that answers, for these places among the loaded clusters."""
        parts = {}
        if self._answers is not None and self._used:
            answers = (self._answers.classify(asked, np.maximum(chosen, 0)) for chosen in places.T)
            parts["constituents"] = combined(answers, places >= 0, self._config.aggregation.combine)
        if self._head is not None:
            assert asked.embeddings is not None
            sharpness = self._config.global_head.sharpness
            parts["global_head"] = probabilities(self._head["weight"][None], asked.embeddings, sharpness)
        return parts

    def _mixed(self, parts: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Probabilities of the constituents and of the global head, mixed by the fixed weight."""
        if len(parts) == 1:
            (only,) = parts.values()
            return only
        weight = np.float32(self._config.global_head.weight)
        return weight * parts["global_head"] + (1 - weight) * parts["constituents"]


def _stacked(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Cluster numbers of several micro-batches, int64 [n, votes], filled up with -1 to the most votes."""
    votes = max(part.shape[1] for part in parts)
    filled = [np.pad(part, ((0, 0), (0, votes - part.shape[1])), constant_values=-1) for part in parts]
    return np.concatenate(filled)


def _numbers(clusters: Sequence[Cluster]) -> NDArray[np.int64]:
    """Their numbers, for routes to be looked up in."""
    return _and_none([cluster.number for cluster in clusters])


def _and_none(numbers: Sequence[int]) -> NDArray[np.int64]:
    """Numbers, and -1 in the last place, which is where position -1 points to."""
    return np.array([*numbers, -1], dtype=np.int64)
