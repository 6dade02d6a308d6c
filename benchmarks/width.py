"""What a wide embedding costs: training, one deletion in process with its certificate, storage and memory.

    python benchmarks/width.py 2800 4096 8192

Random vectors of 384 numbers, 3,000 records in 100 classes, with a random layer of each width on top and the
penalty from the sums, as in new `instant` workspaces. Deletions are of one record each; the median of five,
wall and processor seconds. Memory is the most that the process ever held.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from datasets import Dataset

from lmeraser import Columns, Eraser
from lmeraser.config.schema import parse

RECORDS = 3000
CLASSES = 100
LENGTH = 384


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("widths", type=int, nargs="+")
    print("| width | training | a deletion | processor time | audit | database, MB | memory, MiB |")
    print("|---|---|---|---|---|---|---|")
    for width in parser.parse_args().widths:
        with tempfile.TemporaryDirectory() as folder:
            print(f"| {width} | {' | '.join(measured(width, Path(folder) / 'w'))} |", flush=True)


def measured(width: int, folder: Path) -> list[str]:
    """The cells of one row."""
    vectors = np.random.default_rng(0).standard_normal((RECORDS, LENGTH)).astype(np.float32)
    table = {
        "id": [f"r{number}" for number in range(RECORDS)],
        "vector": vectors.tolist(),
        "label": [str(number % CLASSES) for number in range(RECORDS)],
    }
    settings = {"data": {"modality": "vector", "length": LENGTH}, "embedding": {"random_features": width}}
    classes = [str(number) for number in range(CLASSES)]
    with Eraser.create(folder, parse(settings, base="instant"), classes=classes) as eraser:
        eraser.add(Dataset.from_dict(table), columns=Columns(id="id", label="label"))
        started = time.perf_counter()
        eraser.train()
        training = time.perf_counter() - started
        wall: list[float] = []
        processor: list[float] = []
        for number in range(5):
            started = time.perf_counter()
            used = time.process_time()
            eraser.unlearn(ids=[f"r{number}"])
            wall.append(time.perf_counter() - started)
            processor.append(time.process_time() - used)
        identical = eraser.audit().identical
    database = (folder / "records.db").stat().st_size / 1e6
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [
        f"{training:.1f} s",
        f"{statistics.median(wall):.3f} s",
        f"{statistics.median(processor):.3f} s",
        "identical" if identical else "DIFFERENT",
        f"{database:.0f}",
        f"{memory:.0f}",
    ]


if __name__ == "__main__":
    main()
