"""Tasks on several workers, in other processes or on other machines: dispatching, and accepting results.

Rules:
- a task carries all it needs, so any worker can run it, and running it again elsewhere gives the same bytes;
- all results of a pool come from one environment: workers of another one are rejected, because parts that were
  made in several would be a model that no training gives;
- an artifact is accepted if its bytes have the digest that the worker computed and it is of the task that was
  given;
- a worker may lie, so a share of the tasks, drawn at random, is given to two workers, whose results have to be
  equal;
- a worker that is lost is replaced, and its task goes to another one; after `TRIES` losses the task fails;
- payloads are read when a worker is free, so a million tasks take no more memory than a few.

A `WorkerBackend` starts and reaches workers; what they run is in `worker`. Imports no torch.
"""

from __future__ import annotations

import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import starmap
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress
from lmeraser.errors import WorkerError
from lmeraser.pipeline.executors.base import Fetch, TuneResult, TuneTask, Vector, require_class_vectors
from lmeraser.pipeline.executors.worker import Reply, WorkerInfo, WorkerResult

if TYPE_CHECKING:
    from lmeraser.pipeline.executors.local import LocalExecutor

TRIES = 4
_START_SECONDS = 300.0  # until the first worker has to be ready
_MORE_SECONDS = 20.0  # that the others get after it, before work begins
_CHECKED_SHARE = 0.05  # of tasks that two workers run
_MICRO_BATCHES = 8  # images that one call embeds, in micro-batches


class WorkerHandle(Protocol):
    """A worker that was started; it may not be ready yet."""

    def submit(self, method: str, *arguments: Any) -> Future[Reply]:
        """Call a method of `Worker`; one call at a time."""
        ...

    def stop(self) -> None:
        """Stop it, whatever it is doing."""
        ...


class WorkerBackend(Protocol):
    """Starts workers."""

    @property
    def size(self) -> int:
        """How many workers there is room for."""
        ...

    def start(self) -> WorkerHandle:
        """Start a worker; returns at once."""
        ...

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error means that a worker is gone, rather than that its task is wrong."""
        ...

    def stop(self) -> None:
        """Stop all workers."""
        ...


@dataclass
class _Call:
    """A call of a worker's method.

    Attributes:
        method: its name.
        arguments: reads the arguments; called when a worker is free.
        position: among the calls, from 0.
        fits: whether a result can be that of this call.
        twin: position of the call that it repeats, which another worker has to run; None: it repeats none.
        losses: how many workers were lost with it.
    """

    method: str
    arguments: Callable[[], Sequence[Any]]
    position: int
    fits: Callable[[WorkerResult], bool] = lambda _: True
    twin: int | None = None
    losses: int = 0


class _CallQueue:
    """Calls that are not finished, in their order.

    Args:
        calls: all of them.
        window: how far apart the positions of unfinished calls may be; None: no limit.
    """

    def __init__(self, calls: Iterator[_Call], window: int | None) -> None:
        self._calls = calls
        self._window = window
        self._retries: deque[_Call] = deque()
        self._next = next(calls, None)
        self._finished: set[int] = set()
        self._lowest = 0  # position that is not finished

    @property
    def empty(self) -> bool:
        """Whether no call is left to start."""
        return not self._retries and self._next is None

    def take(self) -> _Call | None:
        """A call to start now; None if there is none within the window."""
        if self._retries:
            return self._retries.popleft()
        call = self._next
        if call is None or (self._window is not None and call.position >= self._lowest + self._window):
            return None
        self._next = next(self._calls, None)
        return call

    def retry(self, call: _Call) -> None:
        """Put a call back, before all others."""
        self._retries.append(call)

    def finish(self, call: _Call) -> None:
        """Mark a call as finished."""
        self._finished.add(call.position)
        while self._lowest in self._finished:
            self._finished.remove(self._lowest)
            self._lowest += 1


class PooledExecutor:
    """Runs the expensive stages on workers.

    Args:
        config: all settings.
        backend: starts workers.
        prefer: environments that are preferred, for instance that of the served model.

    Attributes:
        rejected: how many workers were rejected, by their environment.
        replaced: how many workers were lost and replaced.
    """

    def __init__(self, config: Config, backend: WorkerBackend, *, prefer: Iterable[Digest] = ()) -> None:
        self._config = config
        self._backend = backend
        self._prefer = set(prefer)
        self._starting: dict[Future[Reply], WorkerHandle] = {}
        self._idle: deque[WorkerHandle] = deque()
        self.rejected: Counter[Digest] = Counter()
        self.replaced = 0
        self._failed_starts = 0
        self._stopped = 0  # workers that are started again when there is work

    # --- workers ---------------------------------------------------------------------------------------

    @property
    def fingerprint(self) -> Digest:
        """Digest of the environment that all results of this pool come from."""
        return self._reference.fingerprint

    @property
    def backbone(self) -> Digest:
        """Digest of the workers' backbone."""
        return self._reference.backbone

    def describe(self) -> Mapping[str, Any]:
        """The fields of the environment fingerprint."""
        return self._reference.environment

    def class_vectors(self) -> NDArray[np.float32]:
        """The backbone's public class vectors, float32 [classes, d]."""
        return require_class_vectors(self._reference.class_vectors, self._config)

    @cached_property
    def _reference(self) -> WorkerInfo:
        """What all workers have to agree with: those of a preferred environment, or of the commonest one."""
        for _ in range(self._backend.size):
            self._start()
        ready: list[tuple[WorkerInfo, WorkerHandle]] = []
        deadline = time.monotonic() + _START_SECONDS
        while self._starting and (left := deadline - time.monotonic()) > 0:
            for info, handle in self._started(left):
                ready.append((info, handle))
                deadline = min(deadline, time.monotonic() + _MORE_SECONDS)
        if not ready:
            raise WorkerError(
                "No worker became ready in time",
                got=f"none of {len(self._starting)} within {_START_SECONDS:.0f} s",
                next_step="check that the cluster has free cores or GPUs",
            )
        votes = Counter(info.fingerprint for info, _ in ready)

        def rank(fingerprint: Digest) -> tuple[bool, int, Digest]:
            """The same choice for the same workers, whichever answered first."""
            return fingerprint not in self._prefer, -votes[fingerprint], fingerprint

        best = min(votes, key=rank)
        reference = next(info for info, _ in ready if info.fingerprint == best)
        for info, handle in ready:
            self._admit(info, handle, reference)
        return reference

    def _start(self) -> None:
        handle = self._backend.start()
        self._starting[handle.submit("describe")] = handle

    def _started(self, timeout: float | None) -> Iterator[tuple[WorkerInfo, WorkerHandle]]:
        """Workers that have become ready; those that were lost while starting are replaced.

        Raises:
            WorkerError: too many are lost.
            LmeraserError: a worker cannot work, for instance because the backbone is missing.
        """
        finished, _ = wait(self._starting, timeout=timeout, return_when=FIRST_COMPLETED)
        for future in finished:
            handle = self._starting.pop(future)
            error = future.exception()
            if error is None:
                reply = future.result()
                if reply.error is not None:
                    raise reply.error
                yield reply.value, handle
                continue
            if not self._backend.is_loss(error):
                raise error
            self._failed_starts += 1
            if self._failed_starts > TRIES * self._backend.size:
                raise WorkerError(
                    "Workers failed to start", got=f"the last one: {error}", next_step="check the workers' log"
                )
            self._replace(handle)

    def _admit(self, info: WorkerInfo, handle: WorkerHandle, reference: WorkerInfo) -> None:
        """Let a worker join the pool, or reject it."""
        if (info.fingerprint, info.backbone) == (reference.fingerprint, reference.backbone):
            self._idle.append(handle)
        else:
            self.rejected[info.fingerprint] += 1
            handle.stop()

    def _replace(self, handle: WorkerHandle) -> None:
        handle.stop()
        self.replaced += 1
        self._start()

    def close(self) -> None:
        """Stop all workers."""
        self._backend.stop()

    # --- work ------------------------------------------------------------------------------------------

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ()
    ) -> Iterator[tuple[str, Vector]]:
        """Features of views of each record, in the order of ``ids``, in bounded memory."""
        size = _MICRO_BATCHES * self._config.backbone.micro_batch
        parts = [ids[start : start + size] for start in range(0, len(ids), size)]

        def call(position: int) -> _Call:
            part = parts[position]
            return _Call(
                "embed", lambda: (list(fetch(part)), tuple(views)), position, lambda it: len(it.value) == len(part)
            )

        progress("embedding records", 0, len(ids))
        done = 0
        for part, rows in zip(parts, self._in_order(map(call, range(len(parts)))), strict=True):
            yield from zip(part, rows, strict=True)
            done += len(part)
            progress(self._step("embedding records"), done, len(ids))

    def apply(
        self, function: Callable[[LocalExecutor, Any, Any], Any], shared: Any, parts: Iterable[Any]
    ) -> Iterator[Any]:
        """``function(executor, shared, part)`` for each part, in their order, in bounded memory.

        Args:
            function: importable by its name on the workers.
            shared: sent once to each worker; not None.
            parts: taken when a worker is free.
        """

        def call(position: int, part: Any) -> _Call:
            return _Call("apply", lambda: (function, part), position)

        yield from self._in_order(starmap(call, enumerate(parts)), shared)

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune every task, the biggest first; results as they finish.

        Raises:
            WorkerError: two workers gave different results for one task.
        """
        ordered = sorted(tasks, key=lambda task: (-len(task.ids), task.key))
        epochs = self._config.tuning.epochs_run
        total = sum(len(task.ids) for task in ordered) * epochs
        drawn = _draw(len(ordered)) if self._backend.size > 1 else []
        positions = [*range(len(ordered)), *drawn]

        def call(index: int) -> _Call:
            task = ordered[positions[index]]
            twin = positions[index] if index >= len(ordered) else None
            fits = partial(_is_of_task, task=task)
            return _Call("tune", lambda: (task, list(fetch(task.ids))), index, fits, twin)

        progress("tuning clusters", 0, total)
        done = 0
        first: dict[int, TuneResult] = {}  # of two results of a task
        waiting = set(drawn)
        for index, result in self._run(map(call, range(len(positions)))):
            position = positions[index]
            if position in waiting:
                waiting.remove(position)
                first[position] = result
                continue
            if position in first and first.pop(position).data != result.data:
                raise WorkerError(
                    "Two workers gave different results for one task",
                    got=f"a cluster of {len(ordered[position].ids)} records; one of the workers cannot be trusted",
                    next_step="run 'lmeraser doctor' on every machine; then train with workers that pass it",
                )
            done += len(ordered[position].ids) * epochs
            progress(self._step("tuning clusters"), done, total)
            yield result

    def _in_order(self, calls: Iterator[_Call], shared: Any = None) -> Iterator[Any]:
        """Values of calls in the order of their positions."""
        next_position = 0
        early: dict[int, Any] = {}
        for position, value in self._run(calls, window=4 * self._backend.size, shared=shared):
            early[position] = value
            while next_position in early:
                yield early.pop(next_position)
                next_position += 1

    def _run(
        self, calls: Iterator[_Call], window: int | None = None, shared: Any = None
    ) -> Iterator[tuple[int, Any]]:
        """Position and value of every call, as they finish.

        Args:
            calls: started in their order.
            window: how far apart the positions of unfinished calls may be; None: no limit.
            shared: one more argument of each worker's first call.
        """
        reference = self._reference
        queue = _CallQueue(calls, window)
        has_shared: set[WorkerHandle] = set()
        while self._stopped:
            self._stopped -= 1
            self._start()
        running: dict[Future[Reply], tuple[WorkerHandle, _Call]] = {}
        ran: dict[int, WorkerHandle] = {}  # who ran a call
        try:
            while True:
                while self._idle and (call := queue.take()) is not None:
                    others = [each for each in self._idle if call.twin is None or each is not ran.get(call.twin)]
                    if not others and (running or self._starting):  # another worker has to run it
                        queue.retry(call)
                        break
                    handle = others[0] if others else self._idle[0]
                    self._idle.remove(handle)
                    extra = () if shared is None or handle in has_shared else (shared,)
                    has_shared.add(handle)
                    running[handle.submit(call.method, *call.arguments(), *extra)] = handle, call
                if not running and queue.empty:
                    return
                for future in self._finished_calls(running, reference):
                    handle, call = running.pop(future)
                    result = self._accept(future, handle, call, reference)
                    if result is None:
                        queue.retry(call)
                    else:
                        self._idle.append(handle)
                        ran[call.position] = handle
                        queue.finish(call)
                        yield call.position, result.value
        finally:
            for handle, _ in running.values():  # their results would not be used
                handle.stop()
                self._stopped += 1

    def _finished_calls(self, running: Iterable[Future[Reply]], reference: WorkerInfo) -> list[Future[Reply]]:
        """Calls that are finished: at least one, unless a worker has become ready instead."""
        pending: list[Future[Reply]] = [*running, *self._starting]
        if not pending:
            raise WorkerError(
                "No worker of the pool's environment is left",
                got=f"{sum(self.rejected.values())} of other environments were rejected",
                next_step="run the same command again; it uses the others, and finished parts are kept",
            )
        finished, _ = wait(pending, return_when=FIRST_COMPLETED)
        if finished & self._starting.keys():
            for info, handle in self._started(0):
                self._admit(info, handle, reference)
        return [future for future in running if future in finished]

    def _accept(
        self, future: Future[Reply], handle: WorkerHandle, call: _Call, reference: WorkerInfo
    ) -> WorkerResult | None:
        """The result of a call; None if it has to be repeated because its worker was lost or cannot be trusted."""
        error = future.exception()
        if error is not None and not self._backend.is_loss(error):
            raise error
        if error is None:
            reply = future.result()
            if reply.error is not None:
                self._idle.append(handle)
                raise reply.error
            result: WorkerResult = reply.value
            if call.fits(result) and result.fingerprint == reference.fingerprint:
                return result
        self._replace(handle)
        call.losses += 1
        if call.losses >= TRIES:
            raise WorkerError(
                "A task failed on every worker",
                got=f"{TRIES} workers were lost with it; the last one: {error or 'a damaged result'}",
                next_step="check for lack of memory; try a smaller compute.image_memory_mb or fewer workers",
            )
        return None

    def _step(self, name: str) -> str:
        """A step's name, with the number of replaced workers if there are any."""
        return f"{name} ({self.replaced} lost workers replaced)" if self.replaced else name


def _is_of_task(result: WorkerResult, task: TuneTask) -> bool:
    """Whether a result is the artifact whose digest the worker computed, and of the task that it was given."""
    value = result.value
    return isinstance(value, TuneResult) and value.key == task.key and Digest.of(value.data) == result.digest


def _draw(count: int) -> list[int]:
    """The positions of tasks that two workers run; no worker can know which."""
    draw = random.SystemRandom()
    return [position for position in range(count) if draw.random() < _CHECKED_SHARE]
