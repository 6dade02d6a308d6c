"""The global head of statistics that a transaction is about to store, solved on another thread meanwhile.

A deletion knows the statistics of the next model as soon as it has subtracted its records, before it deletes any.
To write them takes about as long as to solve for the head that follows from them, and neither waits for the other.
The head is the same whoever computes it; if the transaction does not happen, it is dropped.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType

from lmeraser.config.global_head import GlobalHeadConfig
from lmeraser.core.blas import one_blas_thread
from lmeraser.core.digests import Digest
from lmeraser.core.sufficient_statistics import SufficientStatistics
from lmeraser.core.tensors import Array
from lmeraser.models.global_head import global_head, sums_digest

Solution = tuple[Digest, dict[str, Array]]  # digest of the statistics, and the head


class EarlyHead:
    """Solves for the head of announced statistics; a context that leaves no work behind.

    Args:
        settings: of the head.
        classes: number of classes of the next model.
    """

    def __init__(self, settings: GlobalHeadConfig, classes: int) -> None:
        self._settings = settings
        self._classes = classes
        self._begun: _Begun | None = None
        self._context = ExitStack()

    def __enter__(self) -> EarlyHead:
        # Throughout, so that the number does not change while this thread computes beside the other.
        self._context.enter_context(one_blas_thread())
        self._threads = self._context.enter_context(ThreadPoolExecutor(2))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._begun = None
        self._context.close()

    def announce(self, statistics: SufficientStatistics) -> None:
        """Begin to solve, unless that has begun for others."""
        if self._begun is None and any(statistics.records_by_class):
            widened = statistics.widened(self._classes)
            head = self._threads.submit(global_head, widened, self._settings)
            self._begun = _Begun(widened, self._threads.submit(sums_digest, widened, self._settings), head)

    def solution(self, statistics: SufficientStatistics) -> Solution | None:
        """Digest and head of these statistics, once they are there; None if they are not what was announced."""
        if self._begun is None or not _same(self._begun.statistics, statistics):
            return None
        return self._begun.digest.result(), self._begun.head.result()


@dataclass(frozen=True)
class _Begun:
    """Statistics, with their digest and their head once these are there."""

    statistics: SufficientStatistics
    digest: Future[Digest]
    head: Future[dict[str, Array]]


def _same(one: SufficientStatistics, other: SufficientStatistics) -> bool:
    """Whether two statistics share their arrays, which nobody changes; equal ones need not be compared."""
    return one.triangle is other.triangle and one.moments is other.moments
