"""Prediction: embed the clean view, find the cluster, add its prompt, classify with its head.

Where the partition gives an image several clusters, their probabilities are averaged. The prompts and
heads of all clusters are gathered for each image of a micro-batch, so images of different clusters share a pass.
Clusters
that hold records whose deletion was accepted can be left out (quarantine). Reads only the manifest and artifacts,
never the records.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from lmeraser.constituents.prompt_head import head_input, to_input
from lmeraser.errors import NoModelError
from lmeraser.executors.local import LocalExecutor
from lmeraser.model import Cluster, Model
from lmeraser.partitions import Fitted, partition_of
from lmeraser.prompts import PromptShape
from lmeraser.store import Store
from lmeraser.tensors import from_bytes


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
    """

    probabilities: NDArray[np.float32]
    features: NDArray[np.float32]
    clusters: NDArray[np.int64]
    rerouted: NDArray[np.bool_]


class Predictor:
    """A served model in memory.

    Args:
        model: the manifest.
        store: holds its artifacts.
        executor: with the backbone of the model.
        quarantined: numbers of clusters that are not used: each image goes to the nearest of the others.

    Raises:
        NoModelError: the model has no clusters, all of them are quarantined, or it belongs to another backbone.
    """

    def __init__(
        self,
        model: Model,
        store: Store,
        executor: LocalExecutor,
        *,
        quarantined: Collection[int] = (),
    ) -> None:
        used = [cluster for cluster in model.clusters if cluster.number not in set(quarantined)]
        if model.clusters and not used:
            raise NoModelError(
                "A prediction needs a cluster that is not quarantined.",
                got="every cluster holds records whose deletion was accepted",
                next_step="carry the requests out with 'lmeraser unlearn'",
            )
        if not model.clusters:
            raise NoModelError(
                "A prediction needs at least one cluster.",
                got="an empty model: no record is left to learn from",
                next_step="add records and train again",
            )
        if model.backbone != executor.backbone:
            raise NoModelError(
                "A model predicts with the backbone it was tuned on.",
                got=f"backbone {executor.backbone.short}; the model was tuned on {model.backbone.short}",
                next_step="restore the backbone's files, or run 'lmeraser train'",
            )
        self.model = model
        self._config = model.config()
        self._executor = executor
        self._shape = PromptShape.of(self._config)
        self._partition = partition_of(self._config)
        self._fitted: Fitted = from_bytes(store.read(model.partition.artifact))
        self._served, self._used = model.clusters, used
        constituents = [from_bytes(store.read(c.constituent.artifact)) for c in used]
        device = executor.network.device
        self._prompts, self._weights, self._biases = (
            torch.from_numpy(np.stack([tensors[name] for tensors in constituents])).to(device)
            for name in ("prompt", "head.weight", "head.bias")
        )

    def predict(self, images: Sequence[bytes]) -> list[Prediction]:
        """Class, probability and cluster of each image (bytes of image files)."""
        if not images:
            return []
        batch = self.batch(images)
        return [
            Prediction(
                label=int(label),
                class_name=self.model.classes[label],
                probability=float(probabilities[label]),
                clusters=tuple(int(number) for number in numbers if number >= 0),
                rerouted=bool(rerouted),
            )
            for probabilities, numbers, rerouted in zip(
                batch.probabilities, batch.clusters, batch.rerouted, strict=True
            )
            for label in [int(probabilities.argmax())]
        ]

    def batch(self, images: Sequence[bytes]) -> Batch:
        """Probabilities, features and clusters of each image; at least one."""
        micro = self._config.backbone.micro_batch
        parts = [images[start : start + micro] for start in range(0, len(images), micro)]
        done = list(self._executor.stream(self._pass, parts))
        return Batch(
            probabilities=np.concatenate([part.probabilities for part in done]),
            features=np.concatenate([part.features for part in done]),
            clusters=_stacked([part.clusters for part in done]),
            rerouted=np.concatenate([part.rerouted for part in done]),
        )

    @torch.inference_mode()
    def _pass(self, images: Sequence[bytes]) -> Batch:
        """At most one micro-batch, on one thread."""
        backbone = self._executor.network
        clean = to_input(self._executor.clean_views(images), backbone)
        features: NDArray[np.float32] = backbone.features(clean)[: len(images)].cpu().numpy()
        routes = self._routes(features, self._used)
        votes = [self._classify(clean, routes[:, vote]) for vote in range(routes.shape[1])]
        counts = (routes >= 0).sum(axis=1, keepdims=True).astype(np.float32)
        probabilities: NDArray[np.float32] = np.stack(votes).sum(axis=0, dtype=np.float32) / counts
        clusters = _numbers(self._used)[routes]
        if len(self._used) == len(self._served):
            return Batch(probabilities, features, clusters, np.zeros(len(features), dtype=np.bool_))
        wanted = _numbers(self._served)[self._routes(features, self._served)]
        rerouted = [set(one) != set(other) for one, other in zip(clusters.tolist(), wanted.tolist(), strict=True)]
        return Batch(probabilities, features, clusters, np.array(rerouted, dtype=np.bool_))

    def _routes(self, features: NDArray[np.float32], clusters: Sequence[Cluster]) -> NDArray[np.int64]:
        return self._partition.route(self._fitted, features, [cluster.path for cluster in clusters])

    def _classify(self, clean: torch.Tensor, clusters: NDArray[np.int64]) -> NDArray[np.float32]:
        """Probabilities, float32 [n, classes], of images that go to the clusters at these positions; 0 for -1."""
        chosen = torch.from_numpy(np.maximum(clusters, 0))
        chosen = torch.nn.functional.pad(chosen, (0, len(clean) - len(clusters)))
        prompts = self._shape.paint(self._prompts[chosen], [self._shape.prediction_corner])
        features = head_input(self._executor.network.features(clean + prompts), self._config)
        # A product and a sum for each image alone: a batched matrix product may depend on the neighbours.
        logits = (self._weights[chosen] * features[:, None, :]).sum(dim=2) + self._biases[chosen]
        probabilities: NDArray[np.float32] = logits.softmax(dim=1)[: len(clusters)].cpu().numpy()
        return probabilities * (clusters >= 0)[:, None].astype(np.float32)


def _stacked(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Cluster numbers of several micro-batches, int64 [n, votes], filled up with -1 to the most votes."""
    votes = max(part.shape[1] for part in parts)
    filled = [np.pad(part, ((0, 0), (0, votes - part.shape[1])), constant_values=-1) for part in parts]
    return np.concatenate(filled)


def _numbers(clusters: Sequence[Cluster]) -> NDArray[np.int64]:
    """Their numbers, and -1 in the last place, which is where position -1 points to."""
    return np.array([*(cluster.number for cluster in clusters), -1], dtype=np.int64)
