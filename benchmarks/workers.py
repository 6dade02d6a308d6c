"""Tuning on one worker and on two, in processes and on Ray, and a simulation of many workers from these times.

    python benchmarks/workers.py --out bench

Sixteen clusters of one size are tuned by one single-threaded worker and by two; the efficiency is the time of one
over twice the time of two (medians, after a warm-up that starts the workers). ``dispatch``
is the cost of a task at the dispatcher: reading, sending, receiving, checking its digest. With these two
numbers a training of many clusters on many workers is simulated: the largest cluster first to the
next free worker, one task dispatched at a time.
"""

from __future__ import annotations

import heapq
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from lmeraser.config.schema import parse
from lmeraser.core.digests import Digest
from lmeraser.pipeline.executors.base import TuneResult, TuneTask
from lmeraser.pipeline.executors.pool import PooledExecutor
from lmeraser.pipeline.executors.processes import Processes
from lmeraser.pipeline.executors.provider import worker_pool
from lmeraser.pipeline.executors.worker import WorkerInfo, WorkerResult
from measuring import keep, parser_of, seconds
from tuning import pictures

TASKS, RECORDS, EPOCHS = 16, 48, 4
FLEET = (1, 10, 100, 1000)


class Instant:
    """A worker that has its answers ready."""

    def __init__(self, settings: str) -> None:
        self._artifact = bytes(4 * (3 * 96 * 96 + 1280 * 100))
        self._digest = Digest.of(self._artifact)

    def describe(self) -> WorkerInfo:
        """Digests of a fixed artifact."""
        return WorkerInfo(self._digest, self._digest, {}, None)

    def tune(self, task: TuneTask, payloads: Sequence[bytes]) -> WorkerResult:
        """An artifact of 100 classes."""
        return WorkerResult(self._digest, TuneResult(task.key, self._artifact, 0.0), self._digest)


def tuned(pool: PooledExecutor, images: Sequence[bytes], count: int) -> None:
    """Tune so many clusters."""
    members = [tuple(f"{task}-{n:03d}" for n in range(RECORDS)) for task in range(count)]
    labels = tuple(n % 10 for n in range(RECORDS))
    tasks = [TuneTask(Digest.of_json(part), part, labels, 10) for part in members]
    list(pool.tune(tasks, lambda ids: images[: len(ids)], lambda *_: None))


def efficiency(kind: str, rounds: int, images: Sequence[bytes]) -> dict[str, float]:
    """Of two workers against one."""
    times: dict[int, float] = {}
    for workers in (1, 2):
        compute = {"executor": kind, "processes": workers, "workers": 1}
        pool = worker_pool(parse({"compute": compute, "tuning": {"epochs": EPOCHS}}))
        tuned(pool, images, TASKS)
        times[workers] = statistics.median(seconds(lambda p=pool: tuned(p, images, TASKS)) for _ in range(rounds))  # type: ignore[misc]
        pool.close()
    return {"one worker, s": times[1], "two workers, s": times[2], "efficiency": times[1] / (2 * times[2])}


def dispatch(images: Sequence[bytes], count: int = 2000) -> float:
    """Seconds that handing out one task takes, measured with a worker that answers at once."""
    pool = PooledExecutor(parse({}), Processes("", size=1, create=Instant))
    tuned(pool, images, 10)
    spent = seconds(lambda: tuned(pool, images, count))
    pool.close()
    return spent / count


def simulated(workers: int, tasks: Sequence[float], handing_out: float) -> float:
    """Seconds until the last task is done."""
    free = [0.0] * workers
    clock = 0.0
    for length in sorted(tasks, reverse=True):
        clock = max(clock, free[0]) + handing_out
        heapq.heapreplace(free, clock + length)
    return max(free)


def fleet(per_record: float, handing_out: float) -> Iterator[tuple[str, float]]:
    """Efficiency of many workers: 10,000 clusters of about 100 records, 10 epochs."""
    coins = np.random.default_rng(0)
    tasks = [per_record * 10 * records for records in coins.poisson(100, size=10_000)]
    for workers in FLEET:
        spent = simulated(workers, tasks, handing_out)
        yield f"efficiency of {workers:,} workers, simulated", sum(tasks) / (workers * spent)


def main() -> None:
    parser = parser_of(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    started = time.perf_counter()
    images = pictures(RECORDS)
    found: dict[str, Any] = {}
    for kind in ("processes", "ray"):
        found |= {f"{kind}: {name}": value for name, value in efficiency(kind, options.rounds, images).items()}
    found["dispatch of a task, s"] = handing_out = dispatch(images)
    per_record = found["processes: one worker, s"] / (TASKS * RECORDS * EPOCHS)
    found["tuning a record for an epoch on one core, s"] = per_record
    found |= dict(fleet(per_record, handing_out))
    print(f"{time.perf_counter() - started:.0f} s")
    keep(options, "workers", found)


if __name__ == "__main__":
    main()
