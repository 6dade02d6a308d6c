"""The components of a running service: created, started and stopped in one place, and looked up by routes.

    calls ──> request writer ──> database ──> derivation supervisor ──> derivation process
                                    │                                          │
                               model holder <──────────────────────────────────┘
    calls ──> image decoder or payload reader ──> prediction queue ──┘

Routes reach the components through `service_of`. Knows nothing about single routes.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Self

from fastapi import Request

from lmeraser.data.modalities import payload_format
from lmeraser.eraser import Eraser
from lmeraser.errors import LmeraserError
from lmeraser.service.callbacks import CallbackSender
from lmeraser.service.image_decoder import KEPT_WEIGHT, ImageDecoder
from lmeraser.service.limits import Budget, RateLimiter, SharedThread
from lmeraser.service.metrics import Metrics
from lmeraser.service.model_holder import ModelHolder
from lmeraser.service.payload_reader import PayloadReader
from lmeraser.service.prediction_queue import PredictionQueue
from lmeraser.service.request_writer import RequestWriter
from lmeraser.service.supervisor import DerivationSupervisor
from lmeraser.workspace.requests.subscriptions import Subscriptions

_MIN_BATCH_QUERIES = 64  # the quarantine is determined once per batch, so small batches would waste time on it
LOOKUP_THREADS = 4
_QUEUE_PLACES = 16  # of plans, and of large bodies, that wait
_MAX_DECODERS = 4  # threads; what they may hold in memory is limited by pixels
_DECODERS_NICER = 4  # than predictions: large images come after small ones, but before derivations
_UPLOADS = 4  # of the largest size, which may be in memory at the same time
_UPLOADS_OF_A_KEY = 2  # of those
_EXPIRY_SECONDS = 3600.0  # between two checks for references that were kept long enough
_POLL_SECONDS = 0.5  # between two checks for generations and requests from other processes


class Service:
    """A service over one workspace; a context manager that starts and stops it.

    Args:
        eraser: the workspace; closing it remains the caller's responsibility.
        compute: overrides of the ``[compute]`` settings for derivations.

    Attributes:
        model_holder: the served model.
        upload_budget: the bytes of all uploads that are being received or decoded.
        payload_format: of the records.
        image_decoder: decodes uploads.
        payload_reader: reads payloads that are sent as JSON.
        request_writer: accepts and cancels requests.
        prediction_queue: classifies what was sent.
        supervisor: derives models that carry out requests.
        rate_limiter: limits calls per API key.
        metrics: what Prometheus collects.
        streams: the event streams that may be open at once, half of them for one key.
        key_lookups: threads that look up API keys, and do nothing else.
        health_checks: the thread that finds out whether the service is ready.
        ready_until: monotonic seconds; until then it counts as ready without being asked again.
        stream_checks: the thread that looks for what event streams have to report.
        body_parser: the thread that checks large bodies.
        planner: the thread that plans deletions.
        stopping: set when open connections have to end.
    """

    def __init__(self, eraser: Eraser, *, compute: Mapping[str, Any] | None = None) -> None:
        self.eraser = eraser
        self.workspace = eraser.workspace
        self.config = self.workspace.config.service
        workers = self.workspace.config.compute.workers or os.cpu_count() or 1
        self.model_holder = ModelHolder(eraser)
        self.prediction_queue = PredictionQueue(
            self.model_holder,
            batch_queries=max(_MIN_BATCH_QUERIES, self.workspace.config.backbone.micro_batch * workers),
            pass_queries=self.workspace.config.backbone.micro_batch,
            max_wait_seconds=self.config.max_waiting_seconds,
            nice=self.config.prediction_nice,
        )
        upload = self.config.max_upload_mb << 20
        self.upload_budget = Budget(_UPLOADS * upload, _UPLOADS_OF_A_KEY * upload)
        max_pixels = int(self.config.max_megapixels * 1e6)
        self.image_decoder = ImageDecoder(
            self.model_holder,
            max_pixels=max_pixels,
            budget=Budget(max(int(self.config.max_waiting_megapixels * 1e6), KEPT_WEIGHT * max_pixels)),
            threads=min(workers, _MAX_DECODERS),
            nice=self.config.prediction_nice + _DECODERS_NICER,
        )
        self.payload_format = payload_format(self.workspace.config)
        self.payload_reader = PayloadReader(
            self.model_holder,
            self.payload_format,
            most=self.config.max_queries,
            threads=min(workers, _MAX_DECODERS),
            nice=self.config.prediction_nice,
        )
        self.supervisor = DerivationSupervisor(self.workspace, self._on_derivation_finished, compute)
        self.request_writer = RequestWriter(self.workspace, self.supervisor.check_now)
        self.rate_limiter = RateLimiter(self.config.requests_per_second, self.config.burst)
        self.key_lookups = ThreadPoolExecutor(LOOKUP_THREADS, "key-lookup")
        self.health_checks = ThreadPoolExecutor(1, "health-check")
        self.ready_until = 0.0
        self.stream_checks = ThreadPoolExecutor(1, "stream-check")
        self.body_parser = SharedThread("body-parser", _QUEUE_PLACES)
        self.planner = SharedThread("planner", _QUEUE_PLACES)
        self.streams = Budget(self.config.max_streams, max(1, self.config.max_streams // 2))
        self.stopping = threading.Event()
        self.metrics = Metrics(self.workspace, self._gauges(self.workspace.subscriptions))
        self.callback_sender = CallbackSender(self.workspace, self.metrics.count_callback)
        self._poller = threading.Thread(target=self._poll_workspace, name="workspace-poller", daemon=True)
        self._entered = contextlib.ExitStack()

    def __enter__(self) -> Self:
        with contextlib.ExitStack() as stack:
            stack.callback(self.image_decoder.stop)
            stack.callback(self.payload_reader.stop)
            for executor in (self.key_lookups, self.health_checks, self.stream_checks):
                stack.callback(executor.shutdown, cancel_futures=True)
            for thread in (self.body_parser, self.planner):
                stack.callback(thread.stop)
            stack.enter_context(self.model_holder)
            self.model_holder.load_published()
            for component in (self.prediction_queue, self.request_writer, self.supervisor, self.callback_sender):
                component.start()
                stack.callback(component.stop)
            self._poller.start()
            stack.callback(self._poller.join)
            stack.callback(self.stopping.set)
            self._entered = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._entered.close()

    def _on_derivation_finished(self, outcome: Mapping[str, Any]) -> None:
        self.metrics.record_derivation(outcome)
        with contextlib.suppress(Exception):  # the poller tries again
            self.model_holder.load_published()

    def _poll_workspace(self) -> None:
        erased = -_EXPIRY_SECONDS
        while not self.stopping.wait(_POLL_SECONDS):
            with contextlib.suppress(Exception):  # predictions are refused until the quarantine is known again
                self.model_holder.load_published()
            if time.monotonic() - erased >= _EXPIRY_SECONDS:
                erased = time.monotonic()
                with contextlib.suppress(Exception):  # a busy database is asked again
                    self.workspace.forget_expired_references()

    def _gauges(self, subscriptions: Subscriptions) -> dict[str, tuple[str, Any]]:
        return {
            "waiting_queries": (
                "Images, texts or vectors waiting for their prediction.",
                lambda: self.prediction_queue.waiting,
            ),
            "waiting_images": (
                "Deprecated, removed in the next release: use lmeraser_waiting_queries.",
                lambda: self.prediction_queue.waiting,
            ),
            "waiting_changes": (
                "Requests and cancellations waiting to be written.",
                lambda: self.request_writer.waiting,
            ),
            "waiting_callbacks": ("Callbacks not yet notified of the end of their request.", subscriptions.count),
            "deriving": (
                "Whether a derivation is running (0 or 1).",
                lambda: float(bool(self.supervisor.progress.step)),
            ),
            "generation": ("Generation of the served model; -1: none.", self._generation),
            "quarantined_clusters": ("Clusters excluded from predictions.", self._quarantined_clusters),
        }

    def _generation(self) -> float:
        model = self.workspace.generations.current()
        return -1 if model is None else model.generation

    def _quarantined_clusters(self) -> float:
        try:
            return len(self.model_holder.current.quarantined.clusters)
        except LmeraserError:
            return 0


def service_of(request: Request) -> Service:
    """The service that handles a call."""
    service: Service = request.app.state.service
    return service
