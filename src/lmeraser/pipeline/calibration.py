"""Measured tuning speeds, from which plans estimate how long a deletion will take.

The file ``calibration.json`` of a workspace holds one speed for each machine and each set of settings that speed
depends on. A training measures it, and so does 'lmeraser doctor'. It changes no result and can be deleted at any
time. Needs no torch.
"""

from __future__ import annotations

import json
import os
import platform
from pathlib import Path

from lmeraser.config.schema import Config
from lmeraser.core.atomic_files import write_atomic
from lmeraser.core.digests import Digest

MIN_SECONDS = 1.0  # a shorter measurement says more about starting than about tuning


class Calibration:
    """Measured speeds, in records x epochs per second.

    Args:
        file: where they are stored.
    """

    def __init__(self, file: Path) -> None:
        self._file = file

    def speed(self, config: Config) -> float | None:
        """The speed with these settings on this machine; None if it was not measured yet."""
        return self._speeds().get(_key(config))

    def note(self, config: Config, records: float, seconds: float) -> None:
        """Store a measurement, unless it is too short to be meaningful.

        Args:
            config: the settings.
            records: how many records were tuned, times epochs.
            seconds: how long that took.
        """
        if records > 0 and seconds >= MIN_SECONDS:
            speeds = {**self._speeds(), _key(config): round(records / seconds, 2)}
            write_atomic(self._file, json.dumps(speeds, indent=1, sort_keys=True).encode())

    def _speeds(self) -> dict[str, float]:
        try:
            speeds = json.loads(self._file.read_bytes())
            return {str(key): float(speed) for key, speed in speeds.items() if float(speed) > 0}
        except (OSError, ValueError, AttributeError, TypeError):  # missing or damaged: as if nothing was measured
            return {}


def _key(config: Config) -> str:
    """Identifies the machine, and the settings that tuning's speed depends on."""
    settings = config.model_settings()
    compute = config.compute
    parts = {name: settings[name] for name in ("backbone", "constituent", "prompt", "tokens", "embedding")}
    workers = compute.workers or os.cpu_count()
    machine = [platform.node(), platform.machine(), os.cpu_count(), compute.device, workers]
    if compute.executor != "local":
        machine += [compute.executor, compute.processes, compute.address]
    return Digest.of_json(
        {**parts, "name": config.backbone.name, "batch": config.tuning.batch_size, "machine": machine}
    )
