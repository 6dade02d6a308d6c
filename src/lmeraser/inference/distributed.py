"""Prediction on workers: each receives the served model once, and then images.

The workers run the same `Predictor`, so the answers are those of one process, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lmeraser.inference.predictor import Batch, Predictor
from lmeraser.inference.quarantine import Quarantine
from lmeraser.models.manifest import Model
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.pipeline.executors.pool import PooledExecutor
from lmeraser.storage.artifacts import ArtifactReader, MemoryStore


@dataclass
class ModelPackage:
    """A served model with its artifacts, to send to workers.

    Attributes:
        model: the manifest.
        quarantine: what predictions do not use.
        store: holds the artifacts that a prediction reads, and no others.
    """

    model: Model
    quarantine: Quarantine
    store: MemoryStore
    _predictor: Predictor | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, model: Model, quarantine: Quarantine, store: ArtifactReader) -> ModelPackage:
        """Pack a model. Raises `FileNotFoundError` if one of its artifacts is gone."""
        needed = [
            cluster.constituent.artifact
            for cluster in model.clusters
            if cluster.constituent and cluster.number not in quarantine.clusters
        ]
        needed += [result.artifact for result in (model.partition, model.global_head) if result]
        return cls(model, quarantine, MemoryStore(dict(zip(needed, store.read_all(needed), strict=True))))

    def predictor(self, executor: LocalExecutor) -> Predictor:
        """The model in memory, for this executor; built at the first call."""
        self._predictor = self._predictor or Predictor(self.model, self.store, executor, self.quarantine)
        return self._predictor


class PooledPredictor:
    """A served model on workers.

    Args:
        package: the model.
        pool: the workers.
    """

    def __init__(self, package: ModelPackage, pool: PooledExecutor) -> None:
        self.model = package.model
        self._package = package
        self._pool = pool

    def batches(self, images: Iterable[Sequence[bytes]]) -> Iterator[Batch]:
        """Answers for lists of images, in their order."""
        yield from self._pool.apply(predict_batch, self._package, images)


def predict_batch(executor: LocalExecutor, package: ModelPackage, images: Sequence[bytes]) -> Batch:
    """The function that workers apply."""
    return package.predictor(executor).batch(images)
