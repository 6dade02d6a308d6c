"""The reference executor: this process, one intra-operation thread per task, several tasks at once.

Work runs in parallel only where that cannot change a bit: over clusters if there are enough to tune, else over the
micro-batches of each step, whose gradients are added up in a fixed order. torch releases Python's lock inside its
operations, so threads are enough. On a GPU clusters are tuned one after the other: threads prepare the inputs, and
one of them starts the passes (`recorded_passes`).
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from lmeraser.config.modalities import View
from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress
from lmeraser.core.tensors import from_bytes, to_bytes
from lmeraser.core.thread_priority import lower_priority
from lmeraser.errors import StoppedError
from lmeraser.models import known_environments
from lmeraser.models.backbones.activations import activations
from lmeraser.models.backbones.base import FINAL, chosen_layers
from lmeraser.models.backbones.determinism_check import require_deterministic
from lmeraser.models.environment import deterministic, fingerprint
from lmeraser.models.fingerprint import Fingerprint
from lmeraser.models.modalities import Backbone, InputEncoder, input_encoder, load_backbone
from lmeraser.models.modalities.base import ParallelMap
from lmeraser.models.tuners import Tuner, create_tuner
from lmeraser.models.tuners.base import Members, serial_map
from lmeraser.pipeline.executors.base import Fetch, TuneResult, TuneTask, Vector, require_class_vectors

T = TypeVar("T")
R = TypeVar("R")


class LocalExecutor:
    """Runs the expensive stages in this process; the results do not depend on ``config.compute``.

    Args:
        config: all settings.
        backbone: the frozen network, if the caller has loaded it already.
        in_flight: how many recorded passes of a tuning are in flight at once; None: as many as suit the device.
        rely_on_known: whether the environment may be the one that an earlier process found (`known_environments`);
            else it is found out here.

    Raises:
        BackboneError: the backbone cannot be loaded, or is not deterministic.
    """

    def __init__(
        self,
        config: Config,
        backbone: Backbone | None = None,
        *,
        in_flight: int | None = None,
        rely_on_known: bool = False,
    ) -> None:
        self._config = config
        facts = known_environments.facts_of(config) if backbone is None else None  # before files are read
        self._backbone = backbone if backbone is not None else load_backbone(config)
        known = known_environments.find(facts) if rely_on_known else None
        self.environment: Fingerprint
        if known is not None and known.backbone == self._backbone.digest:  # it passed the check below
            self.environment = known.fingerprint
        else:
            self.environment = fingerprint(self._backbone)
            # Here, because all that trains, unlearns, audits or predicts does it with an executor.
            names = self._layers_below()
            require_deterministic(self._backbone, self.environment.digest, config.backbone.name, names)
            known = known_environments.KnownEnvironment(self.environment, self._backbone.digest)
            known_environments.remember(facts, known)
        self._in_flight = in_flight
        self._workers = config.compute.workers or os.cpu_count() or 1
        # Kept from call to call: new threads would have to request all their memory from the system again.
        self._threads = ThreadPoolExecutor(
            self._workers, initializer=_init_thread, initargs=(config.compute.nice,)
        )

    def _layers_below(self) -> tuple[str, ...]:
        """The layers below the last one that embeddings are made of."""
        if not self._config.needs_statistics:
            return ()
        names = chosen_layers(self._backbone, self._config.embedding.layers, self._config.backbone.name)
        return tuple(name for name in names if name != FINAL)

    @property
    def fingerprint(self) -> Digest:
        """Digest of the environment fingerprint."""
        return self.environment.digest

    def describe(self) -> dict[str, Any]:
        """The fields of the environment fingerprint."""
        return self.environment.model_dump(mode="json")

    @property
    def backbone(self) -> Digest:
        """Digest of the backbone."""
        return self._backbone.digest

    @property
    def network(self) -> Backbone:
        """The loaded backbone, for prediction."""
        return self._backbone

    @cached_property
    def _tuner(self) -> Tuner[Any]:
        tuner = create_tuner(self._config, self._backbone)
        if self._in_flight is not None:
            tuner.in_flight = self._in_flight
        return tuner

    @property
    def in_flight(self) -> int:
        """How many recorded passes of a tuning are in flight at once; 0 where passes are not recorded."""
        return 0 if self._config.constituent.kind == "none" else self._tuner.in_flight

    def class_vectors(self) -> NDArray[np.float32]:
        """The backbone's public class vectors, float32 [classes, d]."""
        return require_class_vectors(self._backbone.class_vectors, self._config)

    @cached_property
    def encoder(self) -> InputEncoder[Any, Any]:
        """What turns payloads into inputs of the backbone."""
        return input_encoder(self._config, self._backbone)

    def embed(
        self, ids: Sequence[str], fetch: Fetch, progress: Progress, views: Sequence[View] = ()
    ) -> Iterator[tuple[str, Vector]]:
        """Vectors of each record, in the order of ``ids``, in bounded memory."""
        encoder = self.encoder

        def vectors(batch: Sequence[str]) -> NDArray[np.float32]:
            items = [encoder.load(data) for data in fetch(batch)]
            if not views:
                return encoder.features(items, [self._config.clean_view])
            return encoder.embeddable(items, views)[1]

        batches = [ids[start : start + encoder.chunk] for start in range(0, len(ids), encoder.chunk)]
        progress("embedding records", 0, len(ids))
        done = 0
        for batch, rows in zip(batches, self.stream(vectors, batches), strict=True):
            yield from zip(batch, rows.reshape(len(batch), -1), strict=True)
            done += len(batch)
            progress("embedding records", done, len(ids))

    def activations(self, items: Sequence[Any]) -> list[NDArray[np.float32]]:
        """Activations of each layer of the backbone for the clean views of items of the encoder."""
        parts = []
        with deterministic():
            for positions in self.encoder.passes(items):
                batch = [items[position] for position in positions]
                layers = activations(self._backbone, self.encoder.input(batch, self._config.clean_view))
                parts.append([layer[: len(batch)] for layer in layers])
        return [np.concatenate(layer) for layer in zip(*parts, strict=True)]

    def stream(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Apply a function to items, several at once; results in their order, few items in flight."""
        with deterministic(), _ThreadedRun(self._threads, self._workers) as run:
            yield from run.stream(function, items)

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune every task, the biggest first; results as they finish."""
        ordered = sorted(tasks, key=lambda task: (-len(task.ids), task.key))
        counter = _StepCounter(ordered, self._config.tuning.epochs_run, progress)
        with deterministic(), _ThreadedRun(self._threads, self._workers) as run:
            if len(ordered) >= self._workers and not self._tuner.in_flight:
                yield from run.unordered(lambda task: self._tune(task, fetch, serial_map, counter, run), ordered)
            else:
                for task in ordered:
                    yield self._tune(task, fetch, run.stream, counter, run)

    def _tune(
        self,
        task: TuneTask,
        fetch: Fetch,
        parallel: ParallelMap,
        counter: _StepCounter,
        run: _ThreadedRun,
    ) -> TuneResult:
        started = time.perf_counter()
        start = from_bytes(task.start) if task.start is not None else None

        def on_step(records: int) -> None:
            counter.add(records)
            run.check()

        budget = self._config.compute.image_memory_mb * 2**20 // self._workers
        payloads = self._tuner.load(task.ids, fetch, budget=budget, parallel=parallel)
        tensors = self._tuner.tune(
            Members(task.ids, task.labels, payloads, task.groups, task.parts),
            classes=task.classes,
            parallel=parallel,
            start=start,
            on_step=on_step,
        )
        return TuneResult(task.key, to_bytes(tensors), time.perf_counter() - started)


def _init_thread(nice: int) -> None:
    """Prepare a thread of the pool."""
    torch.set_num_threads(1)
    lower_priority(nice)


class _StepCounter:
    """Counts records x epochs over all clusters, from any thread, for the progress report."""

    def __init__(self, tasks: Sequence[TuneTask], epochs: int, progress: Progress) -> None:
        self._total = sum(len(task.ids) for task in tasks) * epochs
        self._done = 0
        self._progress = progress
        self._lock = threading.Lock()
        progress("tuning clusters", 0, self._total)

    def add(self, records: int) -> None:
        with self._lock:
            self._done += records
            self._progress("tuning clusters", self._done, self._total)


class _ThreadedRun:
    """Work on threads with one intra-operation thread each; leaving the context stops what is still running."""

    def __init__(self, threads: ThreadPoolExecutor, workers: int) -> None:
        self._threads = threads
        self._ahead = 2 * workers
        self._stopped = threading.Event()
        self._unfinished: set[Future[Any]] = set()

    def __enter__(self) -> _ThreadedRun:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stopped.set()
        for future in list(self._unfinished):
            future.cancel()
        wait(list(self._unfinished))

    def check(self) -> None:
        """Stop a thread whose results will not be used any more."""
        if self._stopped.is_set():
            raise StoppedError("Work was stopped")

    def stream(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results in the order of the items, with only a few items in flight."""
        iterator = iter(items)
        waiting = deque(self._submit(function, item) for item in itertools.islice(iterator, self._ahead))
        while waiting:
            result = waiting.popleft().result()
            for item in itertools.islice(iterator, 1):
                waiting.append(self._submit(function, item))
            yield result

    def unordered(self, function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Results as they finish, with only a few items in flight."""
        iterator = iter(items)
        running: set[Future[R]] = set()
        while True:
            for item in itertools.islice(iterator, self._ahead - len(running)):
                running.add(self._submit(function, item))
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            # Good results first: they must not be lost because another task failed meanwhile.
            for future in sorted(finished, key=lambda done: done.exception() is not None):
                yield future.result()

    def _submit(self, function: Callable[[T], R], item: T) -> Future[R]:
        future = self._threads.submit(function, item)
        self._unfinished.add(future)
        future.add_done_callback(self._unfinished.discard)
        return future
