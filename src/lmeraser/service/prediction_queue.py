"""The queue of queries (images, texts, vectors): those that wait at the same time share passes of the backbone.

One thread takes the waiting queries, runs the served model once, and resolves all futures. The prediction for a
query does not depend on its neighbours (`predictor`), so batching changes no bit; each pass has the size of a
micro-batch whether it is full or not. That is why queries that would begin another pass are left for the next
batch, and why the first of many callers who come back with their next query does not get a batch to itself: it is
given a moment in which the others come back, too. Then half of them are classified while the others are answered,
and the processors are never idle. The passes run at a lower priority, so that cheap calls are not delayed by
many queries. Whatever holds the interpreter's lock for long, such as reading the quarantine, keeps its priority: a
thread that is not scheduled while it holds the lock holds up all others. Queries that would wait too long are
rejected at once. Knows nothing about HTTP.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

from lmeraser.core.thread_priority import lower_priority
from lmeraser.inference.predictor import Prediction, Query
from lmeraser.service.model_holder import ModelHolder, ServedModel
from lmeraser.service.problems import Problem

_RETRY = {"Retry-After": "1"}
_SHARE_WAITED = 0.2  # of the time of a batch, at most, for half of its callers to come back


@dataclass(frozen=True)
class PredictionBatch:
    """The predictions for the queries of one call, all by one model.

    Attributes:
        predictions: in the order of the queries.
        served: the model that made them.
    """

    predictions: list[Prediction]
    served: ServedModel


@dataclass(frozen=True, eq=False)
class _Job:
    queries: Sequence[Query]
    fit: Callable[[ServedModel], bool] | None
    submitted: float
    future: Future[PredictionBatch] = field(default_factory=Future)


class PredictionQueue:
    """Classifies queries, in a thread of its own.

    Args:
        model_holder: the served model.
        batch_queries: a batch takes waiting calls until it has at least this many queries.
        pass_queries: that share a pass of the backbone.
        max_wait_seconds: longest time that the oldest query may have waited when another one is submitted.
        nice: by how much to lower the priority of classification (Linux).
        clock: monotonic seconds.
    """

    def __init__(
        self,
        model_holder: ModelHolder,
        *,
        batch_queries: int,
        pass_queries: int = 1,
        max_wait_seconds: float,
        nice: int = 0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._model_holder = model_holder
        self._batch_queries = batch_queries
        self._pass_queries = pass_queries
        self._max_wait_seconds = max_wait_seconds
        self._nice = nice
        self._clock = clock
        self._jobs: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._stopping = False
        self._waiting = 0
        self._answered = 0  # queries of the last batch
        self._until = 0.0  # when their callers will have come back, if they do
        self._thread = threading.Thread(target=self._run, name="prediction-queue", daemon=True)

    @property
    def waiting(self) -> int:
        """Number of queries (images, texts, vectors) that are waiting or being classified."""
        return self._waiting

    def start(self) -> None:
        """Start classifying."""
        self._thread.start()

    def stop(self) -> None:
        """Classify what is waiting, then stop."""
        with self._changed:
            self._stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(
        self, queries: Sequence[Query], fit: Callable[[ServedModel], bool] | None = None
    ) -> Future[PredictionBatch]:
        """Classify queries, at least one.

        Args:
            queries: to classify, as the encoder of the model takes them.
            fit: whether a served model takes them, where they were made ready for one; None: all do.

        Raises:
            Problem: a query has waited too long.
        """
        job = _Job(queries, fit, self._clock())
        with self._changed:
            if self._jobs and job.submitted - self._jobs[0].submitted > self._max_wait_seconds:
                raise Problem(503, "busy", "Too many queries are waiting", headers=_RETRY)
            self._waiting += len(job.queries)
            self._jobs.append(job)
            self._changed.notify()
        return job.future

    def _run(self) -> None:
        with ThreadPoolExecutor(1, "prediction-passes", lower_priority, (self._nice,)) as passes:
            while jobs := self._next_jobs():
                began = self._clock()
                try:
                    self._predict(jobs, passes)
                except Exception as error:
                    _fail(jobs, error)
                finally:
                    with self._changed:
                        self._answered = sum(len(job.queries) for job in jobs)
                        ended = self._clock()
                        self._until = ended + _SHARE_WAITED * (ended - began)
                        self._waiting -= self._answered

    def _next_jobs(self) -> list[_Job]:
        """The jobs of the next batch; none: the queue is stopping."""
        jobs = list[_Job]()
        queries = 0
        with self._changed:
            self._changed.wait_for(lambda: self._jobs or self._stopping)
            self._changed.wait_for(
                lambda: self._waiting >= self._answered // 2 or self._stopping,
                max(0.0, self._until - self._clock()),
            )
            while self._jobs and queries < self._batch_queries:
                jobs.append(self._jobs.popleft())
                queries += len(jobs[-1].queries)
            full_passes = queries // self._pass_queries * self._pass_queries
            while jobs and queries - len(jobs[-1].queries) >= full_passes > 0:
                queries -= len(jobs[-1].queries)
                self._jobs.appendleft(jobs.pop())
        return jobs

    def _predict(self, jobs: Sequence[_Job], passes: ThreadPoolExecutor) -> None:
        served = self._model_holder.ready()
        outdated = [job for job in jobs if job.fit is not None and not job.fit(served)]
        _fail(outdated, Problem(503, "busy", "The model was replaced; send the call again", headers=_RETRY))
        jobs = [job for job in jobs if job not in outdated]
        if not jobs:
            return
        queries = [query for job in jobs for query in job.queries]
        predictions = iter(passes.submit(served.predictor.predict, queries).result())
        for job in jobs:
            batch = PredictionBatch([next(predictions) for _ in job.queries], served)
            if job.future.set_running_or_notify_cancel():
                job.future.set_result(batch)


def _fail(jobs: Sequence[_Job], error: Exception) -> None:
    for job in jobs:
        if job.future.set_running_or_notify_cancel():
            job.future.set_exception(error)
