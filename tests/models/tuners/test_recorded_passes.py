"""A recorded pass that is replayed gives the bits of a plain call, however many are in flight."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmeraser.models.environment import deterministic
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.gradient_tuner import GradientTuner
from lmeraser.models.tuners.recorded_passes import CudaRecordedPass, PassesInFlight
from small import CLASSES, Small, config, for_tuning, members, tuned

KINDS: dict[str, dict[str, Any]] = {
    "frame": {},
    "moving patch": {"prompt": {"kind": "random_patch", "width": 3}},
    "no prompt": {"prompt": {"kind": "none"}},
    "head of class means": {"head": {"normalize": "unit_rms", "init": "class_means"}},
    "network": {"constituent": {"kind": "network"}},
    "mapping": {"constituent": {"kind": "mapping"}, "mapping": {"noise_images": 4}},
    "shared head": {"constituent": {"kind": "shared_head"}},
}


def recorded(in_flight: int, count: int, **changes: Any) -> dict[str, Any]:
    """What a GPU's way of tuning gives on this CPU."""
    tuner = create_tuner(config(**changes), Small())
    assert isinstance(tuner, GradientTuner)
    tuner.in_flight = in_flight
    with deterministic():
        tuner.tune(
            for_tuning(members(count + 5), tuner.config, tuner.backbone), classes=CLASSES
        )  # buffers are used again by the next cluster
        return tuner.tune(for_tuning(members(count), tuner.config, tuner.backbone), classes=CLASSES)


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS)
def test_recorded_passes_give_the_bits_of_plain_calls(changes: dict[str, Any]) -> None:
    plain = tuned(members(13), config(**changes))
    for in_flight in (1, 3):
        replayed = recorded(in_flight, 13, **changes)
        assert replayed.keys() == plain.keys()
        assert all(np.array_equal(plain[name], replayed[name]) for name in plain), in_flight


def batches(events: list[str], count: int) -> Iterator[Any]:
    for number in range(count):
        events.append(f"asked for {number}")
        yield lambda number=number: {"x": torch.tensor([float(number)])}


def test_only_so_many_are_in_flight_and_results_keep_their_order() -> None:
    events: list[str] = []

    def double(values: Any, batch: Any) -> list[Tensor]:
        return [batch["x"] * values["factor"]]

    passes = PassesInFlight(double, torch.device("cpu"), limit=2)
    found: list[Tensor] = []
    for results in passes.results({"factor": torch.tensor(2.0)}, batches(events, 5)):
        events.append(f"got {len(found)}")
        found.append(results[0])
    assert [float(each) for each in found] == [0, 2, 4, 6, 8], "each is the caller's own, not a buffer"
    assert events[:4] == ["asked for 0", "asked for 1", "asked for 2", "got 0"]
    assert passes.graphs == 0
    other = passes.results({"factor": torch.tensor([1.0, 3.0])}, batches(events, 1))
    assert [each.tolist() for (each,) in other] == [[0.0, 0.0]], "values of another shape need other buffers"


def test_work_that_was_stopped_leaves_nothing_behind() -> None:
    tuner = create_tuner(config(), Small())
    assert isinstance(tuner, GradientTuner)
    tuner.in_flight = 2

    def stop(records: int) -> None:
        raise KeyboardInterrupt

    with deterministic():
        with pytest.raises(KeyboardInterrupt) as stopped:  # keeps the frames of the work that was stopped
            tuner.tune(for_tuning(members(19), tuner.config, tuner.backbone), classes=CLASSES, on_step=stop)
        assert stopped.traceback
        again = tuner.tune(for_tuning(members(19), tuner.config, tuner.backbone), classes=CLASSES)
    plain = tuned(members(19), config())
    assert all(np.array_equal(plain[name], again[name]) for name in plain)


class SimulatedCuda:
    """Streams that only note who waits for whom, and graphs that compute anew, in place of a GPU's.

    Args:
        refusal: what recording raises; None: it works.
    """

    def __init__(self, refusal: Exception | None) -> None:
        self.events: list[str] = []
        self.now = SimulatedStream("main", self.events)
        self._refusal = refusal
        self._count = itertools.count()

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cuda = torch.cuda
        monkeypatch.setattr(cuda, "synchronize", lambda: None)
        monkeypatch.setattr(cuda, "Stream", lambda: SimulatedStream(f"stream {next(self._count)}", self.events))
        monkeypatch.setattr(cuda, "current_stream", lambda: self.now)
        monkeypatch.setattr(cuda, "stream", self.stream)
        monkeypatch.setattr(cuda, "CUDAGraph", SimulatedGraph)
        monkeypatch.setattr(cuda, "graph", self.graph)

    @contextmanager
    def stream(self, stream: SimulatedStream) -> Iterator[None]:
        before, self.now = self.now, stream
        yield
        self.now = before

    @contextmanager
    def graph(self, graph: SimulatedGraph, *, stream: SimulatedStream, capture_error_mode: str) -> Iterator[None]:
        assert capture_error_mode == "thread_local"
        if self._refusal is not None:
            raise self._refusal
        SimulatedGraph.recording = graph
        yield
        SimulatedGraph.recording = None


class SimulatedStream:
    def __init__(self, name: str, events: list[str]) -> None:
        self.name = name
        self._events = events

    def wait_stream(self, other: SimulatedStream) -> None:
        self._events.append(f"{self.name} waits for {other.name}")


class SimulatedGraph:
    recording: SimulatedGraph | None = None

    def __init__(self) -> None:
        self.recorded: tuple[Any, Any, list[Tensor]] | None = None

    def replay(self) -> None:
        assert self.recorded is not None
        values, batch, results = self.recorded
        results[0].copy_(batch["x"] * values["factor"])


def recordable(values: Any, batch: Any) -> list[Tensor]:
    results = [batch["x"] * values["factor"]]
    if SimulatedGraph.recording is not None:
        SimulatedGraph.recording.recorded = (values, batch, results)
    return results


@pytest.mark.parametrize("refusal", [None, RuntimeError("operation not permitted when stream is capturing")])
def test_streams_wait_for_each_other_with_and_without_a_graph(
    monkeypatch: pytest.MonkeyPatch, refusal: Exception | None
) -> None:
    cuda = SimulatedCuda(refusal)
    cuda.install(monkeypatch)
    passes = PassesInFlight(recordable, torch.device("cuda"), limit=2)
    found = [float(each) for (each,) in passes.results({"factor": torch.tensor(2.0)}, batches([], 4))]
    assert found == [0, 2, 4, 6]
    assert passes.graphs == (2 if refusal is None else 0)
    started = [f"stream {number} waits for main" for number in (0, 1)]
    finished = [f"main waits for stream {number}" for number in (0, 1)]
    assert cuda.events == [*started, finished[0], started[0], finished[1], started[1], *finished]


def test_a_memory_that_is_too_small_is_not_taken_for_a_network_without_graphs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    SimulatedCuda(torch.OutOfMemoryError("CUDA out of memory")).install(monkeypatch)
    passes = PassesInFlight(recordable, torch.device("cuda"), limit=2)
    with pytest.raises(torch.OutOfMemoryError):
        list(passes.results({"factor": torch.tensor(2.0)}, batches([], 1)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_a_pass_is_a_graph() -> None:
    def double(values: Any, batch: Any) -> list[Tensor]:
        return [batch["x"] * values["factor"]]

    device = torch.device("cuda")
    passes = PassesInFlight(double, device, limit=2)
    loads = [lambda n=n: {"x": torch.full((4,), float(n), device=device)} for n in range(5)]
    found = list(passes.results({"factor": torch.tensor(2.0, device=device)}, loads))
    assert [float(each[0][0]) for each in found] == [0, 2, 4, 6, 8]
    assert passes.graphs == 2
    assert all(isinstance(each, CudaRecordedPass) for each in passes._passes)
