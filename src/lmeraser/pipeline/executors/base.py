"""The interface of executors, which run the two expensive stages: embedding records and tuning clusters.

The pipeline hands over tasks and gets bytes. It does not know on how many cores, processes or machines they run;
neither the number nor the order in which tasks finish may change a bit of a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress
from lmeraser.errors import BackboneError

Fetch = Callable[[Sequence[str]], Sequence[bytes]]  # payloads, or quantized embeddings, of record ids, in order
Vector = NDArray[np.float32]  # [views * d]


@dataclass(frozen=True)
class TuneTask:
    """One cluster to tune, or all of them where they are tuned together.

    Attributes:
        key: identifies the task in the results.
        ids: the members, sorted.
        labels: class index of each.
        classes: number of classes.
        start: artifact bytes of the checkpoint to continue from; None: from the initial values.
        groups: number of the cluster of each member, if clusters are tuned together; else empty.
        parts: number of clusters that are tuned together.
    """

    key: Digest
    ids: tuple[str, ...]
    labels: tuple[int, ...]
    classes: int
    start: bytes | None = None
    groups: tuple[int, ...] = ()
    parts: int = 1


@dataclass(frozen=True)
class TuneResult:
    """The artifact bytes that a task produced, and the seconds that it took."""

    key: Digest
    data: bytes
    seconds: float


class Executor(Protocol):
    """Embeds records and tunes clusters."""

    @property
    def fingerprint(self) -> Digest:
        """Digest of the environment in which results are made."""
        ...

    @property
    def backbone(self) -> Digest:
        """Digest of the backbone in use."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """The fields of the environment fingerprint, as JSON values."""
        ...

    def class_vectors(self) -> NDArray[np.float32]:
        """The backbone's public class vectors, float32 [classes, d].

        Raises:
            BackboneError: its checkpoint has none.
        """
        ...

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ()
    ) -> Iterator[tuple[str, Vector]]:
        """Vectors of each record, in the order of ``ids``.

        Args:
            ids: of the records.
            fetch: returns their payloads.
            progress: receives progress reports.
            views: of each, one after the other, the vector that embeddings are made of
                (`models.embeddings`); none: the features of the clean view.
        """
        ...

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune every task; results as they finish.

        Args:
            tasks: the clusters to tune.
            fetch: returns payloads, or quantized embeddings where only heads are tuned.
            progress: receives progress reports.
        """
        ...


def require_class_vectors(vectors: NDArray[np.float32] | None, config: Config) -> NDArray[np.float32]:
    """The public class vectors of a backbone that needs to have some.

    Raises:
        BackboneError: it has none.
    """
    if vectors is None:
        raise BackboneError(
            "The backbone has no public class vectors, which a partition on public classes needs",
            got=f"the checkpoint of {config.backbone.name} has no classifier",
            next_step='choose partition.method = "hier_cluster", or another backbone',
        )
    return vectors
