"""An executor whose environment is known already, and which loads the backbone only when it has to compute.

Features that somebody else has computed are read, so that vectors are trained on without torch.
"""

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

_FETCHED = 512  # records whose payloads are in memory at once


class DeferredExecutor:
    """Answers what is known of another executor, and hands work over to it.

    Args:
        fingerprint: digest of the environment.
        backbone: digest of the frozen network.
        load: returns the other executor.
        environment: the fields of the fingerprint; None: the other executor is asked for them.
        given: reads the features of a record from its payload, where they need not be computed
            (`backbone_names.given_features`).
    """

    def __init__(
        self,
        fingerprint: Digest,
        backbone: Digest,
        load: Callable[[], Executor],
        *,
        environment: Fingerprint | None = None,
        given: Callable[[bytes], Vector] | None = None,
    ) -> None:
        self.fingerprint = fingerprint
        self.backbone = backbone
        self._load = load
        self._environment = environment
        self._given = given

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
        if self._given is None:
            return self._load().embed(ids, fetch, progress, views)
        return self._read(self._given, ids, fetch, progress, views)

    @staticmethod
    def _read(
        given: Callable[[bytes], Vector],
        ids: Sequence[str],
        fetch: Fetch,
        progress: Progress,
        views: Sequence[View],
    ) -> Iterator[tuple[str, Vector]]:
        """Given features of each record, the same in every view."""
        import numpy as np

        progress("embedding records", 0, len(ids))
        for start in range(0, len(ids), _FETCHED):
            batch = ids[start : start + _FETCHED]
            for record_id, payload in zip(batch, fetch(batch), strict=True):
                yield record_id, np.tile(given(payload), max(len(views), 1))
            progress("embedding records", start + len(batch), len(ids))

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune every task."""
        return self._load().tune(tasks, fetch, progress)
