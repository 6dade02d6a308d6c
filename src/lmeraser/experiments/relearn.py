"""How fast a model learns again what it forgot: epochs of tuning on the forgotten records alone.

Every forgotten record is tuned in the cluster that would answer for it, from that cluster's present constituent,
one epoch at a time at a constant rate. A model that remembers is back sooner than one that never saw the records.
Reads a workspace and changes nothing; knows nothing about what the curve is compared with.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lmeraser.config.schema import Config, merge, parse
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.core.sufficient_statistics import embedding, encode
from lmeraser.eraser import Eraser
from lmeraser.experiments.metrics.accuracies import accuracy
from lmeraser.inference.predictor import Predictor
from lmeraser.models.manifest import Model
from lmeraser.pipeline.executors.base import Fetch, TuneTask
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.storage.artifacts import MemoryStore


@dataclass(frozen=True)
class Forgotten:
    """Records that a model forgot, or never saw.

    Attributes:
        ids: of the records, sorted.
        labels: class of each.
        images: bytes of each.
    """

    ids: Sequence[str]
    labels: Sequence[int]
    images: Sequence[bytes]


def relearn_curve(eraser: Eraser, records: Forgotten, epochs: int) -> list[float]:
    """Accuracy on the records before tuning on them, and after each epoch of it; empty where nothing is tuned."""
    model = eraser.workspace.generations.require()
    if not model.tuned:
        return []
    executor = LocalExecutor(_one_epoch(model.config()), eraser.executor().network)
    store = MemoryStore({s.artifact: eraser.workspace.store.read(s.artifact) for s in model.stages.values()})
    curve = [_accuracy(model, store, executor, records)]
    tasks = _tasks(model, store, executor, records)
    fetch = _fetch(model.config(), executor, records)
    for _ in range(epochs):
        done = {result.key: result.data for result in executor.tune(list(tasks.values()), fetch, silent)}
        tasks = {number: replace(task, start=done[task.key]) for number, task in tasks.items()}
        model = _with(model, store, {number: done[task.key] for number, task in tasks.items()})
        curve.append(_accuracy(model, store, executor, records))
    return curve


def _one_epoch(config: Config) -> Config:
    values = config.model_dump(exclude={"compute", "storage", "requests"})
    return parse(merge(values, {"tuning": {"epochs": 1, "warmup_epochs": 0.0, "schedule": "constant"}}))


def _tasks(model: Model, store: MemoryStore, executor: LocalExecutor, records: Forgotten) -> dict[int, TuneTask]:
    """A tuning for each cluster that answers for some of the records, by its number."""
    routes = Predictor(model, store, executor).batch(records.images).clusters
    members: dict[int, list[int]] = defaultdict(list)
    for index, numbers in enumerate(routes.tolist()):
        for number in {number for number in numbers if number >= 0}:
            members[number].append(index)
    tasks = {}
    for cluster in model.clusters:
        if cluster.constituent is not None and (mine := members.get(cluster.number)):
            ids = tuple(records.ids[index] for index in mine)
            labels = tuple(records.labels[index] for index in mine)
            start = store.read(cluster.constituent.artifact)
            tasks[cluster.number] = TuneTask(
                Digest.of_json(cluster.number), ids, labels, len(model.classes), start
            )
    return tasks


def _fetch(config: Config, executor: LocalExecutor, records: Forgotten) -> Fetch:
    """Images of record ids, or their codes where heads are tuned on codes."""
    by_id: Mapping[str, Any] = dict(zip(records.ids, records.images, strict=True))
    if config.constituent.given == "codes":
        images, views = by_id, config.embedding.views
        stream = executor.embed(records.ids, lambda ids: [images[i] for i in ids], silent, views)
        vectors = np.stack([vector for _, vector in stream]).reshape(len(records.ids), len(views), -1)
        by_id = dict(zip(records.ids, encode(embedding(vectors)), strict=True))
    return lambda ids: [by_id[record_id] for record_id in ids]


def _with(model: Model, store: MemoryStore, constituents: Mapping[int, bytes]) -> Model:
    """The model with other constituents for some clusters."""
    clusters = []
    for cluster in model.clusters:
        if cluster.number in constituents and cluster.constituent is not None:
            data, old = constituents[cluster.number], cluster.constituent
            entry = store.keep(Digest.of(data), data, fingerprint=old.fingerprint, seconds=0.0)
            cluster = cluster.model_copy(
                update={"constituent": old.model_copy(update={"artifact": entry.artifact})}
            )
        clusters.append(cluster)
    return model.model_copy(update={"clusters": tuple(clusters)})


def _accuracy(model: Model, store: MemoryStore, executor: LocalExecutor, records: Forgotten) -> float:
    return accuracy(Predictor(model, store, executor).batch(records.images).probabilities, list(records.labels))
