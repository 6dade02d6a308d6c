"""Whether this machine keeps the promise that F rests on, and how fast it is.

Each check compares bits: features and input gradients of the workspace's backbone, or what a tuning gives, are the
same whatever else is in the batch or running. Speeds are those of decoding and embedding images, and of tuning one
cluster.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.models.environment import deterministic, features_and_gradients, probe_images
from lmeraser.pipeline.calibration import LEAST_SECONDS
from lmeraser.pipeline.executors.base import TuneTask
from lmeraser.pipeline.executors.local import LocalExecutor

_SIDE = 256  # of the images that speeds are measured with, px

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Check:
    """One comparison of bits."""

    name: str
    passed: bool


@dataclass(frozen=True)
class Examination:
    """What was found.

    Attributes:
        environment: the fields of the fingerprint.
        checks: the comparisons.
    """

    environment: dict[str, str | int]
    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """The examination as JSON values."""
        return {**asdict(self), "sound": self.sound}


def examine(executor: LocalExecutor, config: Config) -> Examination:
    """Run every check with the executor's backbone, and with a tuning where the settings tune on images."""
    backbone = executor.network
    images, strangers = probe_images(backbone, seed=1), probe_images(backbone, seed=2)
    size = len(images)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(3))
    mixed = strangers.clone()
    mixed[size - 1] = images[0]
    with deterministic():
        first = features_and_gradients(backbone, images)
        again = features_and_gradients(backbone, images)
        permuted = features_and_gradients(backbone, images[order])
        neighbours = features_and_gradients(backbone, mixed)
        with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            together = list(pool.map(lambda _: features_and_gradients(backbone, images), range(4)))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    with deterministic():
        other_threads = features_and_gradients(backbone, images)
    torch.set_num_threads(threads)
    checks = [
        Check("the same batch twice", _equal(first, again)),
        Check("images in another order", _equal(_rows(first, order), permuted)),
        Check("an image among other images, at another place", _equal(_row(first, 0), _row(neighbours, size - 1))),
        Check("four tasks at once", all(_equal(first, other) for other in together)),
        Check(f"a process that is set to {threads + 1} threads", _equal(first, other_threads)),
    ]
    if _tunes_on_images(config):
        checks.append(Check("a cluster tuned alone, beside others, and again", _tunings_agree(executor, config)))
    return Examination(executor.environment.model_dump(), tuple(checks))


def _tunes_on_images(config: Config) -> bool:
    return config.constituent.kind != "none" and config.constituent.tuned_on == "images"


def _tunings_agree(executor: LocalExecutor, config: Config) -> bool:
    """Whether a tuning gives the same bytes over micro-batches at once, clusters at once, and a second time."""
    once, images = _one_epoch(executor, config), _pictures(2 * config.backbone.micro_batch)
    ids, labels = tuple(f"{number:04d}" for number in range(len(images))), (0, 1) * (len(images) // 2)
    tasks = [TuneTask(Digest.of(b"%d" % number), ids, labels, classes=2) for number in range(4)]
    found = {
        result.data
        for some in (tasks[:1], tasks, tasks[:1])
        for result in once.tune(some, lambda ids: [images[int(i)] for i in ids], silent)
    }
    return len(found) == 1


def _one_epoch(executor: LocalExecutor, config: Config) -> LocalExecutor:
    """An executor with the same backbone that tunes for one epoch."""
    tuning = config.tuning.model_copy(update={"epochs": 1, "stop_after": None})
    return LocalExecutor(config.model_copy(update={"tuning": tuning}), executor.network)


@dataclass(frozen=True)
class Speeds:
    """Images per second.

    Attributes:
        embedding: decoded, looked at in the clean view, embedded.
        tuning: times epochs; None where the settings tune nothing on images.
        measured: images, times epochs, that were tuned.
        seconds: that this took.
    """

    embedding: float
    tuning: float | None
    measured: int = 0
    seconds: float = 0.0


def measure(executor: LocalExecutor, config: Config) -> Speeds:
    """Measure how fast this machine is with these settings, on noise; takes some seconds."""
    once = _one_epoch(executor, config)
    images = _pictures(max(config.tuning.batch_size, config.backbone.micro_batch))

    def fetch(ids: Sequence[str]) -> list[bytes]:
        return [images[int(i) % len(images)] for i in ids]

    def tune(ids: Sequence[str]) -> None:
        task = TuneTask(Digest.of(b"doctor"), tuple(ids), (0,) * len(ids), classes=10)
        list(once.tune([task], fetch, silent))

    count, seconds = _timed(lambda ids: list(once.embed(ids, fetch, silent)), len(images))
    embedding = count / seconds
    if not _tunes_on_images(config):
        return Speeds(embedding, None)
    count, seconds = _timed(tune, len(images))
    return Speeds(embedding, count / seconds, count, seconds)


def _timed(work: Callable[[Sequence[str]], object], count: int) -> tuple[int, float]:
    """How many images were done in how many seconds; as many as take long enough to tell."""
    work([str(number) for number in range(count)])
    while True:
        started = time.perf_counter()
        work([str(number) for number in range(count)])
        seconds = time.perf_counter() - started
        if seconds >= LEAST_SECONDS:
            return count, seconds
        count *= 2


def _pictures(count: int) -> list[bytes]:
    coins, found = np.random.default_rng(0), []
    for _ in range(count):
        buffer = io.BytesIO()
        coarse = Image.fromarray(coins.integers(256, size=(16, 16, 3), dtype=np.uint8))
        coarse.resize((_SIDE, _SIDE)).save(buffer, "jpeg")
        found.append(buffer.getvalue())
    return found


def _equal(one: Pair, other: Pair) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _rows(pair: Pair, order: Tensor) -> Pair:
    return pair[0][order], pair[1][order]


def _row(pair: Pair, index: int) -> Pair:
    return pair[0][index], pair[1][index]
