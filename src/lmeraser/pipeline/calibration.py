"""How fast this machine tunes, as it was last measured, so that plans can say how long something will take.

The file ``calibration.json`` of a workspace holds one speed for each machine and set of settings that speed
depends on. A training measures it, and so does 'lmeraser doctor'. It changes no result and can be deleted at any
time. Needs no torch; knows nothing about records.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from lmeraser.config.schema import Config
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import Digest

LEAST_SECONDS = 1.0  # a shorter measurement says more about starting than about tuning


class Calibration:
    """Measured speeds, in records x epochs per second.

    Args:
        file: where they are kept.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def speed(self, config: Config) -> float | None:
        """The speed with these settings on this machine; None before it was measured."""
        return self._known().get(_key(config))

    def note(self, config: Config, records: float, seconds: float) -> None:
        """Keep a measurement, of records x epochs in so many seconds, unless it is too short to tell."""
        if records > 0 and seconds >= LEAST_SECONDS:
            known = {**self._known(), _key(config): round(records / seconds, 2)}
            write_atomic(self._file, json.dumps(known, indent=1, sort_keys=True).encode())

    def _known(self) -> dict[str, float]:
        try:
            found = json.loads(self._file.read_bytes())
            return {str(key): float(value) for key, value in found.items() if float(value) > 0}
        except (OSError, ValueError, AttributeError, TypeError):  # absent, or not as it was written: not measured
            return {}


def _key(config: Config) -> str:
    """Names the machine, and the settings that tuning's speed depends on."""
    settings, compute = config.model_settings(), config.compute
    parts = {name: settings[name] for name in ("backbone", "constituent", "prompt", "tokens", "embedding")}
    batch, workers = config.tuning.batch_size, compute.workers or os.cpu_count()
    machine = [platform.node(), platform.machine(), os.cpu_count(), compute.device, workers]
    if compute.executor != "local":
        machine += [compute.executor, compute.processes, compute.address]
    return Digest.of_json({**parts, "name": config.backbone.name, "batch": batch, "machine": machine})
