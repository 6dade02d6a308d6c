"""All metrics by their key, for reports that print what a number means beside it."""

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
