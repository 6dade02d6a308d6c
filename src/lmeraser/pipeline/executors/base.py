"""Where the two dear stages of F run: embedding images and tuning clusters.

F (`derive`) hands over tasks and gets bytes; it does not know on how many cores, processes or machines they
run, and neither the number nor the order in which tasks finish may change a bit of a result.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config, View
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress
from lmeraser.errors import BackboneError

Fetch = Callable[[Sequence[str]], Sequence[bytes]]  # images, or codes, of record ids, in their order
Vector = NDArray[np.float32]  # [views * d]


@dataclass(frozen=True)
class TuneTask:
    """One cluster to tune, or all of them where they are tuned together.

    Attributes:
        key: names the task in the results.
        ids: the members, sorted.
        labels: class index of each.
        classes: number of classes.
        start: artifact bytes of the checkpoint to go on from; None: from the initial values.
        groups: number of the cluster of each member, where clusters are tuned together; else empty.
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
    """The artifact bytes that a task gave, and how long it took."""

    key: Digest
    data: bytes
    seconds: float


class Executor(Protocol):
    """Runs embedding and tuning."""

    @property
    def fingerprint(self) -> Digest:
        """Digest of the environment in which results are made."""
        ...

    @property
    def backbone(self) -> Digest:
        """Digest of the backbone in use."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """The environment in words, as JSON values."""
        ...

    def class_vectors(self) -> NDArray[np.float32]:
        """The backbone's public class vectors, float32 [classes, d].

        Raises:
            BackboneError: its checkpoint has none.
        """
        ...

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ("clean",)
    ) -> Iterator[tuple[str, Vector]]:
        """Features of views of each image, one view after the other, in the order of ``ids``."""
        ...

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune every task; results as they finish.

        Args:
            tasks: what to tune.
            fetch: gives images, or codes where only heads are tuned.
            progress: told how far it is.
        """
        ...


def required(vectors: NDArray[np.float32] | None, config: Config) -> NDArray[np.float32]:
    """Class vectors that a backbone has to have.

    Raises:
        BackboneError: it has none.
    """
    if vectors is None:
        raise BackboneError(
            "A partition on public classes needs a backbone whose checkpoint has a classifier of its own.",
            got=config.backbone.name,
            next_step='choose partition.method = "hier_cluster", or another backbone',
        )
    return vectors
