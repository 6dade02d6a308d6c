"""A recorded pass that is replayed gives the bits of a plain call, however many are in flight."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lmeraser.models.environment import deterministic
from lmeraser.models.tuners import create_tuner
from lmeraser.models.tuners.gradient_tuner import GradientTuner
from lmeraser.models.tuners.recorded_passes import CudaRecordedPass, PassesInFlight
from small import CLASSES, Small, config, members, tuned

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
        tuner.tune(members(count + 5), classes=CLASSES)  # buffers are used again by the next cluster
        return tuner.tune(members(count), classes=CLASSES)


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
            tuner.tune(members(19), classes=CLASSES, on_step=stop)
        assert stopped.traceback
        again = tuner.tune(members(19), classes=CLASSES)
    plain = tuned(members(19), config())
    assert all(np.array_equal(plain[name], again[name]) for name in plain)


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
