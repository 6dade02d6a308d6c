"""Shared parts of the benchmarks: timing, medians of alternating pairs, one result file per machine."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lmeraser.core.atomic_files import write_atomic


@dataclass(frozen=True)
class Comparison:
    """Our implementation and a baseline, timed alternately.

    Attributes:
        seconds: median of ours.
        baseline_seconds: median of the baseline.
        ratio: ratio of the medians, baseline over ours.
        low, high: quartiles of the ratios of the pairs.
        pairs: number of pairs.
    """

    seconds: float
    baseline_seconds: float
    ratio: float
    low: float
    high: float
    pairs: int


def seconds(function: Callable[[], object]) -> float:
    """Duration of one call."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def compare(
    ours: Callable[[], object], baselines: Mapping[str, Callable[[], object]], pairs: int = 5
) -> dict[str, Comparison]:
    """Compare ours with each baseline: all run alternately, after one warm-up run of each."""
    ways = [ours, *baselines.values()]
    for way in ways:
        way()
    timed = list(zip(*([seconds(way) for way in ways] for _ in range(pairs)), strict=True))
    return {name: comparison(timed[0], times) for name, times in zip(baselines, timed[1:], strict=True)}


def comparison(ours: Sequence[float], others: Sequence[float]) -> Comparison:
    """Compare the durations of two implementations that ran alternately."""
    mine, theirs = statistics.median(ours), statistics.median(others)
    low, _, high = statistics.quantiles([other / own for own, other in zip(ours, others, strict=True)], n=4)
    return Comparison(mine, theirs, theirs / mine, low, high, len(ours))


def device() -> str:
    """Short name of the machine, for the name of the result file."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name(0).lower().replace(" ", "-")
    return f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability().lower()}-{os.cpu_count()}-cores"


def parser_of(description: str | None) -> argparse.ArgumentParser:
    """The options that benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    return parser


def keep(options: argparse.Namespace, name: str, rows: dict[str, Any], **more: object) -> None:
    """Print the rows of a benchmark, and store them with its settings in the machine's file in ``--out``."""
    out = options.out
    settings = {key: value for key, value in vars(options).items() if key != "out"} | more
    file = out / f"{device()}.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    plain = {row: asdict(cell) if isinstance(cell, Comparison) else cell for row, cell in rows.items()}
    known[name] = {
        "date": datetime.now(UTC).date().isoformat(),
        "torch": torch.__version__,
        "settings": settings,
        "rows": plain,
    }
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(file, (json.dumps(known, indent=1, sort_keys=True, default=str) + "\n").encode())
    print(f"\n{name} ({settings})")
    for row, cell in plain.items():
        print(f"  {row:55}", _line(cell))


def _line(cell: Any) -> str:
    if isinstance(cell, dict) and "ratio" in cell and "low" in cell:
        return (
            f"{cell['seconds']:8.3f} s against {cell['baseline_seconds']:8.3f} s: "
            f"{cell['ratio']:.2f} times ({cell['low']:.2f} to {cell['high']:.2f})"
        )
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)
