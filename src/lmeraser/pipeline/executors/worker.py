"""The code that runs in a worker's process: the local executor behind calls that carry everything they need.

A worker receives the settings once and loads the backbone once. Every result names the environment that made it
and, for artifacts, their digest, so that the pool can reject it. Knows nothing about workspaces, other workers, or
how calls arrive.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.pipeline.executors.base import TuneResult, TuneTask

if TYPE_CHECKING:
    from lmeraser.pipeline.executors.local import LocalExecutor


@dataclass(frozen=True)
class WorkerInfo:
    """A worker's description of itself.

    Attributes:
        fingerprint: digest of its environment.
        backbone: digest of its backbone.
        environment: the fields of the environment fingerprint.
        class_vectors: the backbone's public class vectors, float32 [classes, d], if it has any.
    """

    fingerprint: Digest
    backbone: Digest
    environment: dict[str, Any]
    class_vectors: NDArray[np.float32] | None


@dataclass(frozen=True)
class WorkerResult:
    """The result of a call, with the evidence that the pool checks.

    Attributes:
        fingerprint: digest of the environment that made it.
        value: a `TuneResult`, features float32 [n, views * d], or what an applied function returned.
        digest: of the artifact's bytes, if the value is a `TuneResult`.
    """

    fingerprint: Digest
    value: Any
    digest: Digest | None = None


@dataclass(frozen=True)
class Reply:
    """How a call ended: with a value, or with an error."""

    value: Any = None
    error: Exception | None = None


class Dispatcher:
    """Dispatches calls to the worker of this process.

    Args:
        create: creates the worker, at the first call, so that its errors become replies.
        settings: passed to ``create``.
    """

    def __init__(self, create: Callable[[str], Any], settings: str) -> None:
        self._create = create
        self._settings = settings
        self._worker: Any = None

    def call(self, method: str, *arguments: Any) -> Reply:
        """Call a method of the worker."""
        try:
            self._worker = self._worker or self._create(self._settings)
            return Reply(getattr(self._worker, method)(*arguments))
        except Exception as error:
            return Reply(error=error)


class Worker:
    """Runs stages for a pool.

    Args:
        settings: all settings, as JSON.
    """

    def __init__(self, settings: str) -> None:
        from lmeraser.pipeline.executors.local import LocalExecutor

        self._executor = LocalExecutor(Config.model_validate_json(settings))
        self._shared: Any = None

    def describe(self) -> WorkerInfo:
        """The worker's environment and backbone."""
        executor = self._executor
        class_vectors = executor.network.class_vectors
        return WorkerInfo(executor.fingerprint, executor.backbone, executor.describe(), class_vectors)

    def tune(self, task: TuneTask, payloads: Sequence[bytes]) -> WorkerResult:
        """Tune one cluster.

        Args:
            task: the cluster.
            payloads: the members' images, or quantized embeddings, in their order.
        """
        by_id = dict(zip(task.ids, payloads, strict=True))
        result: TuneResult
        (result,) = self._executor.tune([task], lambda ids: [by_id[i] for i in ids], silent)
        return WorkerResult(self._executor.fingerprint, result, Digest.of(result.data))

    def embed(self, images: Sequence[bytes], views: Sequence[View]) -> WorkerResult:
        """Features of views of some images."""
        ids = [str(number) for number in range(len(images))]
        embedded = self._executor.embed(ids, lambda some: [images[int(i)] for i in some], silent, views)
        return WorkerResult(self._executor.fingerprint, np.stack([vector for _, vector in embedded]))

    def apply(
        self, function: Callable[[LocalExecutor, Any, Any], Any], part: Any, shared: Any = None
    ) -> WorkerResult:
        """``function(executor, shared, part)``; without ``shared``, with the last one that was sent."""
        if shared is not None:
            self._shared = shared
        return WorkerResult(self._executor.fingerprint, function(self._executor, self._shared, part))
