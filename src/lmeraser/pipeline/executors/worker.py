"""What runs in a worker's process: the reference executor behind calls that carry everything they need.

A worker is told the settings once and loads the backbone once. Every answer names the environment that it was made
in and, for artifacts, their digest, so that whoever asked can refuse it. Knows nothing about workspaces, other
workers, or how calls reach it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config, View
from lmeraser.core.digests import Digest
from lmeraser.pipeline.executors.base import TuneResult, TuneTask

if TYPE_CHECKING:
    from lmeraser.pipeline.executors.local import LocalExecutor


@dataclass(frozen=True)
class WorkerInfo:
    """What a worker says of itself.

    Attributes:
        fingerprint: digest of its environment.
        backbone: digest of its backbone.
        environment: the environment in words.
        class_vectors: the backbone's public class vectors, float32 [classes, d], if it has any.
    """

    fingerprint: Digest
    backbone: Digest
    environment: dict[str, Any]
    class_vectors: NDArray[np.float32] | None


@dataclass(frozen=True)
class WorkerResult:
    """A result, with where it was made and, for artifacts, its digest.

    Attributes:
        fingerprint: digest of the environment.
        value: a `TuneResult`, features float32 [n, views * d], or what a function gave.
        digest: of the artifact's bytes.
    """

    fingerprint: Digest
    value: Any
    digest: Digest | None = None


@dataclass(frozen=True)
class Reply:
    """What a call came to: a value, or the error that it ended with."""

    value: Any = None
    error: Exception | None = None


class Dispatcher:
    """Takes calls in a worker's process.

    Args:
        make: makes the worker, with the first call, so that faults of it are replies.
        settings: for it.
    """

    def __init__(self, make: Callable[[str], Any], settings: str) -> None:
        self._make, self._settings = make, settings
        self._worker: Any = None

    def call(self, method: str, *arguments: Any) -> Reply:
        """Call a method of the worker."""
        try:
            self._worker = self._worker or self._make(self._settings)
            return Reply(getattr(self._worker, method)(*arguments))
        except Exception as error:
            return Reply(error=error)


class Worker:
    """One worker.

    Args:
        settings: all of them, as JSON.
    """

    def __init__(self, settings: str) -> None:
        from lmeraser.pipeline.executors.local import LocalExecutor

        self._executor = LocalExecutor(Config.model_validate_json(settings))
        self._shared: Any = None

    def introduce(self) -> WorkerInfo:
        """Who this is."""
        executor = self._executor
        vectors = executor.network.class_vectors
        return WorkerInfo(executor.fingerprint, executor.backbone, executor.describe(), vectors)

    def tune(self, task: TuneTask, payloads: Sequence[bytes]) -> WorkerResult:
        """Tune one cluster; ``payloads`` are the members' images, or codes, in their order."""
        held = dict(zip(task.ids, payloads, strict=True))
        result: TuneResult
        (result,) = self._executor.tune([task], lambda ids: [held[i] for i in ids], lambda *_: None)
        return WorkerResult(self._executor.fingerprint, result, Digest.of(result.data))

    def embed(self, images: Sequence[bytes], views: Sequence[View]) -> WorkerResult:
        """Features of views of some images."""
        ids = [str(number) for number in range(len(images))]
        found = self._executor.embed(ids, lambda some: [images[int(i)] for i in some], lambda *_: None, views)
        return WorkerResult(self._executor.fingerprint, np.stack([vector for _, vector in found]))

    def apply(
        self, function: Callable[[LocalExecutor, Any, Any], Any], part: Any, shared: Any = None
    ) -> WorkerResult:
        """What ``function`` gives for a part; ``shared`` is what it was told last if it is None."""
        if shared is not None:
            self._shared = shared
        return WorkerResult(self._executor.fingerprint, function(self._executor, self._shared, part))
