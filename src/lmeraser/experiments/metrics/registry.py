"""Registry of all metrics by key, for reports that print the definition of a number beside it."""

from __future__ import annotations

from types import MappingProxyType

from lmeraser.experiments.metrics import accuracies, agreement, attack_report, diversity, membership, relearning

METRICS = MappingProxyType(
    {
        metric.key: metric
        for module in (accuracies, agreement, relearning, membership, attack_report, diversity)
        for metric in module.METRICS
    }
)
