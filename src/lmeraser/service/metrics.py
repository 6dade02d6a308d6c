"""What operators watch, for Prometheus: requests against their dates, cost, queues, latencies. Names no person."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from lmeraser.core.time import from_text
from lmeraser.workspace.requests.state import State
from lmeraser.workspace.workspace import Workspace

_QUICK = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0)


class Metrics:
    """The metrics of one service.

    Args:
        workspace: where the requests are.
        gauges: further values, by name without prefix, each with a text and a function that finds it.
    """

    def __init__(self, workspace: Workspace, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Open(workspace, gauges))
        many: dict[str, Any] = {"registry": self._registry, "namespace": "lmeraser"}
        names = ["route", "method", "status"]
        self.calls = Histogram("call_seconds", "Time to answer a call.", names, buckets=_QUICK, **many)
        self.images = Counter("predicted_images", "Images answered.", **many)
        self.rerouted = Counter("rerouted_images", "Of these, answered around a quarantined cluster.", **many)
        self.callbacks = Counter("callbacks", "Callbacks, by whether they arrived.", ["arrived"], **many)
        self._derivations = Histogram("derivation_seconds", "Time of a derivation.", buckets=_LONG, **many)
        self._ended = Counter("derivations", "Derivations, by how they ended.", ["outcome"], **many)
        self._requests = Counter("requests_carried_out", "Requests that derivations carried out.", **many)
        self._tuned = Counter("records_tuned", "Records tuned again by derivations: their cost.", **many)
        self._deleted = Counter("records_deleted", "Records that derivations deleted.", **many)

    def derived(self, ended: Mapping[str, Any]) -> None:
        """Count a derivation by what its process said of its end."""
        self._ended.labels(ended["outcome"]).inc()
        if ended["outcome"] == "done":
            self._derivations.observe(ended["seconds"])
            self._requests.inc(ended["requests"])
            self._tuned.inc(ended["tuned_records"])
            self._deleted.inc(ended["records"])

    def text(self) -> bytes:
        """All of them, in Prometheus' text format."""
        return generate_latest(self._registry)


class _Open(Collector):
    """What is looked up when somebody asks."""

    def __init__(self, workspace: Workspace, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._workspace, self._gauges = workspace, gauges

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        now, counts = self._workspace.clock(), dict.fromkeys(get_args(State), 0)
        age, left = 0.0, float("inf")
        for request in self._workspace.requests.all():
            counts[request.state] += 1
            if request.open:
                age = max(age, (now - from_text(request.received)).total_seconds())
                left = min(left, (from_text(request.due) - now).total_seconds())
        states = GaugeMetricFamily("lmeraser_requests", "Deletion requests by state.", labels=["state"])
        for state, count in counts.items():
            states.add_metric([state], count)
        yield states
        yield GaugeMetricFamily(
            "lmeraser_oldest_request_age_seconds", "Age of the oldest open request.", value=age
        )
        yield GaugeMetricFamily(
            "lmeraser_next_due_seconds",
            "Until the first open request is due; negative: late; +Inf: none.",
            value=left,
        )
        for name, (text, find) in self._gauges.items():
            yield GaugeMetricFamily(f"lmeraser_{name}", text, value=find())
