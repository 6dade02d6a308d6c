"""Every method that the paper compares, on the same records: accuracy, and what one deletion costs.

    python benchmarks/methods.py --data PATH/TO/cifar10 --out methods
    python benchmarks/methods.py --data PATH/TO/cifar10 --out methods --presets sisa,retrain --epochs 5

The folder holds ``train.parquet`` and ``test.parquet``. Each preset leaves one JSON file in ``--out``; an
interrupted run continues from there. ``share`` is the expected share of the records that one uniform request tunes
again, sample hits included; seconds are those of a training and of one request, certificate included.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from datasets import Image, IterableDataset, load_dataset

from lmeraser import Columns, Eraser
from lmeraser.files import write_atomic
from lmeraser.presets import preset_name
from measuring import seconds

PRESETS = "instant,linear,prompts,single-prompt,random-partition,shared-head,dam-vp,sisa,retrain"


def rows(folder: Path, split: str, count: int) -> IterableDataset:
    """The first images of a split."""
    found = load_dataset(
        "parquet", data_files={split: str(folder / f"{split}.parquet")}, split=split, streaming=True
    )
    return found.cast_column("image", Image(decode=False)).take(count)


def measure(options: argparse.Namespace, preset: str) -> dict[str, Any]:
    """One method."""
    settings: dict[str, Any] = {"backbone": {"image_size": options.image_size}}
    if options.epochs and preset != "instant":
        settings["tuning"] = {"epochs": options.epochs}
    with (
        tempfile.TemporaryDirectory() as folder,
        Eraser.create(Path(folder) / "w", settings, preset=preset_name(preset)) as eraser,
    ):
        eraser.add(rows(options.data, "train", options.records), columns=Columns(positions=True))
        training = seconds(eraser.train)
        cost = eraser.cost(hits=4)
        report = eraser.evaluate(rows(options.data, "test", options.test), linear=preset == "linear")
        first = eraser.record_ids()[0]
        request = seconds(lambda: eraser.unlearn(ids=[first]))
    return {
        "preset": preset,
        "accuracy": report.accuracy,
        "linear_accuracy": report.linear_accuracy,
        "clusters": cost.clusters,
        "share": cost.expected_share,
        "train_seconds": round(training, 1),
        "request_seconds": round(request, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--presets", default=PRESETS)
    parser.add_argument("--records", type=int, default=1000)
    parser.add_argument("--test", type=int, default=1000)
    parser.add_argument("--image-size", type=int, default=96)
    parser.add_argument("--epochs", type=int, default=0, help="0: those of each preset")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    print("| preset | clusters | share | accuracy | training, s | request, s |\n|---|---|---|---|---|---|")
    for preset in options.presets.split(","):
        file = options.out / f"{preset}.json"
        if not file.exists():
            write_atomic(file, json.dumps(measure(options, preset), indent=1).encode())
        cell = json.loads(file.read_text())
        known = [cell["clusters"], f"{cell['share']:.4f}", f"{cell['accuracy']:.4f}"]
        print(f"| {preset} |", *(f"{value} |" for value in known), end=" ")
        print(f"{cell['train_seconds']} | {cell['request_seconds']} |", flush=True)


if __name__ == "__main__":
    main()
