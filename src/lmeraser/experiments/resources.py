"""What work takes of the machine: seconds, peak memory, energy where the machine tells it.

Memory is the resident peak of this process while the work ran (Linux; elsewhere the peak since the process began,
and only if that grew). Energy is what the processor packages' counters say (RAPL, Linux, readable by few), of
everything that ran meanwhile. What cannot be read is None, never an estimate.
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
class Used:
    """What some work took.

    Attributes:
        seconds: by the clock on the wall.
        peak_mb: of resident memory, MiB.
        joules: of the processor packages.
    """

    seconds: float
    peak_mb: float | None
    joules: float | None


def measured(work: Callable[[], T]) -> tuple[T, Used]:
    """The result of some work, and what it took."""
    own_peak = _forget_peak()
    before = _largest()
    energy, started = _energy(), time.perf_counter()
    result = work()
    seconds, after = time.perf_counter() - started, _energy()
    peak = _peak() if own_peak else (_largest() if _largest() > before else None)
    joules = after - energy if energy is not None and after is not None and after >= energy else None
    return result, Used(seconds, peak, joules)


def _forget_peak() -> bool:
    """Start a new peak, where the system can."""
    try:
        _PEAK.write_text("5")
    except OSError:
        return False
    return _peak() is not None


def _peak() -> float | None:
    """Resident peak since `_forget_peak`, MiB."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:")), None)


def _largest() -> float:
    """Resident peak since the process began, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def _energy() -> float | None:
    """Joules on the counters of all processor packages; None if one of them cannot be read, or there is none."""
    try:
        counters = [int(path.read_text()) for path in sorted(_RAPL.glob("intel-rapl:[0-9]/energy_uj"))]
    except (OSError, ValueError):
        return None
    return sum(counters) / 1e6 if counters else None
