"""Prediction on workers: each gets the served model once, and then images.

The workers run `predict`, so the answers are those of one process, bit for bit. Follows `predict` and
`executors.pooled`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from lmeraser.inference.predictor import Batch, Predictor
from lmeraser.inference.quarantine import Quarantine
from lmeraser.models.manifest import Model
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.pipeline.executors.pool import PooledExecutor
from lmeraser.storage.artifacts import Artifacts, MemoryStore


@dataclass
class Package:
    """A served model with its artifacts, to be sent.

    Attributes:
        model: the manifest.
        left_out: what predictions leave out.
        store: holds the artifacts that a prediction reads, and no others.
    """

    model: Model
    left_out: Quarantine
    store: MemoryStore
    _predictor: Predictor | None = field(default=None, init=False, repr=False)

    @classmethod
    def of(cls, model: Model, left_out: Quarantine, store: Artifacts) -> Package:
        """Pack a model. Raises `FileNotFoundError` if one of its artifacts is gone."""
        wanted = [
            c.constituent.artifact for c in model.clusters if c.constituent and c.number not in left_out.clusters
        ]
        wanted += [part.artifact for part in (model.partition, model.global_head) if part]
        return cls(model, left_out, MemoryStore(dict(zip(wanted, store.read_all(wanted), strict=True))))

    def predictor(self, executor: LocalExecutor) -> Predictor:
        """The model in memory, for this executor; made at the first call."""
        self._predictor = self._predictor or Predictor(self.model, self.store, executor, self.left_out)
        return self._predictor


class PooledPredictor:
    """A served model on workers.

    Args:
        package: the model.
        pool: the workers.
    """

    def __init__(self, package: Package, pool: PooledExecutor) -> None:
        self.model = package.model
        self._package, self._pool = package, pool

    def batches(self, images: Iterable[Sequence[bytes]]) -> Iterator[Batch]:
        """Answers for lists of images, in their order."""
        yield from self._pool.apply(answer, self._package, images)


def answer(executor: LocalExecutor, package: Package, images: Sequence[bytes]) -> Batch:
    """What a worker does."""
    return package.predictor(executor).batch(images)
