"""Every metric is described once, in full, and its values keep the range that is written down."""

from __future__ import annotations

import doctest
import importlib
import json
import pkgutil

import pytest

import lmeraser.experiments.metrics
from lmeraser.experiments.metrics import accuracies, agreement, attack_report, diversity, membership, relearning
from lmeraser.experiments.metrics.base import Direction, Metric
from lmeraser.experiments.metrics.registry import METRICS

FUNCTIONS = {  # what computes each metric
    "retain_accuracy": accuracies.accuracy,
    "forget_accuracy": accuracies.accuracy,
    "test_accuracy": accuracies.accuracy,
    "average_gap": accuracies.average_gap,
    "tug_of_war": accuracies.tug_of_war,
    "aus": accuracies.aus,
    "nomus": accuracies.nomus,
    "activation_distance": agreement.activation_distance,
    "js_divergence": agreement.js_divergence,
    "zrf": agreement.zrf,
    "relearn_time": relearning.relearn_time,
    "anamnesis_index": relearning.anamnesis_index,
    "mia_efficacy": membership.mia_efficacy,
    "diversity": diversity.diversity,
}


def test_the_example_runs() -> None:
    result = doctest.testmod(lmeraser.experiments.metrics)
    assert (result.attempted, result.failed) == (5, 0)


def test_the_registry_has_all_metrics_of_all_modules() -> None:
    names = [module.name for module in pkgutil.iter_modules(lmeraser.experiments.metrics.__path__)]
    metrics = "lmeraser.experiments.metrics"
    modules = [importlib.import_module(f"{metrics}.{name}") for name in names if name != "registry"]
    described = [metric for module in modules for metric in getattr(module, "METRICS", ())]
    assert len({metric.key for metric in described}) == len(described), "no two share a key"
    assert {metric.key: metric for metric in described} == dict(METRICS)


def test_every_metric_is_computed_by_something() -> None:
    reported = set(attack_report.AttackReport.__dataclass_fields__)
    assert {key for key in METRICS if key not in FUNCTIONS} == set(METRICS) & reported


@pytest.mark.parametrize("key", sorted(FUNCTIONS))
def test_docstrings_and_data_tell_the_same_direction(key: str) -> None:
    text = " ".join((FUNCTIONS[key].__doc__ or "").split())
    words = {
        Direction.ZERO: "owards 0",
        Direction.ONE: "owards 1",
        Direction.RETRAINED: "owards the retrained model's value",
        Direction.NONE: "larger: more diverse",
    }
    assert words[METRICS[key].direction] in text


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_every_description_is_complete(metric: Metric) -> None:
    assert all((metric.key, metric.name, metric.definition, metric.source))
    assert metric.high is None or metric.low < metric.high
    assert metric.key.isidentifier()
    assert json.loads(json.dumps(metric.to_json()))["direction"] == metric.direction
