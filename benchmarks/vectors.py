"""The scikit-learn classifier on many vectors: import, fit, one deletion and predictions; peak memory.

    python benchmarks/vectors.py --out bench --records 100000 --features 768 --classes 77

Simulated float32 embeddings. ``import`` is that of `lmeraser.sklearn` in a new process, with scikit-learn. ``fit``
gets an id for every record. ``forget`` is the median of single records. ``fit without`` fits the records that are
left, which is what unlearning would take without subtraction, and has to give the same bytes. ``peak memory`` is
of the whole process, the vectors included. Loads no torch.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from lmeraser.core.atomic_files import write_atomic
from lmeraser.sklearn import ExactUnlearningClassifier


def seconds(function: Callable[[], object]) -> float:
    """Duration of one call; `measuring`, which other benchmarks share, loads torch."""
    started = time.perf_counter()
    function()
    return time.perf_counter() - started


def megabytes() -> float:
    """Peak memory of this process so far (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--records", type=int, default=100_000)
    parser.add_argument("--features", type=int, default=768)
    parser.add_argument("--classes", type=int, default=77)
    parser.add_argument("--requests", type=int, default=11)
    options = parser.parse_args()
    rows: dict[str, float] = {}
    command = [sys.executable, "-c", "import lmeraser.sklearn"]
    rows["import, s"] = seconds(lambda: subprocess.run(command, check=True))
    coins = np.random.default_rng(0)
    labels = coins.integers(options.classes, size=options.records)
    centres = coins.standard_normal((options.classes, options.features), dtype=np.float32)
    vectors = coins.standard_normal((options.records, options.features), dtype=np.float32)
    for start in range(0, options.records, 4096):
        vectors[start : start + 4096] += 0.1 * centres[labels[start : start + 4096]]
    ids = [f"record {number}" for number in range(options.records)]
    rows["memory before, MB"] = megabytes()
    classifier = ExactUnlearningClassifier()
    rows["fit, s"] = seconds(lambda: classifier.fit(vectors, labels, ids=ids))
    each = [
        seconds(lambda gone=gone: classifier.forget(ids=[gone]))  # type: ignore[misc]
        for gone in ids[: options.requests]
    ]
    rows["forget one, s"] = statistics.median(each)
    rows["predict 10,000, s"] = seconds(lambda: classifier.predict(vectors[:10_000]))
    rows["peak memory, MB"] = megabytes()
    anew = ExactUnlearningClassifier()
    rows["fit without, s"] = seconds(lambda: anew.fit(vectors[options.requests :], labels[options.requests :]))
    assert classifier.coef_.tobytes() == anew.coef_.tobytes(), (
        "a benchmark of something not exact is worth nothing"
    )
    settings = {name: value for name, value in vars(options).items() if name != "out"}
    found = {
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "settings": settings,
        "rows": rows,
    }
    write_atomic(options.out / "vectors.json", (json.dumps(found, indent=1, sort_keys=True) + "\n").encode())
    for name, value in rows.items():
        print(f"{name:20} {value:10.3f}")


if __name__ == "__main__":
    main()
