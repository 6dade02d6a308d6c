"""An executor whose environment is known already, and which loads the backbone only when it has to compute."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lmeraser.core.digests import Digest

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from lmeraser.config.modalities import View
    from lmeraser.core.progress import Progress
    from lmeraser.models.fingerprint import Fingerprint
    from lmeraser.pipeline.executors.base import Executor, Fetch, TuneResult, TuneTask, Vector


class DeferredExecutor:
    """Answers what is known of another executor, and hands work over to it.

    Args:
        fingerprint: digest of the environment.
        backbone: digest of the frozen network.
        load: returns the other executor.
        environment: the fields of the fingerprint; None: the other executor is asked for them.
    """

    def __init__(
        self,
        fingerprint: Digest,
        backbone: Digest,
        load: Callable[[], Executor],
        *,
        environment: Fingerprint | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.backbone = backbone
        self._load = load
        self._environment = environment

    def describe(self) -> Mapping[str, Any]:
        """The fields of the environment fingerprint."""
        if self._environment is None:
            return self._load().describe()
        return self._environment.model_dump(mode="json")

    def class_vectors(self) -> NDArray[np.float32]:
        """The backbone's public class vectors, float32 [classes, d]."""
        return self._load().class_vectors()

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ()
    ) -> Iterator[tuple[str, Vector]]:
        """Features of views of each record."""
        return self._load().embed(ids, fetch, progress, views)

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune every task."""
        return self._load().tune(tasks, fetch, progress)
