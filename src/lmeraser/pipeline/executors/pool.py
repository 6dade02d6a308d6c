"""Tasks on several workers, in other processes or on other machines: who gets what, and what is accepted.

Rules:
- a task carries all it needs, so any worker can do it, and doing it again elsewhere gives the same bytes;
- all results of a pool are of one environment: workers of another one are sent away, because parts that were made
  in several would be a model that no training gives;
- an artifact is accepted if its bytes have the digest that the worker computed;
- a worker that is lost is replaced, and its task goes to another one; after `TRIES` losses the task is to blame;
- images are read when a worker is free, so a million tasks take no more memory than a few.

How workers are started and reached is an `WorkerBackend`'s business. Follows `worker`; imports no torch.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property
from itertools import starmap
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.schema import Config, View
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress
from lmeraser.errors import WorkerError
from lmeraser.pipeline.executors.base import Fetch, TuneResult, TuneTask, Vector, required
from lmeraser.pipeline.executors.worker import Reply, WorkerInfo, WorkerResult

if TYPE_CHECKING:
    from lmeraser.pipeline.executors.local import LocalExecutor

TRIES = 4
_START_SECONDS = 300.0  # until the first worker has to be there
_MORE_SECONDS = 20.0  # that the others get after it, before work begins
_MICRO_BATCHES = 8  # images that one call embeds, in micro-batches


class Handle(Protocol):
    """A worker that was started, and may not be ready yet."""

    def submit(self, method: str, *arguments: Any) -> Future[Reply]:
        """Call a method of `Worker`; one call at a time."""
        ...

    def stop(self) -> None:
        """End it, whatever it is doing."""
        ...


class WorkerBackend(Protocol):
    """Starts workers."""

    @property
    def size(self) -> int:
        """How many workers there is room for."""
        ...

    def start(self) -> Handle:
        """Start one; returns at once."""
        ...

    def lost(self, error: BaseException) -> bool:
        """Whether an error means that a worker is gone, and not that its task is wrong."""
        ...

    def stop(self) -> None:
        """End all workers."""
        ...


@dataclass
class _Job:
    method: str
    arguments: Callable[[], Sequence[Any]]
    place: int
    losses: int = 0


class _Todo:
    """Jobs that are left, those of early places first, at most ``ahead`` places apart."""

    def __init__(self, jobs: Iterator[_Job], ahead: int | None) -> None:
        self._jobs, self._ahead = jobs, ahead
        self._again: deque[_Job] = deque()
        self._next = next(jobs, None)
        self._done: set[int] = set()
        self._lowest = 0  # place that is not done

    @property
    def left(self) -> bool:
        """Whether any is left to start."""
        return bool(self._again) or self._next is not None

    def take(self) -> _Job | None:
        """One to start now."""
        if self._again:
            return self._again.popleft()
        job = self._next
        if job is None or (self._ahead is not None and job.place >= self._lowest + self._ahead):
            return None
        self._next = next(self._jobs, None)
        return job

    def again(self, job: _Job) -> None:
        """It has to be done again."""
        self._again.append(job)

    def finish(self, job: _Job) -> None:
        """It is done."""
        self._done.add(job.place)
        while self._lowest in self._done:
            self._done.remove(self._lowest)
            self._lowest += 1


class PooledExecutor:
    """Runs F's stages on the workers of an engine.

    Args:
        config: all settings.
        engine: starts workers.
        prefer: environments that are preferred, for instance that of the served model.
    """

    def __init__(self, config: Config, engine: WorkerBackend, *, prefer: Iterable[Digest] = ()) -> None:
        self._config, self._engine, self._prefer = config, engine, set(prefer)
        self._starting: dict[Future[Reply], Handle] = {}
        self._idle: deque[Handle] = deque()
        self.sent_away: Counter[Digest] = Counter()
        self.replaced = 0
        self._failed_starts = 0
        self._missing = 0  # workers that were stopped and are started again when there is work

    # --- who is there ----------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> Digest:
        """Digest of the environment that all results of this pool are made in."""
        return self._chosen.fingerprint

    @property
    def backbone(self) -> Digest:
        """Digest of the workers' backbone."""
        return self._chosen.backbone

    def describe(self) -> Mapping[str, Any]:
        """The environment in words."""
        return self._chosen.environment

    def class_vectors(self) -> NDArray[np.float32]:
        """The backbone's public class vectors, float32 [classes, d]."""
        return required(self._chosen.class_vectors, self._config)

    @cached_property
    def _chosen(self) -> WorkerInfo:
        """The introduction of the workers that stay: of a preferred environment, or of the commonest."""
        for _ in range(self._engine.size):
            self._start()
        here: list[tuple[WorkerInfo, Handle]] = []
        until = time.monotonic() + _START_SECONDS
        while self._starting and (left := until - time.monotonic()) > 0:
            for introduction in self._introduced(left):
                here.append(introduction)
                until = min(until, time.monotonic() + _MORE_SECONDS)
        if not here:
            raise WorkerError(
                "A pool has at least one worker.",
                got=f"none of {len(self._starting)} was ready after {_START_SECONDS:.0f} s",
                next_step="see whether the cluster has free cores or GPUs",
            )
        votes = Counter(known.fingerprint for known, _ in here)
        # The same choice for the same workers, whoever answered first.
        best = min(votes, key=lambda print_: (print_ not in self._prefer, -votes[print_], print_))
        chosen = next(known for known, _ in here if known.fingerprint == best)
        for known, handle in here:
            self._admit(known, handle, chosen)
        return chosen

    def _start(self) -> None:
        handle = self._engine.start()
        self._starting[handle.submit("introduce")] = handle

    def _introduced(self, timeout: float | None) -> Iterator[tuple[WorkerInfo, Handle]]:
        """Workers that have become ready; those that were lost on the way are replaced.

        Raises:
            WorkerError: they are lost again and again.
            LmeraserError: they cannot work, for instance because the backbone is missing.
        """
        finished, _ = wait(self._starting, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in finished:
            handle, error = self._starting.pop(future), future.exception()
            if error is None:
                reply = future.result()
                if reply.error is not None:
                    raise reply.error
                yield reply.value, handle
                continue
            if not self._engine.lost(error):
                raise error
            self._failed_starts += 1
            if self._failed_starts > TRIES * self._engine.size:
                raise WorkerError("A worker starts.", got=f"the last one: {error}", next_step="look at its log")
            self._replace(handle)

    def _admit(self, known: WorkerInfo, handle: Handle, chosen: WorkerInfo) -> None:
        """Take a worker in, or send it away."""
        if (known.fingerprint, known.backbone) == (chosen.fingerprint, chosen.backbone):
            self._idle.append(handle)
        else:
            self.sent_away[known.fingerprint] += 1
            handle.stop()

    def close(self) -> None:
        """End all workers."""
        self._engine.stop()

    # --- work ------------------------------------------------------------------------------------------

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ("clean",)
    ) -> Iterator[tuple[str, Vector]]:
        """Features of views of each image, in the order of ``ids``, in bounded memory."""
        size = _MICRO_BATCHES * self._config.backbone.micro_batch
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]

        def job(place: int) -> _Job:
            return _Job("embed", lambda: (list(fetch(parts[place])), tuple(views)), place)

        progress("embedding images", 0, len(ids))
        done = 0
        for part, rows in zip(parts, self._in_order(map(job, range(len(parts)))), strict=True):
            yield from zip(part, rows, strict=True)
            done += len(part)
            progress(self._shown("embedding images"), done, len(ids))

    def apply(
        self, function: Callable[[LocalExecutor, Any, Any], Any], shared: Any, parts: Iterable[Any]
    ) -> Iterator[Any]:
        """``function(executor, shared, part)`` for each part, in their order, in bounded memory.

        Args:
            function: one that workers can import by its name.
            shared: sent once to each worker; not None.
            parts: taken when a worker is free.
        """

        def job(place: int, part: Any) -> _Job:
            return _Job("apply", lambda: (function, part), place)

        yield from self._in_order(starmap(job, enumerate(parts)), shared)

    def _in_order(self, jobs: Iterator[_Job], shared: Any = None) -> Iterator[Any]:
        """Values of jobs by their places, which count from 0."""
        done, early = 0, dict[int, Any]()
        for place, value in self._run(jobs, ahead=4 * self._engine.size, shared=shared):
            early[place] = value
            while done in early:
                yield early.pop(done)
                done += 1

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune every task, the biggest first; results as they finish."""
        ordered = sorted(tasks, key=lambda task: (-len(task.ids), task.key))
        epochs = self._config.tuning.epochs_run
        total, done = sum(len(task.ids) for task in ordered) * epochs, 0

        def job(place: int) -> _Job:
            return _Job("tune", lambda: (ordered[place], list(fetch(ordered[place].ids))), place)

        progress("tuning clusters", 0, total)
        for place, result in self._run(map(job, range(len(ordered)))):
            done += len(ordered[place].ids) * epochs
            progress(self._shown("tuning clusters"), done, total)
            yield result

    def _run(
        self, jobs: Iterator[_Job], ahead: int | None = None, shared: Any = None
    ) -> Iterator[tuple[int, Any]]:
        """Place and value of every job, as they finish; those of early places first, at most ``ahead`` apart.

        Each worker's first job here gets what is shared, as one more argument.
        """
        chosen, todo, told = self._chosen, _Todo(jobs, ahead), set[Handle]()
        while self._missing:
            self._missing -= 1
            self._start()
        running: dict[Future[Reply], tuple[Handle, _Job]] = {}
        try:
            while True:
                while self._idle and (job := todo.take()) is not None:
                    handle = self._idle.popleft()
                    more = () if shared is None or handle in told else (shared,)
                    told.add(handle)
                    running[handle.submit(job.method, *job.arguments(), *more)] = handle, job
                if not running and not todo.left:
                    return
                for future in self._finished(running, chosen):
                    handle, job = running.pop(future)
                    answer = self._accepted(future, handle, job, chosen)
                    if answer is None:
                        todo.again(job)
                    else:
                        self._idle.append(handle)
                        todo.finish(job)
                        yield job.place, answer.value
        finally:
            for handle, _ in running.values():  # nobody will take what they are doing
                handle.stop()
                self._missing += 1

    def _finished(self, running: Iterable[Future[Reply]], chosen: WorkerInfo) -> list[Future[Reply]]:
        """Calls that have come to an end, at least one, unless a worker has become ready instead."""
        everything: list[Future[Reply]] = [*running, *self._starting]
        if not everything:
            raise WorkerError(
                "There are workers of the chosen environment.",
                got=f"{sum(self.sent_away.values())} were of another one and sent away; none is left",
                next_step="run the same command again: the others will be chosen; finished parts are kept",
            )
        finished, _ = wait(everything, return_when=FIRST_COMPLETED)
        if finished & self._starting.keys():
            for known, handle in self._introduced(0):
                self._admit(known, handle, chosen)
        return [future for future in running if future in finished]

    def _accepted(
        self, future: Future[Reply], handle: Handle, job: _Job, chosen: WorkerInfo
    ) -> WorkerResult | None:
        """The answer; None if the job has to be done again, because its worker was lost or is not what it was."""
        error = future.exception()
        if error is not None and not self._engine.lost(error):
            raise error
        if error is None:
            reply = future.result()
            if reply.error is not None:
                self._idle.append(handle)
                raise reply.error
            answer: WorkerResult = reply.value
            sound = answer.digest is None or Digest.of(answer.value.data) == answer.digest
            if sound and answer.fingerprint == chosen.fingerprint:
                return answer
        self._replace(handle)
        job.losses += 1
        if job.losses >= TRIES:
            raise WorkerError(
                "A task is finished by one of the workers.",
                got=f"{TRIES} workers were lost with the same task; the last one: {error or 'a damaged result'}",
                next_step="look for lack of memory; a smaller compute.image_memory_mb or fewer workers may help",
            )
        return None

    def _shown(self, step: str) -> str:
        """A step's name, with what people should know of the workers."""
        return f"{step} ({self.replaced} lost workers replaced)" if self.replaced else step

    def _replace(self, handle: Handle) -> None:
        handle.stop()
        self.replaced += 1
        self._start()
