"""Workers as processes of this machine: one for each GPU, or for each group of cores.

A process is assigned its GPU before torch is loaded. It answers over a pipe; a pipe that ends means that the
process is gone. Knows nothing about tasks.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from typing import Any

from lmeraser.pipeline.executors.worker import Dispatcher, Reply, Worker

_CONTEXT = multiprocessing.get_context("spawn")  # a fork would copy the threads and locks of torch


class Processes:
    """Starts workers as processes.

    Args:
        settings: all settings, as JSON.
        size: how many workers.
        gpus: how many GPUs the processes share out, in turn; 0: none.
        create: creates what answers the calls, in the process.
    """

    def __init__(self, settings: str, *, size: int, gpus: int = 0, create: Callable[[str], Any] = Worker) -> None:
        self._settings = settings
        self._create = create
        self.size = size
        self._gpus = gpus
        self._started: list[_Process] = []

    def start(self) -> _Process:
        """Start a process; it gets the GPU of the first one that is gone, or the next."""
        self._started = [process for process in self._started if not process.stopped]
        taken = {process.number for process in self._started}
        number = next(number for number in range(len(taken) + 1) if number not in taken)
        gpu = str(number % self._gpus) if self._gpus else None
        self._started.append(_Process(number, self._create, self._settings, gpu))
        return self._started[-1]

    def is_loss(self, error: BaseException) -> bool:
        """Whether an error means that a process is gone."""
        return isinstance(error, (EOFError, OSError))

    def stop(self) -> None:
        """Stop all processes."""
        for process in self._started:
            process.stop()


class _Process:
    """One process and the pipe to it."""

    def __init__(self, number: int, create: Callable[[str], Any], settings: str, gpu: str | None) -> None:
        self.number = number
        self.stopped = False
        self._pipe, remote_end = _CONTEXT.Pipe()
        self._process = _CONTEXT.Process(target=_serve, args=(remote_end, create, settings, gpu), daemon=True)
        self._process.start()
        remote_end.close()
        self._thread = ThreadPoolExecutor(1)

    def submit(self, method: str, *arguments: Any) -> Future[Reply]:
        return self._thread.submit(self._call, method, arguments)

    def stop(self) -> None:
        self.stopped = True
        self._process.kill()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _call(self, method: str, arguments: tuple[Any, ...]) -> Reply:
        self._pipe.send((method, arguments))
        reply: Reply = self._pipe.recv()
        return reply


def _serve(pipe: Connection, create: Callable[[str], Any], settings: str, gpu: str | None) -> None:
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    dispatcher = Dispatcher(create, settings)
    with contextlib.suppress(EOFError, KeyboardInterrupt):
        while True:
            method, arguments = pipe.recv()
            pipe.send(dispatcher.call(method, *arguments))
