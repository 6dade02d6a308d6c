"""Everything about a GPU that can be measured in minutes: exactness first, then speed.

    python benchmarks/gpu.py --out results --minutes 8
    python benchmarks/gpu.py --out results --tiny               # a smoke test on a CPU, of a tiny network

Each step's rows are written as soon as they are there, the most telling first, so a run that is cut short is of
use. A step that fails is recorded with its error, one that no longer fits into the time is left out, and the next
one goes on. When the time is up, the process ends. `scripts/gpu.sh` packs what a machine without network needs.

The network is a ViT-B/16 with random weights, at 224 px. `docs/performance.md` says what the rows mean.
"""

from __future__ import annotations

import argparse
import functools
import gc
import io
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from PIL import Image
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from baselines import TransformerFeatures, Work, plain, reference
from lmeraser.config.schema import Config, parse
from lmeraser.core.digests import Digest
from lmeraser.core.progress import Progress, silent
from lmeraser.data import sources
from lmeraser.data.importing import import_records
from lmeraser.inference.predictor import Predictor
from lmeraser.models.backbones.base import ImageBackbone
from lmeraser.models.environment import deterministic
from lmeraser.pipeline.executors.base import Fetch, TuneResult, TuneTask
from lmeraser.pipeline.executors.local import LocalExecutor
from lmeraser.pipeline.self_test import measure, run_checks
from lmeraser.unlearning.train import train
from lmeraser.unlearning.unlearn import unlearn
from lmeraser.workspace.requests.draft import RequestDraft, Selector
from lmeraser.workspace.session import Session
from lmeraser.workspace.workspace import Workspace
from measuring import compare, keep, parser_of, seconds
from tuning import operations, pictures, random_transformer

Rows = dict[str, Any]
PRECISIONS = ("bf16", "fp32")


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        image: side of the input, px.
        micro_batch: images in every pass.
        batch: records in a step of tuning.
        records: of the cluster whose tuning is timed.
        epochs: of that tuning.
        pairs: how often implementations are timed in turn.
        trained: records of the workspaces that are trained for the comparison with the oracle.
        request_records, request_clusters, request_epochs: of the workspace for the request.
        requests: how many are timed.
        product: side of the square matrices whose product gives the device's rate.
        shapes: sizes of micro-batches that are tried.
    """

    image: int = 224
    micro_batch: int = 64
    batch: int = 128
    records: int = 512
    epochs: int = 4
    pairs: int = 3
    trained: int = 120
    request_records: int = 50_000
    request_clusters: int = 350
    request_epochs: int = 50
    requests: int = 5
    product: int = 8192
    shapes: tuple[int, ...] = (16, 32, 128, 256)


TINY = Sizes(
    image=32, micro_batch=4, batch=8, records=12, epochs=1, pairs=2, trained=12, request_records=12,
    request_clusters=3, request_epochs=2, requests=1, product=64, shapes=(2,),
)  # fmt: skip


class Machine:
    """The device, the network and what the steps share.

    Args:
        device: 'cuda' or 'cpu'.
        sizes: how much is measured.
        folder: for the network and workspaces.
    """

    def __init__(self, device: str, sizes: Sizes, folder: Path) -> None:
        self.name = device
        self.device = torch.device(device)
        self.sizes = sizes
        self.folder = folder
        self.product_rate = 0.0  # operations per second of a bf16 matrix product, once it is measured
        # As `load_backbone` sets it; cuBLAS reads it at its first product, which may be a step's own.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

    @functools.cached_property
    def network(self) -> str:
        """The folder of the ViT."""
        return random_transformer(str(self.folder / "vit"), tiny=self.sizes == TINY)

    @property
    def operations(self) -> float:
        """Floating-point operations of one image, forward and backward to the input."""
        if self.sizes == TINY:
            return operations(self.sizes.image, skipping=False, patch=8, width=24, layers=2)
        return operations(self.sizes.image, skipping=False)

    def config(self, precision: str = "bf16", **changes: Any) -> Config:
        """Settings for this network on this device."""
        sizes = self.sizes
        shape = {"name": self.network, "image_size": sizes.image, "micro_batch": sizes.micro_batch}
        backbone = {**shape, "precision": precision, **changes.pop("backbone", {})}
        tuning = {"epochs": sizes.epochs, "batch_size": sizes.batch, **changes.pop("tuning", {})}
        compute = {"device": self.name, "image_memory_mb": 8192}
        partition = changes.pop("partition", {"method": "hier_cluster", "clusters": 3, "sample_size": 1000})
        return parse(
            {"backbone": backbone, "tuning": tuning, "compute": compute, "partition": partition, **changes}
        )

    def wait(self) -> None:
        """Wait until the device has computed everything."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def forget(self) -> None:
        """Release memory of earlier steps."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


class Cluster:
    """One cluster to tune.

    Args:
        executor: with the network.
        records: number of members.
    """

    def __init__(self, executor: LocalExecutor, records: int, classes: int = 10) -> None:
        ids = tuple(f"{number:05d}" for number in range(records))
        self.images = dict(zip(ids, pictures(records), strict=True))
        self.labels = tuple(number % classes for number in range(records))
        self.classes = classes
        self._executor = executor
        self._task = TuneTask(Digest.of(b"benchmark"), ids, self.labels, classes)

    def tune(self, executor: LocalExecutor | None = None) -> bytes:
        """The constituent's bytes."""
        fetch = self.images.__getitem__
        used = executor or self._executor
        (result,) = used.tune([self._task], lambda ids: [fetch(record_id) for record_id in ids], silent)
        return result.data


def environment(machine: Machine) -> Rows:
    """What this was measured on."""
    cudnn: Any = torch.backends.cudnn  # untyped
    rows: Rows = {
        "python": platform.python_version(),
        "processor cores": os.cpu_count(),
        "CUDA of torch": torch.version.cuda,
        "cuDNN": cudnn.version(),
    }
    if machine.device.type == "cuda":
        found = torch.cuda.get_device_properties(machine.device)
        rows |= {
            "device": found.name,
            "memory, GB": found.total_memory / 1e9,
            "multiprocessors": found.multi_processor_count,
        }
        rows["capability"] = f"{found.major}.{found.minor}"
    return rows


def exactness(precision: str, machine: Machine) -> Rows:
    """The doctor's checks, and which fused attention runs under deterministic algorithms."""
    config = machine.config(precision)
    executor = LocalExecutor(config)
    report = run_checks(executor, config)
    return {
        "sound": report.sound,
        **{check.name: check.passed for check in report.checks},
        "passes in flight": executor.in_flight,
        "CUDA graphs recorded": _graphs(executor),
        "kernels of attention": _attention_kernels(executor),
        **{f"fused attention, {name}": answer for name, answer in _fused_attention(precision, machine).items()},
    }


def bundled(machine: Machine) -> Rows:
    """The doctor's checks with the default backbone, a convolutional network."""
    config = parse(
        {"compute": {"device": machine.name}, "backbone": {"image_size": 32 if machine.sizes == TINY else 96}}
    )
    executor = LocalExecutor(config)
    report = run_checks(executor, config)
    return {"sound": report.sound, **{check.name: check.passed for check in report.checks}}


def _graphs(executor: LocalExecutor) -> int:
    """How many CUDA graphs a tuning records."""
    Cluster(executor, 2 * executor.network.micro_batch).tune()
    passes = getattr(executor._tuner, "_passes", None)
    return passes.graphs if passes is not None else 0


def _attention_kernels(executor: LocalExecutor) -> list[str]:
    names = _profiled(executor)
    return sorted(
        name[:120] for name in names if any(word in name.lower() for word in ("attention", "fmha", "flash"))
    )


def _fused_attention(precision: str, machine: Machine) -> dict[str, object]:
    """Whether each kind of attention gives the same gradients twice, or why it does not run."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    coins = torch.Generator().manual_seed(0)
    tokens = [torch.randn(4, 12, 197, 64, generator=coins).to(machine.device, dtype) for _ in range(3)]
    answers: dict[str, object] = {}

    def gradients() -> list[torch.Tensor]:
        query, key, value = leaves = [each.clone().requires_grad_(True) for each in tokens]
        result = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return list(torch.autograd.grad(result.float().square().sum(), leaves))

    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH):
        try:
            with deterministic(), sdpa_kernel(backend):
                once, again = gradients(), gradients()
            answers[backend.name] = all(torch.equal(a, b) for a, b in zip(once, again, strict=True))
        except RuntimeError as error:  # this device or precision does not have it
            answers[backend.name] = str(error).partition("\n")[0]
    return answers


def speed(machine: Machine) -> Rows:
    """Tuning's images per second, and its share of the device's own bf16 matrix product."""
    sizes = machine.sizes
    machine.product_rate = _product_rate(machine, torch.bfloat16)
    rows: Rows = {
        "matrix product, bf16, TFLOP/s": machine.product_rate / 1e12,
        "matrix product, fp32, TFLOP/s": _product_rate(machine, torch.float32) / 1e12,
    }
    first: bytes | None = None
    for in_flight in (2, 0, 1, 3):
        executor = LocalExecutor(machine.config(), in_flight=in_flight)
        cluster = Cluster(executor, sizes.records)
        data = cluster.tune()  # records graphs and warms caches
        first = first or data
        spent = statistics.median(seconds(cluster.tune) for _ in range(sizes.pairs))
        rate = sizes.records * sizes.epochs / spent
        label = f"{in_flight} recorded passes in flight" if in_flight else "plain passes"
        rows[f"{label}: images per second"] = rate
        rows[f"{label}: share of the bf16 matrix product"] = rate * machine.operations / machine.product_rate
        rows[f"{label}: same bits"] = data == first
        rows[f"{label}: CUDA graphs"] = _graphs(executor)
        del executor, cluster
        machine.forget()
    executor = LocalExecutor(machine.config("fp32"))
    cluster = Cluster(executor, sizes.records)
    cluster.tune()
    spent = statistics.median(seconds(cluster.tune) for _ in range(sizes.pairs))
    rows["fp32: images per second"] = sizes.records * sizes.epochs / spent
    return rows


def _product_rate(machine: Machine, dtype: torch.dtype) -> float:
    """The most operations per second of products of square matrices."""
    side, repeats = machine.sizes.product, 20
    a, b = (torch.randn(side, side, device=machine.device).to(dtype) for _ in range(2))

    def run() -> None:
        for _ in range(repeats):
            a @ b
        machine.wait()

    run()
    return 2 * side**3 * repeats / min(seconds(run) for _ in range(3))


def one_cluster(machine: Machine) -> Rows:
    """The tuning of an average request at CIFAR-100's size, without the bookkeeping around it."""
    sizes = machine.sizes
    config = machine.config(tuning={"epochs": sizes.request_epochs})
    executor = LocalExecutor(config)
    records = sizes.request_records // sizes.request_clusters
    cluster = Cluster(executor, records, classes=100)
    cold = seconds(cluster.tune)
    warm = statistics.median(seconds(cluster.tune) for _ in range(sizes.pairs))
    passes = records * sizes.request_epochs
    return {
        "records": records,
        "epochs": sizes.request_epochs,
        "first, s": cold,
        "later, s": warm,
        "images per second": passes / warm,
    }


class FirstTuningMadeUp(LocalExecutor):
    """An executor whose first training gives every cluster the constituent of one record; later ones are real."""

    real = False
    tuned = 0  # records of the latest call

    def tune(self, tasks: Sequence[TuneTask], fetch: Fetch, progress: Progress) -> Iterator[TuneResult]:
        """Tune, or make up."""
        self.tuned = sum(len(task.ids) for task in tasks)
        if self.real or not tasks:
            yield from super().tune(tasks, fetch, progress)
            return
        some = min(tasks, key=lambda task: task.key)
        short = TuneTask(some.key, some.ids[:1], some.labels[:1], some.classes)
        (made,) = super().tune([short], fetch, progress)
        yield from (TuneResult(task.key, made.data, made.seconds) for task in tasks)


def request(machine: Machine) -> Rows:
    """Requests of one record at CIFAR-100's size, from the call to the certificate and the purge.

    The partition is by hash, so that every cluster has an average number of records. Constituents of the first
    training are made up: tuning them takes longer than there is time. Those of the requests are real.
    """
    sizes = machine.sizes
    partition = {"method": "random", "clusters": sizes.request_clusters}
    config = machine.config(partition=partition, tuning={"epochs": sizes.request_epochs})
    executor = FirstTuningMadeUp(config)
    rows: Rows = {
        "records": sizes.request_records,
        "clusters": sizes.request_clusters,
        "epochs": sizes.request_epochs,
    }
    with tempfile.TemporaryDirectory(dir=machine.folder) as folder:
        workspace = Workspace.create(Path(folder) / "w", config)
        session = Session.of(workspace)
        session.executors.use(executor)
        rows["import, s"] = seconds(lambda: fill(workspace, range(sizes.request_records), classes=100))
        rows["first training without tuning, s"] = seconds(lambda: train(session))
        executor.real = True
        spent: list[float] = []
        tuned: list[int] = []
        for number in range(sizes.requests + 1):
            started = time.perf_counter()
            unlearn(session, RequestDraft(Selector.of([name_of(number * 97 % sizes.request_records)])))
            spent.append(time.perf_counter() - started)
            tuned.append(executor.tuned)
        workspace.close()
    rows["first request, s"] = spent[0]
    rows["request, median, s"] = statistics.median(spent[1:])
    rows["records tuned again, median"] = statistics.median(tuned[1:])
    return rows


def name_of(number: int) -> str:
    """A record's id."""
    return f"record-{number:06d}"


def fill(workspace: Workspace, numbers: Sequence[int], classes: int = 10) -> None:
    """Import pictures of coloured noise, 32 px, the same for the same numbers."""
    source = sources.Source("noise", tuple(map(str, range(classes))), len(numbers), _rows(numbers, classes))
    with workspace.writing("add"):
        import_records(workspace.records, source, ledger=workspace.ledger, now=workspace.clock(), progress=silent)


def _rows(numbers: Sequence[int], classes: int) -> Iterator[sources.Row]:
    for position, number in enumerate(numbers):
        pixels = np.random.default_rng(number).integers(256, size=(8, 8, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(pixels).resize((32, 32), Image.Resampling.BICUBIC).save(buffer, "png")
        yield sources.Row(position, name_of(number), None, number % classes, buffer.getvalue())


def deletions(precision: str, machine: Machine) -> Rows:
    """A training and two deletions, compared with trainings of another process that never saw the records."""
    config = machine.config(precision)
    numbers = list(range(machine.sizes.trained))
    rows: Rows = {"records": len(numbers)}
    with tempfile.TemporaryDirectory(dir=machine.folder) as folder:
        workspace = Workspace.create(Path(folder) / "w", config)
        session = Session.of(workspace)
        fill(workspace, numbers)
        train(session)
        trained = {"trained": (_digest(workspace), list(numbers))}
        for gone in (numbers[3], numbers[7]):
            numbers.remove(gone)
            unlearn(session, RequestDraft(Selector.of([name_of(gone)])))
            trained[f"without {name_of(gone)}"] = (_digest(workspace), list(numbers))
        workspace.close()
    expected = oracle(config, [kept for _, kept in trained.values()])
    for (name, (digest, _)), other in zip(trained.items(), expected, strict=True):
        rows[f"{name}: the oracle's model"] = digest == other
    return rows


def oracle(config: Config, retained: Sequence[Sequence[int]]) -> list[str]:
    """Digests of the models of trainings on these pictures, each from nothing, in a process with other threads."""
    spec = json.dumps({"settings": config.model_dump(mode="json"), "retained": retained})
    paths = os.pathsep.join(path for path in sys.path if path)
    surroundings = {**os.environ, "OMP_NUM_THREADS": "3", "PYTHONPATH": paths}
    command = [sys.executable, __file__, "--oracle"]
    done = subprocess.run(command, input=spec, env=surroundings, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    digests: list[str] = json.loads(done.stdout.splitlines()[-1])
    return digests


def train_from_nothing(spec: str) -> list[str]:
    """The oracle's side."""
    given = json.loads(spec)
    config = parse(given["settings"])
    executor = LocalExecutor(config)
    digests = []
    for numbers in given["retained"]:
        with tempfile.TemporaryDirectory() as folder:
            workspace = Workspace.create(Path(folder) / "w", config)
            session = Session.of(workspace)
            session.executors.use(executor)
            fill(workspace, numbers)
            train(session)
            digests.append(_digest(workspace))
            workspace.close()
    return digests


def _digest(workspace: Workspace) -> str:
    return str(workspace.generations.require().model_digest)


def alternatives(machine: Machine) -> Rows:
    """Tuning against the published implementation's step and a plain loop, in fp32 and with autocast to bf16."""
    sizes = machine.sizes
    executor = LocalExecutor(machine.config())
    cluster = Cluster(executor, sizes.records)
    network = TransformerFeatures(machine.network).to(machine.device)
    config = machine.config()
    backbone = executor.network
    assert isinstance(backbone, ImageBackbone)
    work = Work(
        images=list(cluster.images.values()),
        labels=cluster.labels,
        classes=cluster.classes,
        size=sizes.image,
        canvas=config.backbone.canvas_size,
        width=config.prompt_width,
        mean=backbone._mean.cpu(),
        std=backbone._std.cpu(),
        batch=sizes.batch,
        epochs=sizes.epochs,
        device=machine.device,
        loaders=min(8, os.cpu_count() or 1) if machine.device.type == "cuda" else 0,
    )

    def timed(way: Callable[..., None], half: bool) -> Callable[[], None]:
        def run() -> None:
            context = torch.autocast(machine.name, torch.bfloat16) if half else nullcontext()
            with context:
                way(network, network.dimension, work)
            machine.wait()

        return run

    ways = {
        f"bf16 against the {name}, {precision}": timed(way, precision == "bf16")
        for precision in ("fp32", "bf16")
        for name, way in (("reference step", reference), ("plain loop", plain))
    }
    found: Rows = dict(compare(cluster.tune, ways, sizes.pairs))
    return {**found, "images per second": sizes.records * sizes.epochs / next(iter(found.values())).seconds}


def rates(machine: Machine) -> Rows:
    """Embedding and prediction from the bytes of images, per second."""
    config = machine.config()
    executor = LocalExecutor(config)
    rows: Rows = {"embedding, images per second": measure(executor, config).embedding}
    with tempfile.TemporaryDirectory(dir=machine.folder) as folder:
        workspace = Workspace.create(Path(folder) / "w", config)
        session = Session.of(workspace)
        session.executors.use(executor)
        fill(workspace, range(machine.sizes.trained))
        train(session)
        predictor = Predictor(workspace.generations.require(), workspace.store, executor)
        images = pictures(4 * machine.sizes.micro_batch)
        predictor.batch(images)
        spent = statistics.median(seconds(lambda: predictor.batch(images)) for _ in range(machine.sizes.pairs))
        workspace.close()
    rows["prediction, images per second"] = len(images) / spent
    return rows


def step_profile(machine: Machine) -> Rows:
    """Time of one micro-batch forward and backward by kernel, shares of the whole."""
    executor = LocalExecutor(machine.config())
    spent = _profiled(executor)
    total = sum(spent.values()) or 1.0
    top = sorted(spent.items(), key=lambda item: -item[1])[:25]
    return {f"{name}, part of the time": value / total for name, value in top}


def _profiled(executor: LocalExecutor) -> dict[str, float]:
    """Microseconds of a few micro-batches by kernel on a GPU, by operation on a CPU."""
    backbone = executor.network
    images = backbone.probe(seed=0)
    prompt = torch.zeros_like(images[:1]).requires_grad_(True)

    def step() -> None:
        torch.autograd.grad(backbone.features(images, prompt).square().sum(), prompt)

    on_gpu = backbone.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with deterministic():
        step()
        with profile(activities=activities) as found:
            for _ in range(3):
                step()
            if on_gpu:
                torch.cuda.synchronize()
    averages: list[Any] = list(found.key_averages())
    if on_gpu:  # operations have the times of their kernels, too
        kernels = [event for event in averages if str(event.device_type).endswith("CUDA")]
        return {event.key[:120]: float(event.self_device_time_total) for event in kernels}
    return {event.key[:120]: float(event.self_cpu_time_total) for event in averages}


def shapes(machine: Machine) -> Rows:
    """Exactness and speed with micro-batches of other sizes."""
    rows: Rows = {}
    for micro in machine.sizes.shapes:
        label = f"micro-batches of {micro}"
        try:
            config = machine.config(
                backbone={"micro_batch": micro}, tuning={"batch_size": max(machine.sizes.batch, micro)}
            )
            executor = LocalExecutor(config)
            cluster = Cluster(executor, machine.sizes.records)
            cluster.tune()
            rate = machine.sizes.records * machine.sizes.epochs / seconds(cluster.tune)
            rows[f"{label}: sound"] = run_checks(executor, config).sound
            rows[f"{label}: images per second"] = rate
            del executor, cluster
        except Exception as error:  # one size too many for the memory, or not sound
            rows[f"{label}: error"] = _first_line(error)
        machine.forget()
    return rows


@dataclass(frozen=True)
class Step:
    """One measurement.

    Attributes:
        name: of its rows in the results.
        run: takes it.
        least: seconds below which it is not begun.
    """

    name: str
    run: Callable[[Machine], Rows]
    least: float


STEPS = (  # the most telling first
    Step("environment", environment, 0),
    Step("exactness bf16", functools.partial(exactness, "bf16"), 15),
    Step("tuning speed", speed, 20),
    Step("one cluster of CIFAR-100's size", one_cluster, 15),
    Step("exactness fp32", functools.partial(exactness, "fp32"), 15),
    Step("deletions bf16", functools.partial(deletions, "bf16"), 60),
    Step("alternatives", alternatives, 60),
    Step("exactness of the default backbone", bundled, 15),
    Step("request of CIFAR-100's size", request, 90),
    Step("rates", rates, 20),
    Step("profile", step_profile, 10),
    Step("deletions fp32", functools.partial(deletions, "fp32"), 60),
    Step("micro-batches", shapes, 30),
)


def run_steps(options: argparse.Namespace, sizes: Sizes, chosen: Sequence[Step]) -> int:
    """Take the steps that the time allows; the number of those that failed."""
    until = time.monotonic() + 60 * options.minutes
    failed = 0
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        # Outcomes of checks that this machine keeps would make a first start look faster than it is.
        stack.enter_context(mock.patch.dict(os.environ, {"LMERASER_CACHE": folder}))
        machine = Machine(options.device, sizes, Path(folder))
        for step in chosen:
            left = until - time.monotonic()
            started = time.perf_counter()
            if left < step.least:
                rows: Rows = {"left out": f"{left:.0f} s were left, it takes {step.least:.0f}"}
            else:
                try:
                    rows = step.run(machine)
                except Exception as error:  # whatever it is, the next steps may work
                    traceback.print_exc()
                    rows = {"error": _first_line(error), "where": traceback.format_exc()[-1500:]}
                    failed += 1
            keep(options, f"gpu: {step.name}", rows, seconds=round(time.perf_counter() - started, 1))
            sys.stdout.flush()
            machine.forget()
    return failed


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"


def _time_is_up() -> None:
    print("the time is up; what was measured is in the results", flush=True)
    os._exit(3)  # a step may hang in the device's driver, where no exception reaches it


def main(arguments: Sequence[str] | None = None) -> int:
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given == ["--oracle"]:
        print(json.dumps(train_from_nothing(sys.stdin.read())))
        return 0
    parser = parser_of(__doc__)
    parser.add_argument("--minutes", type=float, default=8.0, help="the process ends after so many")
    parser.add_argument("--tiny", action="store_true", help="everything as small as possible")
    parser.add_argument("--device", choices=["cpu", "cuda"], help="default: cuda, with --tiny cpu")
    parser.add_argument("--only", nargs="*", choices=[step.name for step in STEPS], metavar="STEP")
    options = parser.parse_args(given)
    options.device = options.device or ("cpu" if options.tiny else "cuda")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no GPU; 'lmeraser doctor --device cuda' says what it needs", file=sys.stderr)
        return 2
    chosen = [step for step in STEPS if not options.only or step.name in options.only]
    alarm = threading.Timer(60 * options.minutes, _time_is_up)
    alarm.daemon = True
    alarm.start()
    try:
        return 1 if run_steps(options, TINY if options.tiny else Sizes(), chosen) else 0
    finally:
        alarm.cancel()


if __name__ == "__main__":
    sys.exit(main())
