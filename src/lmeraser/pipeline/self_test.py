"""Self-test of a machine: whether results are deterministic to the bit, as exactness requires, and how fast it is.

Each check compares bits: features and input gradients of the workspace's backbone, or tuned tensors, must not
depend on what else is in the batch or running. Speeds are those of decoding and embedding images, and of tuning
one cluster. On a GPU tasks that run at once have a stream each, and tuning is compared with and without recorded
passes (`models.tuners.recorded_passes`).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from lmeraser.config.schema import Config
from lmeraser.core.digests import Digest
from lmeraser.core.progress import silent
from lmeraser.data.modalities import payload_format
from lmeraser.errors import BackboneError
from lmeraser.models.backbones.base import Backbone
from lmeraser.models.backbones.determinism_check import draws_random_numbers
from lmeraser.models.environment import deterministic
from lmeraser.pipeline.calibration import MIN_SECONDS
from lmeraser.pipeline.executors.base import TuneTask
from lmeraser.pipeline.executors.local import LocalExecutor

Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Check:
    """One comparison of bits."""

    name: str
    passed: bool


@dataclass(frozen=True)
class SelfTestReport:
    """The results of a self-test.

    Attributes:
        environment: the fields of the environment fingerprint.
        checks: the comparisons of bits.
    """

    environment: dict[str, str | int]
    checks: tuple[Check, ...]

    @property
    def sound(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)

    def to_json(self) -> dict[str, object]:
        """The report as JSON values."""
        return {**asdict(self), "sound": self.sound}


def run_checks(executor: LocalExecutor, config: Config) -> SelfTestReport:
    """Run every check with the executor's backbone, and tune a cluster if the settings tune on images."""
    backbone = executor.network
    images = backbone.probe(seed=1)
    other_images = backbone.probe(seed=2)
    size = len(images)
    order = torch.randperm(size, generator=torch.Generator().manual_seed(3))
    mixed = other_images.clone()
    mixed[size - 1] = images[0]
    with deterministic():
        first = backbone.features_and_gradients(images)
        repeated = backbone.features_and_gradients(images)
        permuted = backbone.features_and_gradients(images[order])
        neighbours = backbone.features_and_gradients(mixed)
        with ThreadPoolExecutor(4, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            concurrent = list(pool.map(lambda _: _on_own_stream(backbone, images), range(4)))
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    with deterministic():
        other_threads = backbone.features_and_gradients(images)
    torch.set_num_threads(threads)
    checks = [
        Check("no random generator is drawn from", not draws_random_numbers(backbone)),
        Check("the same batch twice", _equal(first, repeated)),
        Check("images in another order", _equal(_rows(first, order), permuted)),
        Check(
            "an image among other images, at another position", _equal(_row(first, 0), _row(neighbours, size - 1))
        ),
        Check("four tasks at once", all(_equal(first, other) for other in concurrent)),
        Check(f"a process that is set to {threads + 1} threads", _equal(first, other_threads)),
    ]
    if _tunes_on_inputs(config):
        checks.append(
            Check("a cluster tuned alone, beside others, and again", _tuning_is_deterministic(executor, config))
        )
    return SelfTestReport(executor.environment.model_dump(), tuple(checks))


def _tunes_on_inputs(config: Config) -> bool:
    return config.constituent.kind != "none" and config.constituent.tuned_on == "payloads"


def _tuning_is_deterministic(executor: LocalExecutor, config: Config) -> bool:
    """Whether tuning gives the same bytes parallel over micro-batches, parallel over clusters, and repeated.

    Where passes are recorded: without recording them as well.
    """
    try:
        once = _one_epoch(executor, config)
    except BackboneError:  # what the other checks found
        return False
    payloads = payload_format(config).noise(2 * config.backbone.micro_batch)
    ids = tuple(f"{number:04d}" for number in range(len(payloads)))
    labels = (0, 1) * (len(payloads) // 2)
    tasks = [TuneTask(Digest.of(b"%d" % number), ids, labels, classes=2) for number in range(4)]
    runs = [(once, tasks[:1]), (once, tasks), (once, tasks[:1])]
    if once.in_flight:
        runs.append((_one_epoch(executor, config, in_flight=0), tasks[:1]))
    artifacts = {
        result.data
        for used, run in runs
        for result in used.tune(run, lambda ids: [payloads[int(i)] for i in ids], silent)
    }
    return len(artifacts) == 1


def _one_epoch(executor: LocalExecutor, config: Config, in_flight: int | None = None) -> LocalExecutor:
    """An executor with the same backbone that tunes for one epoch."""
    tuning = config.tuning.model_copy(update={"epochs": 1, "stop_after": None})
    passes = executor.in_flight if in_flight is None else in_flight
    return LocalExecutor(config.model_copy(update={"tuning": tuning}), executor.network, in_flight=passes)


def _on_own_stream(backbone: Backbone, images: Tensor) -> Pair:
    """`features_and_gradients` on a GPU's stream of its own; as usual on a CPU."""
    if backbone.device.type == "cpu":
        return backbone.features_and_gradients(images)
    with torch.cuda.stream(torch.cuda.Stream()):  # type: ignore[no-untyped-call]
        return backbone.features_and_gradients(images)


@dataclass(frozen=True)
class Speeds:
    """Images per second.

    Attributes:
        embedding: images decoded and embedded in the clean view.
        tuning: images tuned, times epochs; None if the settings tune nothing on images.
        measured: images, times epochs, that were tuned for the measurement.
        seconds: how long that took.
    """

    embedding: float
    tuning: float | None
    measured: int = 0
    seconds: float = 0.0


def measure(executor: LocalExecutor, config: Config) -> Speeds:
    """Measure speeds with these settings on images of noise; takes some seconds."""
    once = _one_epoch(executor, config)
    payloads = payload_format(config).noise(max(config.tuning.batch_size, config.backbone.micro_batch))

    def fetch(ids: Sequence[str]) -> list[bytes]:
        return [payloads[int(i) % len(payloads)] for i in ids]

    def tune(ids: Sequence[str]) -> None:
        task = TuneTask(Digest.of(b"doctor"), tuple(ids), (0,) * len(ids), classes=10)
        list(once.tune([task], fetch, silent))

    count, seconds = _timed(lambda ids: list(once.embed(ids, fetch, silent)), len(payloads))
    embedding = count / seconds
    if not _tunes_on_inputs(config):
        return Speeds(embedding, None)
    count, seconds = _timed(tune, len(payloads))
    return Speeds(embedding, count / seconds, count, seconds)


def _timed(work: Callable[[Sequence[str]], object], count: int) -> tuple[int, float]:
    """Number of images and seconds of work, on enough images for a meaningful measurement."""
    work([str(number) for number in range(count)])
    while True:
        started = time.perf_counter()
        work([str(number) for number in range(count)])
        seconds = time.perf_counter() - started
        if seconds >= MIN_SECONDS:
            return count, seconds
        count *= 2


def _equal(one: Pair, other: Pair) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _rows(pair: Pair, order: Tensor) -> Pair:
    return pair[0][order], pair[1][order]


def _row(pair: Pair, index: int) -> Pair:
    return pair[0][index], pair[1][index]
