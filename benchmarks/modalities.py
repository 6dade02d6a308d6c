"""A workspace of texts or vectors: import, training, accuracy, deletions and an audit; peak memory.

    python benchmarks/modalities.py --out bench --train train.parquet --test test.parquet    # texts
    python benchmarks/modalities.py --out bench --vectors 100000 --length 768                 # simulated vectors

Preset ``instant``, so the expected share is 0. ``deletion`` is the median of three, of one record each, with
certificate, ledger and purge. ``logistic`` is scikit-learn's on the same features; its C is chosen by
cross-validation inside the training set. Simulated vectors are written to a file by another process, so that they
do not count as memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from lmeraser import Eraser
from lmeraser.core.atomic_files import write_atomic

T = TypeVar("T")

_CLASSES = 20


def simulate(path: Path, count: int, length: int) -> None:
    """Write vectors around a centre for each class, and their labels."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, _CLASSES, count)
    vectors = generator.standard_normal((count, length), dtype=np.float32)
    vectors += 0.3 * generator.standard_normal((_CLASSES, length), dtype=np.float32)[labels]
    np.savez(path, X=vectors, y=np.array([f"class-{label:02d}" for label in labels]))


def timed(function: Callable[[], T], seconds: dict[str, float], name: str) -> T:
    started = time.perf_counter()
    result = function()
    seconds[name] = round(time.perf_counter() - started, 3)
    print(f"{name}: {seconds[name]} s", flush=True)
    return result


def measure(root: Path, config: dict[str, Any], source: Path, test: Path | None) -> dict[str, Any]:
    seconds: dict[str, float] = {}
    with Eraser.create(root, config) as eraser:
        added = timed(lambda: eraser.add(source), seconds, "import").added
        timed(eraser.train, seconds, "training")
        report = None if test is None else eraser.evaluate(test)
        deletions: dict[str, float] = {}
        for number in range(3):
            gone = eraser.record_ids()[number]
            timed(lambda gone=gone: eraser.unlearn(ids=[gone]), deletions, f"deletion {number}")  # type: ignore[misc]
        seconds["deletion"] = statistics.median(deletions.values())
        audit = timed(eraser.audit, seconds, "audit")
    return {
        "records": added,
        "seconds": seconds,
        "accuracy": None if report is None else report.accuracy,
        "logistic": None if report is None else report.linear_accuracy,
        "identical": audit.identical,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--train", type=Path, help="texts, with the columns text and label")
    parser.add_argument("--test", type=Path, help="texts whose classes are predicted")
    parser.add_argument("--vectors", type=int, help="number of simulated vectors, instead of texts")
    parser.add_argument("--length", type=int, default=768)
    options = parser.parse_args()
    if (options.train is None) == (options.vectors is None):
        parser.error("give either --train or --vectors")
    with tempfile.TemporaryDirectory() as folder:
        source: Path = options.train
        config: dict[str, Any] = {"data": {"modality": "text"}}
        if options.vectors is not None:
            source = Path(folder) / "vectors.npz"
            config = {"data": {"modality": "vector", "length": options.length}}
            writer = multiprocessing.get_context("spawn").Process(
                target=simulate, args=(source, options.vectors, options.length)
            )
            writer.start()
            writer.join()
        result = measure(Path(folder) / "workspace", config, source, options.test)
    options.out.mkdir(parents=True, exist_ok=True)
    write_atomic(options.out / "modalities.json", json.dumps(result, indent=2).encode())
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
