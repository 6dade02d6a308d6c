"""Passes of one shape, recorded once and replayed on other inputs, several of them in flight.

A pass is a function of named tensors whose shapes never change, and it reads nothing else. So it can be recorded:
its inputs and results have buffers of their own, and a run copies new inputs into them and replays it. On a GPU
the recording is a CUDA graph, started by one call instead of a thousand, on a stream of its own; several are in
flight at once, and copies and small kernels of one overlap with the others'. On a CPU a replay calls the function.
That gains nothing, but it uses the same buffers in the same order, so that tests can compare its bits with those
of plain calls.

A replay runs the same kernels in the same shapes, so it gives the same bits; `pipeline.self_test` checks it on the
machine.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]
Pass = Callable[[Tensors, Tensors], list[Tensor]]  # from values and a micro-batch


class RecordedPass:
    """A pass with buffers of its own.

    Args:
        compute: the pass.
        values: an example of its values; all others have the same names, shapes and dtypes.
        batch: an example of its micro-batch, likewise.
    """

    def __init__(self, compute: Pass, values: Tensors, batch: Tensors) -> None:
        self._compute = compute
        self._values = _copies(values)
        self._batch = _copies(batch)
        self._results = [torch.empty_like(result) for result in compute(self._values, self._batch)]

    def start(self, values: Tensors, load: Callable[[], Tensors]) -> None:
        """Start on other inputs; the results of the last start are lost.

        Args:
            values: the values.
            load: gives the micro-batch on the device.
        """
        _copy(self._values, values)
        _copy(self._batch, load())
        self._replay()

    def finish(self) -> list[Tensor]:
        """The results, which the caller owns; a GPU may still be computing them when this returns."""
        return [result.clone() for result in self._results]

    def _replay(self) -> None:
        for result, computed in zip(self._results, self._compute(self._values, self._batch), strict=True):
            result.copy_(computed)


class CudaRecordedPass(RecordedPass):
    """A pass on a stream of its own, recorded as a CUDA graph where the network allows that.

    A network may do in its forward pass what no graph can hold, such as copying from memory that is not pinned.
    Then each start issues its kernels again, on the same stream and into the same buffers.
    """

    def __init__(self, compute: Pass, values: Tensors, batch: Tensors) -> None:
        torch.cuda.synchronize()  # what an earlier pass has freed may still be read
        self._stream: torch.cuda.Stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        self._graph: torch.cuda.CUDAGraph | None = None
        with torch.cuda.stream(self._stream):
            super().__init__(compute, values, batch)
        self._record()

    @property
    def is_graph(self) -> bool:
        """Whether it was recorded."""
        return self._graph is not None

    def start(self, values: Tensors, load: Callable[[], Tensors]) -> None:
        """Start after what the caller's stream has been given so far: new values, copies of the last results."""
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            super().start(values, load)

    def finish(self) -> list[Tensor]:
        """The results, on the caller's stream."""
        torch.cuda.current_stream().wait_stream(self._stream)
        return super().finish()

    def _record(self) -> None:
        graph = torch.cuda.CUDAGraph()
        try:
            # Other threads may ask for memory meanwhile, which only this mode allows.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                results = self._compute(self._values, self._batch)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:
            return
        self._graph = graph
        self._results = results

    def _replay(self) -> None:
        if self._graph is None:
            super()._replay()
        else:
            self._graph.replay()


class PassesInFlight:
    """Runs a pass on one micro-batch after the other, several at once.

    Args:
        compute: the pass.
        device: where it runs.
        limit: how many are in flight at most.
    """

    def __init__(self, compute: Pass, device: torch.device, limit: int) -> None:
        self._compute = compute
        self._limit = limit
        self._recorded = CudaRecordedPass if device.type == "cuda" else RecordedPass
        self._passes: list[RecordedPass] = []
        self._shapes: dict[str, torch.Size] = {}

    @property
    def graphs(self) -> int:
        """How many CUDA graphs there are."""
        return sum(isinstance(each, CudaRecordedPass) and each.is_graph for each in self._passes)

    def results(self, values: Tensors, loads: Iterable[Callable[[], Tensors]]) -> Iterator[list[Tensor]]:
        """The results for each micro-batch, in their order.

        Args:
            values: the values, the same for all.
            loads: give the micro-batches on the device.
        """
        shapes = {name: value.shape for name, value in values.items()}
        if shapes != self._shapes:
            self._shapes = shapes
            self._passes = []
        idle = deque(self._passes)
        running: deque[RecordedPass] = deque()
        for load in loads:
            if not idle and len(self._passes) < self._limit:
                self._passes.append(self._recorded(self._compute, values, load()))
                idle.append(self._passes[-1])
            elif not idle:
                idle.append(running.popleft())
                yield idle[0].finish()
            running.append(idle.popleft())
            running[-1].start(values, load)
        while running:
            yield running.popleft().finish()


def _copies(tensors: Tensors) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _copy(buffers: Tensors, tensors: Tensors) -> None:
    for name, buffer in buffers.items():
        buffer.copy_(tensors[name].detach(), non_blocking=True)
