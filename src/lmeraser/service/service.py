"""All parts of a running service together: made, started and stopped in one place, and found by routes.

    calls ──> intake ──> database ──> worker ──> derivation (a process)
                            │                        │
                          served <───────────────────┘
    calls ──> predictions ──┘

A router gets what it needs by `service_of`. Knows nothing about single routes.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Mapping
from typing import Any, Self

from fastapi import Request

from lmeraser.eraser import Eraser
from lmeraser.errors import LmeraserError
from lmeraser.service.callbacks import Callbacks
from lmeraser.service.limits import Buckets
from lmeraser.service.metrics import Metrics
from lmeraser.service.model_holder import ModelHolder
from lmeraser.service.predictions import Predictions
from lmeraser.service.request_writer import RequestWriter
from lmeraser.service.supervisor import DerivationSupervisor
from lmeraser.workspace.requests.subscriptions import Subscriptions

_TOGETHER = 64  # images for which what is left out is found out once
_FOLLOW = 0.5  # seconds between two looks at what other processes did


class Service:
    """A service over one workspace; a context manager that starts and stops it.

    Args:
        eraser: the workspace; it stays the caller's to close.
        compute: settings of ``[compute]`` that differ where models are derived.

    Attributes:
        served: what answers predictions.
        intake: takes requests and cancellations.
        predictions: answers images.
        worker: carries requests out.
        buckets: counts calls.
        metrics: what is watched.
        streams: how many callers follow requests now.
        stopping: set when open connections have to end.
    """

    def __init__(self, eraser: Eraser, *, compute: Mapping[str, Any] | None = None) -> None:
        self.eraser, self.workspace = eraser, eraser.workspace
        self.config = self.workspace.config.service
        micro, workers = self.workspace.config.backbone.micro_batch, self.workspace.config.compute.workers
        together = max(_TOGETHER, micro * (workers or os.cpu_count() or 1))
        self.served = ModelHolder(eraser)
        self.predictions = Predictions(
            self.served,
            together=together,
            most_pixels=self.config.max_waiting_megapixels * 1e6,
            most_seconds=self.config.max_waiting_seconds,
            nice=self.config.prediction_nice,
        )
        self.worker = DerivationSupervisor(self.workspace, self._derived, compute)
        self.intake = RequestWriter(self.workspace, self.worker.wake)
        self.buckets = Buckets(self.config.requests_per_second, self.config.burst)
        self.streams = 0
        self.stopping = threading.Event()
        self.metrics = Metrics(self.workspace, self._gauges(self.workspace.subscriptions))
        self.callbacks = Callbacks(self.workspace, lambda arrived: self.metrics.callbacks.labels(arrived).inc())
        self._follower = threading.Thread(target=self._follow, name="follower", daemon=True)
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.served)
            self.served.follow()
            for part in (self.predictions, self.intake, self.worker, self.callbacks):
                part.start()
                stack.callback(part.stop)
            self._follower.start()
            stack.callback(self._follower.join)
            stack.callback(self.stopping.set)
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._entered.close()

    def _derived(self, ended: Mapping[str, Any]) -> None:
        self.metrics.derived(ended)
        with contextlib.suppress(Exception):  # the follower tries again
            self.served.follow()

    def _follow(self) -> None:
        while not self.stopping.wait(_FOLLOW):
            with contextlib.suppress(Exception):  # nothing answers while it is not known what to leave out
                self.served.follow()

    def _gauges(self, subscriptions: Subscriptions) -> dict[str, tuple[str, Any]]:
        return {
            "waiting_images": ("Images that wait for their prediction.", lambda: self.predictions.waiting),
            "waiting_changes": ("Requests and cancellations that wait.", lambda: self.intake.waiting),
            "waiting_callbacks": ("Callers that are to be told of the end.", subscriptions.count),
            "deriving": ("Whether a derivation is under way.", lambda: float(bool(self.worker.now.step))),
            "generation": ("Of the served model; -1: none.", self._generation),
            "quarantined_clusters": ("Clusters that predictions leave out.", self._quarantined),
        }

    def _generation(self) -> float:
        model = self.workspace.generations.current()
        return -1 if model is None else model.generation

    def _quarantined(self) -> float:
        try:
            return len(self.served.current.waiting.clusters)
        except LmeraserError:
            return 0


def service_of(request: Request) -> Service:
    """The service that a call is for."""
    service: Service = request.app.state.service
    return service
