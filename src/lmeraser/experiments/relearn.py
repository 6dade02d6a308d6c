"""Relearning curve: accuracy on forgotten records while the model is tuned on them again.

Each forgotten record is tuned in the cluster it is routed to, starting from that cluster's current constituent,
one epoch at a time with a constant learning rate. A model that remembers recovers sooner than one that never saw
the records. Reads a workspace and changes nothing.
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
from lmeraser.eraser import Eraser
from lmeraser.experiments.metrics.accuracies import accuracy
from lmeraser.inference.predictor import Predictor
from lmeraser.models.embeddings import quantized_embeddings
from lmeraser.models.manifest import Model
from lmeraser.pipeline.executors.base import Fetch, TuneTask
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.storage.artifacts import MemoryStore, StageOutput


@dataclass(frozen=True)
class ForgottenRecords:
    """Records that a model forgot or never saw.

    Attributes:
        ids: record ids, sorted.
        labels: class of each record.
        payloads: payload of each record.
    """

    ids: Sequence[str]
    labels: Sequence[int]
    payloads: Sequence[bytes]


def relearn_curve(eraser: Eraser, records: ForgottenRecords, epochs: int) -> list[float]:
    """Accuracy on the records before tuning on them and after each epoch; empty for models without tuning."""
    model = eraser.workspace.generations.require()
    if not model.tuned:
        return []
    executor = LocalExecutor(_one_epoch(model.config()), eraser.executor().network)
    store = MemoryStore({s.artifact: eraser.workspace.store.read(s.artifact) for s in model.stages.values()})
    curve = [_accuracy(model, store, executor, records)]
    tasks = _tasks(model, store, executor, records)
    fetch = _fetch(model.config(), executor, records)
    for _ in range(epochs):
        tuned = {result.key: result.data for result in executor.tune(list(tasks.values()), fetch, silent)}
        tasks = {number: replace(task, start=tuned[task.key]) for number, task in tasks.items()}
        model = _with_constituents(model, store, {number: tuned[task.key] for number, task in tasks.items()})
        curve.append(_accuracy(model, store, executor, records))
    return curve


def _one_epoch(config: Config) -> Config:
    values = config.model_dump(exclude={"compute", "storage", "requests"})
    return parse(merge(values, {"tuning": {"epochs": 1, "warmup_epochs": 0.0, "schedule": "constant"}}))


def _tasks(
    model: Model, store: MemoryStore, executor: LocalExecutor, records: ForgottenRecords
) -> dict[int, TuneTask]:
    """A tuning task for each cluster that some of the records are routed to, by cluster number."""
    routes = Predictor(model, store, executor).batch(records.payloads).clusters
    members: dict[int, list[int]] = defaultdict(list)
    for index, numbers in enumerate(routes.tolist()):
        for number in {number for number in numbers if number >= 0}:
            members[number].append(index)
    tasks = {}
    for cluster in model.clusters:
        if cluster.constituent is not None and (indices := members.get(cluster.number)):
            ids = tuple(records.ids[index] for index in indices)
            labels = tuple(records.labels[index] for index in indices)
            start = store.read(cluster.constituent.artifact)
            tasks[cluster.number] = TuneTask(
                Digest.of_json(cluster.number), ids, labels, len(model.classes), start
            )
    return tasks


def _fetch(config: Config, executor: LocalExecutor, records: ForgottenRecords) -> Fetch:
    """Look up payloads by record id, or quantized embeddings for heads that are tuned on those."""
    by_id: Mapping[str, Any] = dict(zip(records.ids, records.payloads, strict=True))
    if config.constituent.tuned_on == "quantized_embeddings":
        payloads = by_id
        views = config.embedding.views
        stream = executor.embed(records.ids, lambda ids: [payloads[i] for i in ids], silent, views)
        vectors = np.stack([vector for _, vector in stream]).reshape(len(records.ids), len(views), -1)
        by_id = dict(zip(records.ids, quantized_embeddings(vectors, config), strict=True))
    return lambda ids: [by_id[record_id] for record_id in ids]


def _with_constituents(model: Model, store: MemoryStore, constituents: Mapping[int, bytes]) -> Model:
    """Copy the model with some of its constituents replaced."""
    clusters = []
    for cluster in model.clusters:
        if cluster.number in constituents and cluster.constituent is not None:
            data = constituents[cluster.number]
            old = cluster.constituent
            key = Digest.of(data)
            entry = store.put({key: StageOutput(data)}, fingerprint=old.fingerprint)[key]
            cluster = cluster.model_copy(
                update={"constituent": old.model_copy(update={"artifact": entry.artifact})}
            )
        clusters.append(cluster)
    return model.model_copy(update={"clusters": tuple(clusters)})


def _accuracy(model: Model, store: MemoryStore, executor: LocalExecutor, records: ForgottenRecords) -> float:
    return accuracy(Predictor(model, store, executor).batch(records.payloads).probabilities, list(records.labels))
