"""The metrics say what is open against its date, what it cost, and how the service fares."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

import faults
from conftest import Template
from faults import NOW, name, opened
from lmeraser import Eraser
from lmeraser.service.metrics import Metrics
from serving import fake_workspace


@pytest.fixture
def eraser(template: Template, tmp_path: Path) -> Iterator[Eraser]:
    with opened(fake_workspace(template, tmp_path)) as one:
        yield one


def values(metrics: Metrics) -> dict[str, float]:
    """All samples, by name and labels."""
    return {
        sample.name + "".join(f" {value}" for _, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }


def test_open_requests_are_counted_against_their_dates(eraser: Eraser) -> None:
    metrics = Metrics(eraser.workspace, {})
    assert values(metrics)["lmeraser_requests pending"] == 0
    assert values(metrics)["lmeraser_next_due_seconds"] == float("inf")
    eraser.request(ids=[name(1)], regulation="ccpa")
    eraser.request(ids=[name(2)], received=NOW - timedelta(days=50), regulation="ccpa")
    eraser.request(ids=[name(3)], request=faults.REQUEST)
    eraser.cancel(faults.REQUEST)
    found = values(metrics)
    assert found["lmeraser_requests pending"] == 2
    assert found["lmeraser_requests cancelled"] == 1
    assert found["lmeraser_oldest_request_age_seconds"] == 50 * 86400
    assert found["lmeraser_next_due_seconds"] == -5 * 86400
    eraser.unlearn()
    found = values(metrics)
    assert (found["lmeraser_requests completed"], found["lmeraser_requests pending"]) == (2, 0)
    assert found["lmeraser_oldest_request_age_seconds"] == 0


def test_derivations_and_their_cost_are_counted(eraser: Eraser) -> None:
    metrics = Metrics(eraser.workspace, {})
    done = {"outcome": "done", "seconds": 3.0, "requests": 4, "tuned_records": 50, "records": 6}
    for ended in (done, done, {"outcome": "died", "error": "x"}):
        metrics.record_derivation(ended)
    found = values(metrics)
    assert (found["lmeraser_derivations_total done"], found["lmeraser_derivations_total died"]) == (2, 1)
    assert found["lmeraser_derivation_seconds_sum"] == 6
    assert found["lmeraser_requests_carried_out_total"] == 8
    assert (found["lmeraser_records_tuned_total"], found["lmeraser_records_deleted_total"]) == (100, 12)


def test_gauges_are_looked_up_when_somebody_asks(eraser: Eraser) -> None:
    numbers = iter([1.0, 2.0])
    metrics = Metrics(eraser.workspace, {"waiting": ("What waits.", lambda: next(numbers))})
    assert [values(metrics)["lmeraser_waiting"] for _ in range(2)] == [1, 2]
