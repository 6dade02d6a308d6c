"""Resource usage of a piece of work: wall-clock seconds, peak memory and, where readable, energy.

Memory is the resident peak of this process while the work ran (Linux; elsewhere the peak since the process began,
and only if that grew). Energy is read from the
counters of the processor packages (RAPL, Linux, usually readable by root only) and includes everything that ran
meanwhile. A value that cannot be read is None, never an estimate.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_PEAK = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")
_RAPL = Path("/sys/class/powercap")


@dataclass(frozen=True)
class ResourceUsage:
    """Resources that a piece of work used.

    Attributes:
        seconds: wall-clock time.
        peak_mb: peak resident memory, MiB.
        joules: energy of the processor packages.
    """

    seconds: float
    peak_mb: float | None
    joules: float | None


def measure_resources(work: Callable[[], T]) -> tuple[T, ResourceUsage]:
    """Run ``work``; return its result and the resources that it used."""
    peak_was_reset = _reset_peak()
    process_peak = _process_peak()
    energy_before = _energy()
    started = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - started
    energy = _energy()
    peak = _peak_since_reset() if peak_was_reset else None
    if not peak_was_reset and _process_peak() > process_peak:
        peak = _process_peak()
    joules = None
    if energy_before is not None and energy is not None and energy >= energy_before:  # counters wrap around
        joules = energy - energy_before
    return result, ResourceUsage(seconds, peak, joules)


def _reset_peak() -> bool:
    """Reset the kernel's peak counter; False where the system does not support it."""
    try:
        _PEAK.write_text("5")
    except OSError:
        return False
    return _peak_since_reset() is not None


def _peak_since_reset() -> float | None:
    """Peak resident memory since `_reset_peak`, MiB."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def _process_peak() -> float:
    """Peak resident memory since the process started, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _energy() -> float | None:
    """Sum of the energy counters of all processor packages, J; None if there is none or one cannot be read."""
    try:
        counters = [int(path.read_text()) for path in sorted(_RAPL.glob("intel-rapl:[0-9]/energy_uj"))]
    except (OSError, ValueError):
        return None
    return sum(counters) / 1e6 if counters else None
