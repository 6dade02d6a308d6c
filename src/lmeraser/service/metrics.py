"""Metrics for Prometheus: requests against their deadlines, cost, queues and latencies. They name no person.

The names of metrics and labels are an interface (``deploy/alerts.yml``, ``docs/service.md``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lmeraser.core.time import from_text
from lmeraser.workspace.requests.state import State
from lmeraser.workspace.workspace import Workspace

_CALL_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_DERIVATION_BUCKETS = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)  # seconds

Gauges = Mapping[str, tuple[str, Callable[[], float]]]


class Metrics:
    """The metrics of one service.

    Args:
        workspace: holds the requests.
        gauges: further values by name (without prefix): a description, and a function that returns the value.
    """

    def __init__(self, workspace: Workspace, gauges: Gauges) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_WorkspaceCollector(workspace, gauges))
        common: dict[str, Any] = {"registry": self._registry, "namespace": "lmeraser"}
        labels = ["route", "method", "status"]
        self.calls = Histogram("call_seconds", "Time to answer a call.", labels, buckets=_CALL_BUCKETS, **common)
        former = "Deprecated, removed in the next release: use lmeraser_{}_queries_total."
        self._predicted = [
            Counter("predicted_queries", "Images, texts or vectors classified.", **common),
            Counter("predicted_images", former.format("predicted"), **common),
        ]
        self._rerouted = [
            Counter("rerouted_queries", "Queries rerouted around a quarantined cluster.", **common),
            Counter("rerouted_images", former.format("rerouted"), **common),
        ]
        self._callbacks = Counter("callbacks", "Callbacks by whether they arrived.", ["arrived"], **common)
        self._derivation_seconds = Histogram(
            "derivation_seconds", "Duration of a derivation.", buckets=_DERIVATION_BUCKETS, **common
        )
        self._derivations = Counter("derivations", "Derivations by outcome.", ["outcome"], **common)
        self._requests = Counter("requests_carried_out", "Requests carried out by derivations.", **common)
        self._tuned = Counter("records_tuned", "Records tuned again by derivations: their cost.", **common)
        self._deleted = Counter("records_deleted", "Records deleted by derivations.", **common)

    def count_predictions(self, count: int, *, rerouted: int) -> None:
        """Count classified queries, and how many of them were rerouted around a quarantined cluster."""
        for counter in self._predicted:
            counter.inc(count)
        for counter in self._rerouted:
            counter.inc(rerouted)

    def count_callback(self, arrived: bool) -> None:
        """Count an attempted callback."""
        self._callbacks.labels(arrived).inc()

    def record_derivation(self, outcome: Mapping[str, Any]) -> None:
        """Count a derivation by the outcome that its process reported."""
        self._derivations.labels(outcome["outcome"]).inc()
        if outcome["outcome"] == "done":
            self._derivation_seconds.observe(outcome["seconds"])
            self._requests.inc(outcome["requests"])
            self._tuned.inc(outcome["tuned_records"])
            self._deleted.inc(outcome["records"])

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)


class _WorkspaceCollector(Collector):
    """Values that are computed when they are collected."""

    def __init__(self, workspace: Workspace, gauges: Gauges) -> None:
        self._workspace = workspace
        self._gauges = gauges

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        now = self._workspace.clock()
        counts = dict.fromkeys(get_args(State), 0)
        oldest_age = 0.0
        next_due = float("inf")
        for request in self._workspace.requests.all():
            counts[request.state] += 1
            if request.open:
                oldest_age = max(oldest_age, (now - from_text(request.received)).total_seconds())
                next_due = min(next_due, (from_text(request.due) - now).total_seconds())
        states = GaugeMetricFamily("lmeraser_requests", "Deletion requests by state.", labels=["state"])
        for state, count in counts.items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily(
            "lmeraser_oldest_request_age_seconds", "Age of the oldest open request.", value=oldest_age
        )
        yield GaugeMetricFamily(
            "lmeraser_next_due_seconds",
            "Time until the first open request is due; negative: overdue; +Inf: no request is open.",
            value=next_due,
        )
        for name, (description, read) in self._gauges.items():
            yield GaugeMetricFamily(f"lmeraser_{name}", description, value=read())
