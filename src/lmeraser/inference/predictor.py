"""Prediction: embed the image, find its cluster, classify with the cluster's constituent and the global head.

Where the partition gives an image several clusters, their answers are combined (`voting`); the global head's
probabilities are mixed in with a fixed weight. Clusters with records whose deletion was accepted can be kept in
quarantine, and the global head replaced by one without them. Reads only the manifest and artifacts, never the
records.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
import torch
from numpy.typing import NDArray

from lmeraser.config.modalities import View
from lmeraser.core.lda import probabilities
from lmeraser.core.sufficient_statistics import dequantize
from lmeraser.core.tensors import from_bytes
from lmeraser.errors import NoModelError
from lmeraser.inference.quarantine import NOTHING, Quarantine
from lmeraser.inference.voting import combine
from lmeraser.models.embeddings import quantized_embeddings
from lmeraser.models.manifest import Cluster, Model
from lmeraser.models.modalities import InputEncoder
from lmeraser.models.partitions import partition_of
from lmeraser.models.partitions.base import Router
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.base import QueryBatch
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.storage.artifacts import ArtifactReader

if TYPE_CHECKING:
    from pandas import DataFrame

Query = Any  # as the input encoder of the modality takes it: of an image for instance a path or a Pillow image


@dataclass(frozen=True)
class Prediction:
    """The answer for one query.

    Attributes:
        label: index of the most probable class.
        class_name: its name.
        probability: of that class.
        clusters: numbers of the clusters that answered.
        rerouted: whether other clusters would have answered without the quarantine.
    """

    label: int
    class_name: str
    probability: float
    clusters: tuple[int, ...]
    rerouted: bool = False


class Predictions(list[Prediction]):
    """Answers in the order of the queries."""

    def to_frame(self) -> DataFrame:
        """A DataFrame of pandas with one row for each query and a column for each field of `Prediction`."""
        from pandas import DataFrame

        columns = [field.name for field in fields(Prediction)]
        return DataFrame([[getattr(one, name) for name in columns] for one in self], columns=columns)


@dataclass(frozen=True)
class Batch:
    """Answers for many images.

    Attributes:
        probabilities: float32 [n, classes].
        features: of the clean views, float32 [n, d].
        embeddings: what heads without a prompt see, float32 [n, width]; None where the model has no such head.
        clusters: numbers of the clusters that answered, int64 [n, votes], -1 where there are fewer.
        rerouted: whether other clusters would have answered without the quarantine, bool [n].
        parts: probabilities of the constituents alone and of the global head alone, where the model has them.
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None
    clusters: NDArray[np.int64]
    rerouted: NDArray[np.bool_]
    parts: Mapping[str, NDArray[np.float32]]

    def rows(self, order: NDArray[np.int64]) -> Batch:
        """The answers in another order."""
        return Batch(
            probabilities=self.probabilities[order],
            features=self.features[order],
            embeddings=None if self.embeddings is None else self.embeddings[order],
            clusters=self.clusters[order],
            rerouted=self.rerouted[order],
            parts={name: part[order] for name, part in self.parts.items()},
        )


class BatchPredictor(Protocol):
    """A served model that classifies batches of image files."""

    @property
    def model(self) -> Model:
        """Its manifest."""
        ...

    def batches(self, images: Iterable[Sequence[bytes]]) -> Iterator[Batch]:
        """Answers for lists of images, in their order."""
        ...


class Predictor:
    """A served model in memory.

    Args:
        model: the manifest.
        store: holds its artifacts.
        executor: with the backbone of the model.
        quarantine: what is not used; each image goes to the nearest of the other clusters.

    Raises:
        NoModelError: nothing is left to predict with, or the model belongs to another backbone.
    """

    def __init__(
        self,
        model: Model,
        store: ArtifactReader,
        executor: LocalExecutor,
        quarantine: Quarantine = NOTHING,
    ) -> None:
        self.model = model
        self._config = model.config()
        self._executor = executor
        self._require_model()
        self._served = [cluster for cluster in model.clusters if cluster.constituent is not None]
        self._loaded = [cluster for cluster in self._served if cluster.number not in quarantine.clusters]
        self._own_head = None
        if model.global_head is not None and not quarantine.without_head:
            self._own_head = from_bytes(store.read(model.global_head.artifact))
        self._partition = partition_of(self._config)
        self._fitted = from_bytes(store.read(model.partition.artifact))
        self._route_served = self._router(self._served)
        self._served_numbers = _numbers(self._served)
        constituents = [cluster.constituent.artifact for cluster in self._loaded if cluster.constituent]
        self._constituents = None
        if constituents:
            tuner = create_tuner(self._config, executor.network)
            loaded = zip(map(from_bytes, store.read_all(constituents)), self._loaded, strict=True)
            self._constituents = tuner.predictor(
                [tuner.cluster_tensors(tensors, cluster.number) for tensors, cluster in loaded]
            )
        embedded_views: tuple[View, ...] = self._config.embedding.views if self._config.needs_statistics else ()
        self._views = list(embedded_views)
        self._apply(quarantine)

    @property
    def encoder(self) -> InputEncoder[Any, Any]:
        """Makes queries ready for `predict`, which takes what its `load` gives as well."""
        return self._executor.encoder

    def without(self, quarantine: Quarantine) -> Self:
        """The same model in the same memory with another quarantine; takes hardly any time.

        Args:
            quarantine: what is not used, besides what was in quarantine when the model was loaded.

        Raises:
            NoModelError: nothing is left to predict with.
        """
        other = copy.copy(self)
        other._apply(quarantine)
        return other

    def _apply(self, quarantine: Quarantine) -> None:
        positions = [n for n, cluster in enumerate(self._loaded) if cluster.number not in quarantine.clusters]
        self._head = quarantine.global_head
        if self._head is None and not quarantine.without_head:
            self._head = self._own_head
        if not positions and self._head is None:
            raise NoModelError(
                "All parts of the model are in quarantine",
                got="every part depends on records whose deletion was accepted",
                next_step="carry the requests out with 'lmeraser unlearn'",
            )
        self._used = [self._loaded[position] for position in positions]
        self._used_positions = _with_none(positions)
        self._used_numbers = _numbers(self._used)
        self._route_used = self._router(self._used)

    def _router(self, clusters: Sequence[Cluster]) -> Router:
        return self._partition.router(self._fitted, [cluster.path for cluster in clusters])

    def _require_model(self) -> None:
        if not self.model.clusters:
            raise NoModelError(
                "The model is empty",
                got="no record is left to learn from",
                next_step="add records and train again",
            )
        present = self._executor.backbone
        needed = self.model.backbone
        if present != needed:
            raise NoModelError(
                "The model was tuned on another backbone",
                got=f"backbone {present.short}; the model was tuned on {needed.short}",
                next_step="restore the backbone's files, or run 'lmeraser train'",
            )

    def predict(self, images: Sequence[Query]) -> list[Prediction]:
        """Class, probability and clusters of each image."""
        if not images:
            return []
        batch = self.batch(images)
        rows = zip(batch.probabilities, batch.clusters, batch.rerouted, strict=True)
        return [self._prediction(row, numbers, rerouted=bool(rerouted)) for row, numbers, rerouted in rows]

    def _prediction(self, row: NDArray[np.float32], numbers: NDArray[np.int64], *, rerouted: bool) -> Prediction:
        label = int(row.argmax())
        return Prediction(
            label=label,
            class_name=self.model.classes[label],
            probability=float(row[label]),
            clusters=tuple(int(number) for number in numbers if number >= 0),
            rerouted=rerouted,
        )

    def batches(self, images: Iterable[Sequence[Query]]) -> Iterator[Batch]:
        """Answers for lists of images, in their order."""
        yield from map(self.batch, images)

    def batch(self, images: Sequence[Query]) -> Batch:
        """Probabilities, features and clusters of each image; at least one."""
        queries = self._executor.encoder.prepare(images)
        passes = self._executor.encoder.passes(queries)
        chunks = [[queries[position] for position in positions] for positions in passes]
        batches = list(self._executor.stream(self._micro_batch, chunks))
        together = _concatenated(batches)
        order = np.argsort([position for positions in passes for position in positions])
        return together.rows(order)

    @torch.inference_mode()
    def _micro_batch(self, queries: Sequence[Query]) -> Batch:
        """Answers for at most one micro-batch, on one thread."""
        encoder = self._executor.encoder
        items = [encoder.load(query) for query in queries]
        inputs = encoder.input(items, self._config.clean_view)
        views = [self._config.clean_view, *self._views]
        embeddings = None
        if self._views:
            features, vectors = encoder.embeddable(items, views, inputs)
            embeddings = dequantize(quantized_embeddings(vectors[:, 1:], self._config))[:, :-1]
        else:
            features = encoder.features(items, views, inputs)
        clean: NDArray[np.float32] = np.ascontiguousarray(features[:, 0])
        raw: NDArray[np.float32] = inputs[: len(items)].float().cpu().numpy()
        routes = self._route_used(clean, raw) if self._used else np.zeros((len(items), 0), np.int64)
        parts = self._parts(QueryBatch(inputs, embeddings), self._used_positions[routes])
        clusters = self._used_numbers[routes]
        rerouted = np.zeros(len(items), dtype=np.bool_)
        if len(self._used) < len(self._served):
            served = self._served_numbers[self._route_served(clean, raw)]
            pairs = zip(clusters.tolist(), served.tolist(), strict=True)
            rerouted = np.array([{*one} - {-1} != {*other} - {-1} for one, other in pairs], dtype=np.bool_)
        return Batch(self._mix(parts), clean, embeddings, clusters, rerouted, parts)

    def _parts(self, queries: QueryBatch, positions: NDArray[np.int64]) -> dict[str, NDArray[np.float32]]:
        """Probabilities of each part of the model.

        Args:
            queries: at most one micro-batch of images.
            positions: of the clusters of each image among the loaded ones, int64 [n, votes], -1 for none.
        """
        parts = {}
        if self._constituents is not None and self._used:
            answers = (self._constituents.classify(queries, np.maximum(chosen, 0)) for chosen in positions.T)
            parts["constituents"] = combine(answers, positions >= 0, self._config.aggregation.combine)
        if self._head is not None:
            assert queries.embeddings is not None
            sharpness = self._config.global_head.sharpness
            parts["global_head"] = probabilities(self._head["weight"][None], queries.embeddings, sharpness)
        return parts

    def _mix(self, parts: Mapping[str, NDArray[np.float32]]) -> NDArray[np.float32]:
        """Probabilities of the constituents and of the global head, mixed with the fixed weight."""
        if len(parts) == 1:
            (only,) = parts.values()
            return only
        weight = np.float32(self._config.global_head.weight)
        return weight * parts["global_head"] + (1 - weight) * parts["constituents"]


def _concatenated(batches: Sequence[Batch]) -> Batch:
    """The answers of several micro-batches; clusters are padded with -1 to the most votes."""
    votes = max(batch.clusters.shape[1] for batch in batches)
    clusters = [
        np.pad(batch.clusters, ((0, 0), (0, votes - batch.clusters.shape[1])), constant_values=-1)
        for batch in batches
    ]
    embeddings = [batch.embeddings for batch in batches if batch.embeddings is not None]
    return Batch(
        probabilities=np.concatenate([batch.probabilities for batch in batches]),
        features=np.concatenate([batch.features for batch in batches]),
        embeddings=np.concatenate(embeddings) if embeddings else None,
        clusters=np.concatenate(clusters),
        rerouted=np.concatenate([batch.rerouted for batch in batches]),
        parts={name: np.concatenate([batch.parts[name] for batch in batches]) for name in batches[0].parts},
    )


def _numbers(clusters: Sequence[Cluster]) -> NDArray[np.int64]:
    """Numbers of the clusters by their position, to be indexed with routes."""
    return _with_none([cluster.number for cluster in clusters])


def _with_none(numbers: Sequence[int]) -> NDArray[np.int64]:
    """Numbers, followed by -1, which the position -1 (no cluster) then selects."""
    return np.array([*numbers, -1], dtype=np.int64)
